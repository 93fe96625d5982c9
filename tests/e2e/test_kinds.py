#!/usr/bin/python3
"""Topics of the kinds memory and rocksdb, with kcat's library: made, produced to and consumed; and what is left
of them after SIGKILL.

test-limit: 120"""
import os
import sys
import uuid

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import Server, run_claims, until  # noqa: E402


def name_of(what):
    return f"{what}-{uuid.uuid4().hex[:8]}"


def create(s, kind, **config):
    a = AdminClient({"bootstrap.servers": s.address, "log_level": 2})
    topic = name_of(kind)
    config = {"weir.kind": kind, **{k.replace("_", "."): v for k, v in config.items()}}
    a.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(30)
    until(lambda: topic in a.list_topics(timeout=30).topics, what="the new topic in Metadata")
    return topic


def produce(s, topic, records, acks="all"):
    """Gives the offset of each (key, value), in their order."""
    p = Producer({"bootstrap.servers": s.address, "acks": acks, "linger.ms": 2})
    offsets = []

    def report(err, msg):
        assert not err, err
        offsets.append(msg.offset())

    for key, value in records:
        p.produce(topic, key=key, value=value, partition=0, on_delivery=report)
        p.poll(0)
    assert p.flush(30) == 0 and len(offsets) == len(records)
    return offsets


def consume(s, topic, n, start=OFFSET_BEGINNING):
    """n records from start on: [(offset, key, value)]"""
    c = Consumer({"bootstrap.servers": s.address, "group.id": name_of("g"), "auto.offset.reset": "earliest"})
    try:
        c.assign([TopicPartition(topic, 0, start)])
        found = []
        while len(found) < n:
            m = until(lambda: c.poll(1), what=f"record {len(found)} of {n}")
            assert not m.error(), m.error()
            found.append((m.offset(), m.key(), m.value()))
        return found
    finally:
        c.close()


def bounds(s, topic):
    c = Consumer({"bootstrap.servers": s.address, "group.id": name_of("g")})
    try:
        return c.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
    finally:
        c.close()


def records_of(n, size=100, keys=7):
    return [(f"key{i % keys}".encode(), f"{i} ".encode().ljust(size, b"x")) for i in range(n)]


def again(s):
    s.kill()
    s.start()


def kind_of(s, topic):
    r = ConfigResource(ConfigResource.Type.TOPIC, topic)
    a = AdminClient({"bootstrap.servers": s.address})  # its calls end with it
    return a.describe_configs([r])[r].result(30)["weir.kind"].value


def test_every_kind_is_produced_to_and_consumed_alike(s):
    for kind in "segment", "memory", "rocksdb":
        config = {"cleanup_policy": "compact"} if kind == "rocksdb" else {}
        t = create(s, kind, **config)
        assert kind_of(s, t) == kind
        sent = records_of(300) + records_of(10, 100000)  # small and large: both lanes
        assert produce(s, t, sent) == list(range(310)), kind
        assert consume(s, t, 310) == [(i, k, v) for i, (k, v) in enumerate(sent)], kind
        assert consume(s, t, 10, 300)[0][0] == 300, kind
        assert bounds(s, t) == (0, 310), kind


def test_a_memory_topic_begins_empty_above_its_old_offsets_after_sigkill(s):
    t = create(s, "memory")
    used = -1
    for life in range(3):
        sent = records_of(500)
        offsets = produce(s, t, sent, acks=("all", "1", "all")[life])
        assert offsets == list(range(offsets[0], offsets[0] + 500))
        assert offsets[0] > used, (life, offsets[0], used)
        assert consume(s, t, 500) == [(o, k, v) for o, (k, v) in zip(offsets, sent)]
        used = offsets[-1]
        again(s)
        low, high = bounds(s, t)
        assert low == high > used, (life, low, high, used)


def test_a_consumer_of_a_memory_topic_goes_on_over_sigkill(s):
    t = create(s, "memory")
    produce(s, t, records_of(20))
    c = Consumer({"bootstrap.servers": s.address, "group.id": name_of("g"), "auto.offset.reset": "earliest",
                  "reconnect.backoff.max.ms": 200, "log_level": 0})
    try:
        c.assign([TopicPartition(t, 0, OFFSET_BEGINNING)])
        for i in range(20):
            assert until(lambda: c.poll(1)).offset() == i
        again(s)
        new = produce(s, t, records_of(5))

        def next_one():
            m = c.poll(1)
            return m if m and not m.error() else None

        assert [until(next_one).offset() for _ in range(5)] == new  # its old position is out of range
    finally:
        c.close()


def test_a_memory_topic_keeps_the_newest_within_retention_bytes(s):
    t = create(s, "memory", retention_bytes="100000")
    for _ in range(5):
        produce(s, t, records_of(100, 1000))
    low, high = bounds(s, t)
    assert high == 500 and 350 <= low < 500, (low, high)
    assert [o for o, _, _ in consume(s, t, high - low)] == list(range(low, high))


def test_a_rocksdb_topic_is_all_there_after_sigkill(s):
    t = create(s, "rocksdb", cleanup_policy="compact", min_compaction_lag_ms="3600000")
    sent = records_of(300) + records_of(10, 100000)
    produce(s, t, sent)
    again(s)
    assert consume(s, t, 310) == [(i, k, v) for i, (k, v) in enumerate(sent)]
    assert produce(s, t, records_of(1)) == [310]


if __name__ == "__main__":
    server = Server("--set", "journal.wal_age_ms=500").start()
    rc = run_claims(sys.modules[__name__], server)
    server.fini()
    sys.stdout.flush()
    os._exit(rc)
