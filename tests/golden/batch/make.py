#!/usr/bin/python3
"""Makes the golden record batches with real peers. Run by hand, once; the files are read for ever.

    make.py cases     CASE.txt: what is inside, one line a record
    make.py python    CASE.CODEC.python.batch, by python3-kafka with python3-{snappy,lz4,zstandard}
    make.py rdkafka   CASE.CODEC.rdkafka.batch, by librdkafka (python3-confluent-kafka) against
                      its own mock broker

Make.java (kafka-clients) and make.js (kafkajs) read the same cases and write
CASE.CODEC.java.batch and CASE.CODEC.kafkajs.batch; how to run them stands at their heads. All
batches begin at offset 0, Java's at 1000.

A case file has the lines
    producer ID EPOCH SEQUENCE [transactional]       at most once, first
    record TIMESTAMP KEY VALUE
    header KEY VALUE                                 belongs to the record above
where KEY and VALUE are "-" (null) or "x" and hex digits, repeated N times when "*N" follows.
"""
import os
import random
import socket
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
START = 1700000000000


def field(b, times=1):
    if b is None:
        return "-"
    return "x" + b.hex() + ("*%d" % times if times > 1 else "")


def unfield(s):
    if s == "-":
        return None
    digits, _, times = s[1:].partition("*")
    return bytes.fromhex(digits) * int(times or 1)


def write_case(name, lines):
    with open(os.path.join(HERE, name + ".txt"), "w") as f:
        f.write("".join(line + "\n" for line in lines))


def cases():
    rng = random.Random(20240229)
    record = lambda t, k, v, n=1: "record %d %s %s" % (t, field(k), field(v, n))
    header = lambda k, v: "header %s %s" % (field(k), field(v))
    # What every client can say.
    write_case("simple", [
        record(START, b"key", b"value"),
        record(START + 1, b"k" * 63, b"v" * 64),
        header(b"h1", b"one"),
        header(b"h2", "zwei \u00e4".encode()),
        record(START + 500, None, b"without a key"),
        record(START + 501, b"last", b"w", 8191),
    ])
    # Nulls, empties, times that go back and far ahead, repeated and empty header keys, every byte.
    write_case("odd", [
        "producer 4711 3 100",
        record(START, None, None),
        record(START - 86400000, b"", b""),
        record(START + 2**40, b"\0", bytes(range(256))),
        header(b"", b""),
        header(b"same", None),
        header(b"same", b"\xff" * 300),
        record(START, b"tombstone", None),
        header("\u20ac".encode(), b"x"),
    ])
    write_case("one", ["producer 9000000000000000000 32767 2147483647 transactional",
                       record(0, b"only", b"1")])
    # Counts and lengths past each varint step; text that packs and bytes that do not.
    many = []
    for i in range(300):
        key = b"key-%d" % (i % 11) if i % 5 else None
        value = rng.randbytes(rng.randrange(0, 40)) if i % 3 else b"event %d of some kind" % i
        many.append(record(START + i * 7, key, value))
        if i % 50 == 0:
            many += [header(b"n", b"%d" % j) for j in range(70 if i == 100 else 2)]
    write_case("many", many)
    # More than one block of any codec (snappy as Java frames it 32 KiB, lz4 64 KiB, zstd 128 KiB).
    write_case("large", [record(START, b"a", b"0123456789abcdef", 10000),
                         record(START + 1, b"b", rng.randbytes(3000), 40),
                         record(START + 2, b"c", b"z", 150000)])


def read_case(name):
    producer, transactional, records = (-1, -1, -1), False, []
    for line in open(os.path.join(HERE, name + ".txt")):
        w = line.split()
        if w[0] == "producer":
            producer, transactional = tuple(map(int, w[1:4])), len(w) > 4
        elif w[0] == "record":
            records.append((int(w[1]), unfield(w[2]), unfield(w[3]), []))
        else:
            records[-1][3].append((unfield(w[1]).decode(), unfield(w[2])))
    return producer, transactional, records


def write_batch(case, codec, peer, data):
    with open(os.path.join(HERE, "%s.%s.%s.batch" % (case, codec, peer)), "wb") as f:
        f.write(data)


def by_python():
    from kafka.record.default_records import DefaultRecordBatchBuilder
    for case in ["simple", "odd", "one", "many", "large"]:
        (pid, epoch, seq), transactional, records = read_case(case)
        for codec, name in enumerate(CODECS):
            if case == "large" and name == "none" or case == "one" and name != "none":
                continue
            b = DefaultRecordBatchBuilder(2, codec, transactional, pid, epoch, seq, 1 << 24)
            for i, (ts, key, value, headers) in enumerate(records):
                assert b.append(i, ts, key, value, headers)
            write_batch(case, name, "python", bytes(b.build()))


def fetch(host, port, topic):
    """One Fetch v4 of partition 0, by hand: the record bytes as the producer sent them."""
    name = topic.encode()
    body = struct.pack(">hhihiiiibih", 1, 4, 1, -1, -1, 1000, 1, 1 << 24, 0, 1, len(name))
    body += name + struct.pack(">i iqi", 1, 0, 0, 1 << 24)
    with socket.create_connection((host, port)) as s:
        s.sendall(struct.pack(">i", len(body)) + body)
        f = s.makefile("rb")
        answer = f.read(struct.unpack(">i", f.read(4))[0])
    at = 4 + 4 + 4 + 2 + len(name) + 4  # correlation, throttle, topics, name, partitions
    _, error, _, _, aborted = struct.unpack_from(">ihqqi", answer, at)
    assert error == 0
    at += 26 + max(aborted, 0) * 16
    size = struct.unpack_from(">i", answer, at)[0]
    assert size > 61
    return answer[at + 4:at + 4 + size]


def by_rdkafka():
    from confluent_kafka import Producer
    for case in ["simple", "many", "large"]:
        for codec in CODECS:
            if case == "large" and codec == "none":
                continue
            p = Producer({"test.mock.num.brokers": 1, "compression.type": codec, "linger.ms": 500,
                          "message.max.bytes": 1 << 23, "batch.size": 1 << 23,
                          "bootstrap.servers": "ignored"})
            broker = next(iter(p.list_topics("t", 10).brokers.values()))
            for ts, key, value, headers in read_case(case)[2]:
                p.produce("t", key=key, value=value, headers=headers, timestamp=ts, partition=0)
            assert p.flush(10) == 0
            write_batch(case, codec, "rdkafka", fetch(broker.host, broker.port, "t"))


if __name__ == "__main__":
    {"cases": cases, "python": by_python, "rdkafka": by_rdkafka}[sys.argv[1]]()
