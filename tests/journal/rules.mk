# A real store in a folder, for what looks at one from outside (tests/journal/test_inspect.c,
# tests/e2e/test_journal_ctl.py).
$(OUT)/tests/journal/test_inspect: $(OUT)/tests/journal/store_maker.o
$(OUT)/tests/journal/test_compact_store: $(OUT)/tests/journal/store_maker.o
TEST_PROGRAMS += $(OUT)/tests/journal/store_writer
$(OUT)/tests/journal/store_writer: $(addprefix $(OUT)/tests/journal/,store_writer.o store_maker.o) $(LIB_journal)
	@mkdir -p $(@D); echo "  LD   $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS_journal)
