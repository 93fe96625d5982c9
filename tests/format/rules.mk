TEST_PROGRAMS += $(OUT)/tests/format/batch_tool
$(OUT)/tests/format/batch_tool: $(OUT)/tests/format/batch_tool.o $(LIB_format)
	@mkdir -p $(@D); echo "  LD   $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS_format)

# Writes and reads stores through the journal; the tests of the golden stores run it.
TEST_PROGRAMS += $(OUT)/tests/golden/store_tool
$(OUT)/tests/golden/store_tool: $(addprefix $(OUT)/tests/golden/,store_tool.o store_model.o) $(LIB_journal)
	@mkdir -p $(@D); echo "  LD   $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS_journal)
