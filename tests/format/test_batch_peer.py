#!/usr/bin/python3
"""python3-kafka reads the batches that our builder makes, of every case and codec, and those that
come of every golden batch (of four clients) with each codec, and finds in them what the case says.

OUT is the build folder (default build/plain)."""
import os
import struct
import subprocess
import sys

from kafka.record.default_records import DefaultRecordBatch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CASES = os.path.join(ROOT, "tests/golden/batch")
TOOL = os.path.join(ROOT, os.environ.get("OUT", "build/plain"), "tests/format/batch_tool")
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]

sys.dont_write_bytecode = True
sys.path.insert(0, CASES)
from make import read_case  # noqa: E402


def check(case, codec):
    path = os.path.join(CASES, case + ".txt")
    data = subprocess.run([TOOL, path, codec], stdout=subprocess.PIPE, check=True).stdout
    (pid, epoch, seq), transactional, records = read_case(case)
    batch = DefaultRecordBatch(data)
    assert batch.validate_crc(), "crc"
    assert batch.base_offset == 0 and batch.magic == 2, "head"
    assert batch.is_transactional == transactional and not batch.is_control_batch, "attributes"
    # A case of one tiny record does not get smaller, and is then stored plain.
    assert batch.compression_type == (0 if case == "one" else CODECS.index(codec)), "codec"
    assert batch.max_timestamp == max(r[0] for r in records), "max timestamp"
    # The library keeps these to itself.
    assert struct.unpack_from(">qhi", data, 43) == (pid, epoch, seq), "producer"
    got = [(r.timestamp, r.key, r.value, r.headers) for r in batch]
    assert got == records, "records"
    assert batch.last_offset_delta == len(records) - 1, "last offset delta"


def check_recoded(name, codec):
    case, peer = name.split(".")[0], name.split(".")[2]
    data = subprocess.run([TOOL, os.path.join(CASES, name), codec], stdout=subprocess.PIPE, check=True).stdout
    with open(os.path.join(CASES, name), "rb") as f:
        was = f.read()
    _, transactional, records = read_case(case)
    batch = DefaultRecordBatch(data)
    assert batch.validate_crc(), "crc"
    assert batch.is_transactional == transactional and not batch.is_control_batch, "attributes"
    assert batch.compression_type == CODECS.index(codec), "codec"
    assert struct.unpack_from(">i", data, 8)[0] == len(data) - 12, "length"
    # Base offset and epoch, magic, high attributes, offsets, times, producer, count.
    assert data[:8] + data[12:17] + data[21:22] + data[23:61] == \
        was[:8] + was[12:17] + was[21:22] + was[23:61], "head"
    base = 1000 if peer == "java" else 0
    got = [(r.offset - base, r.timestamp, r.key, r.value, r.headers) for r in batch]
    assert got == [(i, *r) for i, r in enumerate(records)], "records"


def main():
    passed = failed = 0
    for case in ["simple", "odd", "one", "many", "large"]:
        for codec in CODECS:
            try:
                check(case, codec)
                passed += 1
            except Exception as e:
                failed += 1
                print("%s %s: %s: %s" % (case, codec, type(e).__name__, e))
    for name in sorted(f for f in os.listdir(CASES) if f.endswith(".batch")):
        for codec in CODECS:
            try:
                check_recoded(name, codec)
                passed += 1
            except Exception as e:
                failed += 1
                print("%s to %s: %s: %s" % (name, codec, type(e).__name__, e))
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
