# make bench          every figure with its reference, and a table of the marks (docs/benchmarks.md)
# make bench-smoke    the same with tiny numbers: that the drivers run, nothing else
#
# BENCH_ARGS are handed to bench/run.sh (--help).

BENCH_PROGRAMS := $(addprefix $(OUT)/bench/,raw journal_bench replay_bench idle_bench kafka_bench recode test_measure)
BENCH_SHARED   := $(OUT)/bench/measure.o

$(OUT)/bench/raw: $(addprefix $(OUT)/bench/,raw.o raw_io.o) $(BENCH_SHARED) $(LIB_base)
$(OUT)/bench/raw: BENCH_LIBS := -laio -lisal $(LIBS_base)
$(OUT)/bench/journal_bench: $(addprefix $(OUT)/bench/,journal_bench.o child.o store.o raw_io.o paced.o least.o) \
    $(BENCH_SHARED) $(LIB_journal)
$(OUT)/bench/journal_bench: BENCH_LIBS := $(LIBS_journal)
$(OUT)/bench/replay_bench: $(addprefix $(OUT)/bench/,replay_bench.o store.o raw_io.o) \
    $(BENCH_SHARED) $(LIB_journal)
$(OUT)/bench/replay_bench: BENCH_LIBS := $(LIBS_journal)
$(OUT)/bench/idle_bench: $(addprefix $(OUT)/bench/,idle_bench.o store.o) $(BENCH_SHARED) \
    $(LIB_gateways)
$(OUT)/bench/idle_bench: BENCH_LIBS := $(LIBS_gateways)
$(OUT)/bench/kafka_bench: $(addprefix $(OUT)/bench/,kafka_bench.o kafka_client.o) \
    $(BENCH_SHARED) $(LIB_base)
$(OUT)/bench/kafka_bench: BENCH_LIBS := -lrdkafka $(LIBS_base)
$(OUT)/bench/recode: $(OUT)/bench/recode.o $(BENCH_SHARED) $(LIB_format)
$(OUT)/bench/recode: BENCH_LIBS := $(LIBS_format)
$(OUT)/bench/test_measure: $(OUT)/bench/test_measure.o $(BENCH_SHARED) $(LIB_base)
$(OUT)/bench/test_measure: BENCH_LIBS := $(LIBS_base)
$(BENCH_PROGRAMS):
	@mkdir -p $(@D); echo "  LD   $@"
	$(Q)$(LINK) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(BENCH_LIBS) -lm

.PHONY: bench-smoke bench-programs
bench-programs: $(BENCH_PROGRAMS) $(OUT)/bin/weir-server

bench: deps
	$(Q)$(MAKE) --no-print-directory bench-programs
	$(Q)OUT=$(OUT) bench/run.sh $(BENCH_ARGS)

bench-smoke: deps
	$(Q)$(MAKE) --no-print-directory bench-programs
	$(Q)OUT=$(OUT) bench/run.sh --smoke $(BENCH_ARGS)
