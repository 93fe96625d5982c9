# make fuzz                  every tests/fuzz/fuzz_NAME.c for FUZZ_SECONDS, from its corpus/NAME on
# make fuzz FUZZ_RUNS=0      only replays the corpora
# make fuzz FUZZ=batch       one target
#
# A target is LLVMFuzzerTestOneInput in one file. It is linked with base and format; fuzz_kafka* also
# with journal and gateways. All of it is compiled with clang, libFuzzer's coverage and the address and
# undefined-behaviour sanitizers.

FUZZ_SECONDS ?= 10
FUZZ_RUNS    ?=
FUZZ         ?= *
FUZZ_CC      ?= clang
FUZZ_OUT     := $(OUT)/fuzz
FUZZ_SAN     := address,undefined
FUZZ_FLAGS    = -std=c11 -D_GNU_SOURCE -pthread -I. -MMD -MP -fno-strict-aliasing $(WARN) -O1 -g \
                -fno-omit-frame-pointer -fno-sanitize-recover=undefined -DWEIR_SLOW_ASSERTS
FUZZ_ALL     := $(patsubst %.c,$(FUZZ_OUT)/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_TARGETS := $(patsubst %.c,$(FUZZ_OUT)/%,$(wildcard tests/fuzz/fuzz_$(FUZZ).c))
fuzz_obj      = $(patsubst %.c,$(FUZZ_OUT)/%.o,$(1))

$(FUZZ_OUT)/%.o: %.c
	@mkdir -p $(@D); echo "  FUZZ $<"
	$(Q)$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link,$(FUZZ_SAN) -c -o $@ $<

$(FUZZ_OUT)/libformat.a: $(call fuzz_obj,$(SRC_format) $(SRC_base))
	$(Q)rm -f $@; $(AR) rcs $@ $^
$(FUZZ_OUT)/libgateways.a: $(call fuzz_obj,$(SRC_gateways) $(SRC_journal) $(SRC_sim))
	$(Q)rm -f $@; $(AR) rcs $@ $^

$(filter $(FUZZ_OUT)/tests/fuzz/fuzz_kafka%,$(FUZZ_ALL)): $(FUZZ_OUT)/libgateways.a
$(FUZZ_ALL): $(FUZZ_OUT)/%: $(FUZZ_OUT)/%.o $(FUZZ_OUT)/libformat.a
	@echo "  LD   $@"
	$(Q)$(FUZZ_CC) -pthread -fsanitize=fuzzer,$(FUZZ_SAN) -o $@ $< \
		$(filter %gateways.a,$^) $(filter %format.a,$^) \
		$(if $(filter %gateways.a,$^),$(LIBS_gateways),$(LIBS_format))

fuzz: $(FUZZ_TARGETS)
	$(Q)FUZZ_SECONDS='$(FUZZ_SECONDS)' FUZZ_RUNS='$(FUZZ_RUNS)' \
		tests/fuzz/run.sh $(FUZZ_OUT)/crashes $^
