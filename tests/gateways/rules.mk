# Tests of the doors run over a journal in memory and connections in memory; the real journal of libjournal
# stays out, because the one in memory defines all that the doors call.
GATEWAY_FAKES := $(addprefix $(OUT)/tests/gateways/,journal_fake.o conn_fake.o kafka_messages.o kafka_client.o)
$(addprefix $(OUT)/tests/gateways/test_,kafka_codec kafka_door topics group_api): $(GATEWAY_FAKES)

TEST_PROGRAMS += $(OUT)/tests/gateways/kafka_recode
$(OUT)/tests/gateways/kafka_recode: $(OUT)/tests/gateways/kafka_recode.o \
    $(OUT)/tests/gateways/kafka_messages.o $(LIB_gateways)
	@mkdir -p $(@D); echo "  LD   $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS_gateways)

# The same for the fuzz target of the door (tests/fuzz/rules.mk has the rest).
$(OUT)/fuzz/tests/fuzz/fuzz_kafka_request: $(OUT)/fuzz/fakes/libgateways.a
$(OUT)/fuzz/fakes/libgateways.a: $(addprefix $(OUT)/fuzz/tests/gateways/,journal_fake.o conn_fake.o)
	@mkdir -p $(@D)
	$(Q)rm -f $@; $(AR) rcs $@ $^
