# Weir
#
#   make            build the server and the tools into build/
#   make demo       the main job, end to end, on this machine's own package index
#   make run        the server in the foreground
#   make test       every test that needs Debian's packages alone
#   make interop    tests against clients from npm, PyPI, Maven and Go (cached; unreachable: SKIP)
#   make soak       hours of the same
#   make bench      figures, as ratios to the raw device and to a mock broker
#   make check      format, include arrows, docs that are printed from tables
#   make fuzz       each parser for FUZZ_SECONDS (10) over its corpus
#   make deps       install what is missing from Debian's packages
#   make clean
#
# SAN=address,undefined|thread  CC=clang  V=1  OUT=build/elsewhere

comma   := ,
SAN     ?=
OUT     := build/$(if $(filter clang%,$(CC)),clang-)$(or $(subst $(comma),-,$(SAN)),plain)
Q       := $(if $(V),,@)
CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
           -Wvla -Wwrite-strings -Wno-unused-parameter -Wno-missing-field-initializers \
           -Wno-unknown-warning-option -Wno-stringop-overflow
FLAGS    = -std=c11 -D_GNU_SOURCE -pthread -I. -MMD -MP -fno-strict-aliasing $(WARN) $(CFLAGS) \
           $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -DWEIR_SLOW_ASSERTS) $(DEFS)
LINK     = $(CC) -pthread $(CFLAGS) $(if $(SAN),-fsanitize=$(SAN))

BASE_LIBS     := -levent_core -levent_pthreads -lyaml -lm
FORMAT_LIBS   := -lxxhash -lisal -lz -lsnappy -llz4 -lzstd
JOURNAL_LIBS  := -laio -lrocksdb
GATEWAYS_LIBS :=
TOOLS_LIBS    := -ljansson

ROOMS   := base format journal gateways
SRC_base     := $(wildcard base/*.c)
SRC_format   := $(wildcard format/*.c)
SRC_journal  := $(wildcard journal/*.c journal/io/*.c)
SRC_gateways := $(wildcard gateways/*/*.c)
SRC_sim      := $(wildcard tests/sim/*.c)
obj      = $(patsubst %.c,$(OUT)/%.o,$(1))
LIB_base     := $(OUT)/libbase.a
LIB_format   := $(OUT)/libformat.a $(LIB_base)
LIB_journal  := $(OUT)/libjournal.a $(LIB_format)
LIB_gateways := $(OUT)/libgateways.a $(LIB_journal)
LIBS_base     := $(BASE_LIBS)
LIBS_format   := $(FORMAT_LIBS) $(LIBS_base)
LIBS_journal  := $(JOURNAL_LIBS) $(LIBS_format)
LIBS_gateways := $(GATEWAYS_LIBS) $(LIBS_journal)
LIBS_all      := $(TOOLS_LIBS) $(LIBS_gateways)

.PHONY: all deps test interop soak demo run bench check fuzz clean help format tests tools
BINS    := $(OUT)/bin/weir-server $(OUT)/bin/journal-ctl
all: $(BINS)
	@ln -sfn ../$(OUT)/bin/weir-server build/weir-server
	@ln -sfn ../$(OUT)/bin/journal-ctl build/journal-ctl

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

$(OUT)/%.o: %.c
	@mkdir -p $(@D); echo "  CC   $<"
	$(Q)$(CC) $(FLAGS) -c -o $@ $<

define room
$(OUT)/lib$(1).a: $(call obj,$(SRC_$(1)))
	@mkdir -p $$(@D); rm -f $$@; echo "  AR   $$@"
	$(Q)$(AR) rcs $$@ $$^
endef
$(foreach r,$(ROOMS) sim,$(eval $(call room,$(r))))

define tool
$(OUT)/bin/$(1): $(call obj,$(wildcard tools/$(1)/*.c)) $(LIB_gateways)
	@mkdir -p $$(@D); echo "  LD   $$@"
	$(Q)$(LINK) -o $$@ $$^ $(LIBS_all)
endef
$(foreach t,weir-server journal-ctl,$(eval $(call tool,$(t))))

# --- tests: one program per tests/ROOM/test_*.c, linked with its room and what lies below it, plus the simulator for journal
# and above (tests/sim).
define room_tests
TESTS_$(1) := $(patsubst %.c,$(OUT)/%,$(wildcard tests/$(1)/test_*.c))
$(OUT)/tests/$(1)/test_%: $(OUT)/tests/$(1)/test_%.o $(if $(filter journal gateways,$(1)),$(OUT)/libsim.a) $(LIB_$(1))
	@mkdir -p $$(@D); echo "  LD   $$@"
	$(Q)$(LINK) -o $$@ $$(filter %.o,$$^) $$(filter-out %.o,$$^) -lcunit $(LIBS_$(1))
endef
$(foreach r,$(ROOMS),$(eval $(call room_tests,$(r))))
TESTS := $(foreach r,$(ROOMS),$(TESTS_$(r)))
.SECONDARY:

-include $(wildcard tests/*/rules.mk bench/rules.mk)
tests: $(TESTS) $(TEST_PROGRAMS)

deps:
	@sh tests/deps.sh

test: deps
	$(Q)$(MAKE) --no-print-directory all tests
	$(Q)tests/run-tests

soak: deps
	$(Q)$(MAKE) --no-print-directory all tests
	$(Q)tests/soak.sh

demo: deps
	$(Q)$(MAKE) --no-print-directory all
	$(Q)tests/e2e/demo.sh

run: deps
	$(Q)$(MAKE) --no-print-directory all
	$(Q)tools/weir-server/run.sh

check: deps
	$(Q)tests/check.sh

format:
	clang-format -i $$(git ls-files '*.c' '*.h'; git ls-files -o --exclude-standard '*.c' '*.h')

clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
