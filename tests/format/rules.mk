TEST_PROGRAMS += $(OUT)/tests/format/batch_tool
$(OUT)/tests/format/batch_tool: $(OUT)/tests/format/batch_tool.o $(LIB_format)
	@mkdir -p $(@D); echo "  LD   $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS_format)
