# Tests of the doors run over a journal in memory and connections in memory. Those come first on the
# linker's line: the real journal then stays out, because the one in memory defines all that the
# doors call.
GATEWAY_FAKES := $(addprefix $(OUT)/tests/gateways/, \
    journal_fake.o journal_fake_keys.o conn_fake.o kafka_messages.o kafka_client.o kafka_ask.o)
FAKED_TESTS   := $(addprefix $(OUT)/tests/gateways/test_, \
    kafka_codec kafka_configs kafka_door kafka_records recode topics group_api)
$(FAKED_TESTS): %: %.o $(GATEWAY_FAKES) $(OUT)/libsim.a $(LIB_gateways)
	@mkdir -p $(@D); echo "  LD   $@"
	$(Q)$(LINK) -o $@ $^ -lcunit $(LIBS_gateways)

TEST_PROGRAMS += $(OUT)/tests/gateways/kafka_recode
$(OUT)/tests/gateways/kafka_recode: $(OUT)/tests/gateways/kafka_recode.o \
    $(OUT)/tests/gateways/kafka_messages.o $(LIB_gateways)
	@mkdir -p $(@D); echo "  LD   $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS_gateways)

# The door over the real journal: only the connections are in memory.
$(OUT)/tests/gateways/test_sim_kafka: $(addprefix $(OUT)/tests/gateways/, \
    kafka_sim.o kafka_sim_client.o kafka_sim_data.o kafka_sim_groups.o kafka_sim_model.o \
    kafka_sim_topics.o conn_fake.o kafka_messages.o)
