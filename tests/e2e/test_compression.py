#!/usr/bin/python3
"""compression.type of topics: what kcat and librdkafka produce is stored with the topic's codec (journal-ctl
says so), and two other readers find it as it was sent.

test-limit: 300"""
import json
import os
import subprocess
import sys

from confluent_kafka import Consumer, Producer, TopicPartition
import kafka

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import OUT, Server, run_claims, until  # noqa: E402
from test_configs import admin, alter, create, describe, name_of  # noqa: E402

TYPES = ["uncompressed", "gzip", "snappy", "lz4", "zstd"]
SENT = ["none", "gzip", "snappy", "lz4", "zstd"]  # what kcat's -z calls them


def ctl(s, *args):
    p = subprocess.run([os.path.join(OUT, "bin/journal-ctl"), "--data", s.data, "-o", "jsonl", *args],
                       capture_output=True, timeout=60, check=False)
    assert p.returncode == 0, p.stderr.decode()[-500:]
    return [json.loads(line) for line in p.stdout.decode().splitlines()]


def codecs_of(s, topic):
    """Of the topic's batches in the live WAL; "" stands for the shards that belong to the server."""
    shards = [r["id"] for r in ctl(s, "shard", "ls") if r["topic"] == topic or not topic and r["class"] == "internal"]
    items = [r for r in ctl(s, "wal", "dump") if r["type"] == "item" and r["shard"] in shards and r["bytes"]]
    return {r["note"].split(",")[0] for r in items}


def kcat(s, *args, data=None):
    r = subprocess.run(["kcat", "-b", s.address, *args], input=data, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=60, check=False)
    assert r.returncode == 0, r.stderr.decode()[-1000:]
    return r.stdout


def python_reads(s, topic):
    c = kafka.KafkaConsumer(bootstrap_servers=s.address, auto_offset_reset="earliest", check_crcs=True,
                            consumer_timeout_ms=30000)
    tp = kafka.TopicPartition(topic, 0)
    try:
        c.assign([tp])
        end, found = c.end_offsets([tp])[tp], []
        while len(found) < end:
            m = next(c)
            assert m.offset == len(found)
            found.append((m.key, m.value))
        return found
    finally:
        c.close()


def test_every_codec_is_stored_as_the_topic_says_and_read_by_two_clients(s):
    for kind, codec in zip(TYPES, SENT):
        topic = create(s, name_of("to-" + kind), compression_type=kind)
        lines = []
        for sent in SENT:
            part = [b"%s %d:%s" % (sent.encode(), i, b"text that repeats " * (i % 40)) for i in range(300)]
            extra = [] if sent == "none" else ["-z", sent]
            kcat(s, "-P", "-t", topic, "-K:", *extra, data=b"".join(x + b"\n" for x in part))
            lines += part
        assert codecs_of(s, topic) == {codec}, codecs_of(s, topic)
        out = kcat(s, "-C", "-e", "-q", "-t", topic, "-K:", "-o", "beginning", "-X", "check.crcs=true")
        assert out.splitlines() == lines, kind
        # Debian's python3-kafka fetches in version 4, which may not have what zstd topics hold.
        if kind != "zstd":
            assert [k + b":" + v for k, v in python_reads(s, topic)] == lines, kind


def test_producer_keeps_what_was_sent(s):
    topic = create(s, name_of("kept"))
    assert describe(s, topic)["compression.type"] == ("producer", 5)
    for sent in SENT[1:]:
        kcat(s, "-P", "-t", topic, "-z", sent, data=b"the same again and again\n" * 100)
    assert codecs_of(s, topic) == set(SENT[1:])


def test_an_altered_codec_holds_for_the_next_batch(s):
    topic = create(s, name_of("altered"))
    kcat(s, "-P", "-t", topic, data=b"first\n" * 50)
    alter(s, topic, compression_type="zstd")
    kcat(s, "-P", "-t", topic, data=b"second\n" * 50)
    assert codecs_of(s, topic) == {"none", "zstd"}
    assert kcat(s, "-C", "-e", "-q", "-t", topic, "-o", "beginning") == b"first\n" * 50 + b"second\n" * 50


def test_small_and_large_batches_of_one_producer_stay_in_order(s):
    # Milliseconds of work, in which the requests behind it arrive.
    large = os.urandom(200000).hex().encode()
    for kind, idempotent in (("gzip", True), ("gzip", False), ("zstd", False), ("uncompressed", False)):
        topic = create(s, name_of("order"), compression_type=kind)
        # An idempotent client would send what was refused for its sequence again without a word; to one that
        # is not, nothing puts right what was overtaken.
        p = Producer({"bootstrap.servers": s.address, "enable.idempotence": idempotent, "linger.ms": 0,
                      "acks": "all", "retries": 1 if idempotent else 0,
                      "max.in.flight.requests.per.connection": 5,
                      "compression.codec": "lz4" if kind == "uncompressed" else "none"})
        errors, offsets = [], []
        for i in range(1500):
            p.produce(topic, key=str(i).encode(), value=large if i % 25 == 0 else b"%07d" % i,
                      on_delivery=lambda e, m: errors.append(e) if e else offsets.append(m.offset()))
            p.poll(0.001 if i % 50 == 0 else 0)
        assert p.flush(60) == 0
        assert not errors, errors[:3]
        assert offsets == list(range(1500))
        if kind == "zstd":
            keys = kcat(s, "-C", "-e", "-q", "-t", topic, "-o", "beginning", "-f", "%k\n").split()
        else:
            keys = [k for k, _ in python_reads(s, topic)]
        assert [int(k) for k in keys] == list(range(1500))


def test_the_servers_own_batches_are_packed(s):
    topic = create(s, name_of("committed"), partitions=60)
    c = Consumer({"bootstrap.servers": s.address, "group.id": name_of("g"), "enable.auto.commit": False})
    at = [TopicPartition(topic, i, i + 1) for i in range(60)]
    try:
        c.commit(offsets=at, asynchronous=False)
        # Producer ids, committed before, are small.
        assert codecs_of(s, "") == {"none", "lz4"}, codecs_of(s, "")
        s.stop()
        s.start()
        found = until(lambda: c.committed(at, timeout=30))
        assert [t.offset for t in found] == [t.offset for t in at]
    finally:
        c.close()


def test_an_unknown_codec_for_our_own_batches_is_refused_at_start(s):
    p = subprocess.run([os.path.join(OUT, "bin/weir-server"), "--check-config", "--set",
                        "compression.server_batches=brotli"], capture_output=True, timeout=30, check=False)
    assert p.returncode != 0 and b"lz4" in p.stderr, p.stderr


if __name__ == "__main__":
    server = Server("--set", "journal.wal_budget=256MiB", "--set", "journal.slab_first=256MiB").start()
    rc = run_claims(sys.modules[__name__], server)
    server.fini()
    sys.stdout.flush()
    os._exit(rc)
