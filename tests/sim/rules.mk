# The simulator's own targets. Included by the Makefile.
.PHONY: mutants soak-sim
# Every fault that is put into the journal on purpose must be seen (docs/mutants.md).
mutants:
	$(Q)mkdir -p build; tests/sim/mutants.sh $(MUTANTS)
# SIM_SEEDS seeds from SIM_FIRST on.
soak-sim: $(OUT)/tests/journal/test_sim
	$(Q)SIM_SEEDS=$${SIM_SEEDS:-100000} $(OUT)/tests/journal/test_sim
