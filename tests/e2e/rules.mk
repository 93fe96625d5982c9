# Programs of tests/e2e: the volatile device and its writer, the producer and checker of acked
# records, and two servers that are broken on purpose (docs/testing.md). Included by the Makefile.
export OUT SAN

E2E_PROGRAMS  := $(addprefix $(OUT)/tests/e2e/,volatile_fs volatile_writer test_volatile_file produce_acked check_acked)
E2E_BROKEN    := $(OUT)/break-no-sync/bin/weir-server $(OUT)/break-early-ack/bin/weir-server
TEST_PROGRAMS += $(E2E_PROGRAMS) $(if $(SAN),,$(E2E_BROKEN) $(OUT)/tests/e2e/fault_shim.so)

# In front of libc in the server's process (test_faults.sh).
$(OUT)/tests/e2e/fault_shim.so: tests/e2e/fault_shim.c
	@mkdir -p $(@D); echo "  LD   $@"
	$(Q)$(CC) $(FLAGS) -fPIC -shared -o $@ $<

$(OUT)/tests/e2e/volatile_fs.o $(OUT)/tests/e2e/volatile_file.o $(OUT)/tests/e2e/volatile_names.o: \
    FLAGS += -I/usr/include/fuse3
$(OUT)/tests/e2e/volatile_fs: $(addprefix $(OUT)/tests/e2e/,volatile_fs.o volatile_file.o volatile_names.o)
$(OUT)/tests/e2e/volatile_fs: E2E_LIBS := -lfuse3
$(OUT)/tests/e2e/test_volatile_file: $(addprefix $(OUT)/tests/e2e/,test_volatile_file.o volatile_file.o)
$(OUT)/tests/e2e/test_volatile_file: E2E_LIBS := -lcunit
$(OUT)/tests/e2e/volatile_writer: $(OUT)/tests/e2e/volatile_writer.o
$(OUT)/tests/e2e/produce_acked: $(OUT)/tests/e2e/produce_acked.o
$(OUT)/tests/e2e/check_acked: $(OUT)/tests/e2e/check_acked.o
$(OUT)/tests/e2e/%_acked: E2E_LIBS := -lrdkafka -lxxhash

$(E2E_PROGRAMS): $(LIB_base)
	@mkdir -p $(@D); echo "  LD   $@"
	$(Q)$(LINK) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(E2E_LIBS) $(LIBS_base)

# A whole build of its own, so that the macro reaches every file that asks for it.
.PHONY: e2e-broken
$(OUT)/break-no-sync/bin/weir-server $(OUT)/break-early-ack/bin/weir-server: e2e-broken
$(OUT)/break-no-sync/bin/weir-server:
	$(Q)$(MAKE) --no-print-directory OUT=$(OUT)/break-no-sync DEFS=-DWEIR_BREAK_NO_SYNC $@
$(OUT)/break-early-ack/bin/weir-server:
	$(Q)$(MAKE) --no-print-directory OUT=$(OUT)/break-early-ack DEFS=-DWEIR_BREAK_EARLY_ACK $@

# Clients that Debian does not package.
interop: deps
	$(Q)$(MAKE) --no-print-directory all
	$(Q)tests/e2e/interop.sh
