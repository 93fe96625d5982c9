#!/usr/bin/python3
"""Log compaction, seen by a client (kcat's library).

test-limit: 180"""
import json
import os
import subprocess
import sys
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import OUT, Server, run_claims, until  # noqa: E402

KEYS = 50


def create(s, what, **config):
    topic = f"{what}-{uuid.uuid4().hex[:8]}"
    a = AdminClient({"bootstrap.servers": s.address, "log_level": 2})
    a.create_topics([NewTopic(topic, 1, 1, config={k.replace("_", "."): v for k, v in config.items()})])[
        topic].result(30)
    until(lambda: topic in a.list_topics(timeout=30).topics, what="the new topic in Metadata")
    return topic


def produce(s, topic, records, **conf):
    """records: (key, value). Gives the names of the errors."""
    errors = []
    p = Producer({"bootstrap.servers": s.address, "acks": "all", "linger.ms": 5, "log_level": 2, **conf})
    for key, value in records:
        while True:
            try:
                p.produce(topic, key=key, value=value, partition=0,
                          on_delivery=lambda e, m: errors.append(e.name()) if e else None)
                break
            except BufferError:
                p.poll(0.1)
        p.poll(0)
    assert p.flush(60) == 0
    return errors


def read(s, topic):
    """All there is: (offset, key, value), and the end."""
    c = Consumer({"bootstrap.servers": s.address, "group.id": "reader", "enable.auto.commit": False,
                  "enable.partition.eof": True, "log_level": 2})
    c.assign([TopicPartition(topic, 0, 0)])
    out = []
    try:
        while True:
            m = c.poll(30)
            assert m is not None, "nothing for 30 s"
            if m.error():
                assert m.error().name() == "_PARTITION_EOF", m.error()
                return out, c.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)[1]
            out.append((m.offset(), m.key(), m.value()))
    finally:
        c.close()


def events(s, name):
    return [e for e in map(json.loads, filter(None, s.log().splitlines())) if e["event"] == name]


def policy(s, topic, text):
    """Another cleanup.policy from now on."""
    r = ConfigResource("topic", topic, set_config={"cleanup.policy": text, "min.compaction.lag.ms": "0"})
    a = AdminClient({"bootstrap.servers": s.address, "log_level": 2})
    a.alter_configs([r])[r].result(30)


def used(s):
    """Bytes of the device that segments take, dead ones and the topics' alike; the server ends for it."""
    s.stop()
    out = subprocess.run([os.path.join(OUT, "bin/journal-ctl"), "--data", s.data, "-o", "json", "stat"],
                         capture_output=True, timeout=60, check=True).stdout
    s.start()
    device = json.loads(out)["devices"][0]
    return device["segment_live"] + device["segment_dead"]


def value(round_, key, size):
    return b"%d %d " % (round_, key) + os.urandom(size)


def overwrite(s, topic, rounds, size, first=0, **conf):
    """Writes all keys again and again; gives key -> the latest value."""
    latest = {}
    for r in range(first, first + rounds):
        batch = [(b"key-%d" % k, value(r, k, size)) for k in range(KEYS)]
        latest.update(batch)
        assert produce(s, topic, batch, **conf) == []
    return latest


def only_latest(s, topic, latest):
    """All latest values, and less that they have superseded: a round begins when half of it is dirty."""
    found = read(s, topic)[0]
    seen = {k: v for _, k, v in found}
    assert seen == latest, "a key's latest value is not what was written"
    return len(found) <= 2 * len(latest)


def test_only_the_latest_values_stay_and_the_space_of_the_others_comes_back(s):
    t = create(s, "latest", cleanup_policy="delete", min_compaction_lag_ms="0")
    latest = overwrite(s, t, 60, 4000)  # 12 MB, of which 200 kB are the latest
    until(lambda: sum(int(e["bytes"]) for e in events(s, "segment.sealed")) > 8 << 20, 60, "segments")
    before = used(s)
    assert len(read(s, t)[0]) == 60 * KEYS and not events(s, "segment.compacted"), "nobody has asked yet"
    policy(s, t, "compact")
    until(lambda: only_latest(s, t, latest), 60, "only the latest values")
    written = [(int(e["before"]), int(e["bytes"])) for e in events(s, "segment.compacted")]
    assert sum(b for _, b in written) < sum(b for b, _ in written) / 4, written
    after = used(s)
    assert before > 8 << 20 and after < before / 4, (before, after)
    for i in range(6):  # 72 MB more
        latest = overwrite(s, t, 60, 4000, first=100 + 60 * i)
    until(lambda: only_latest(s, t, latest), 60, "only the latest values, again")
    again = used(s)
    assert again < before / 2, (before, after, again)
    found, end = read(s, t)
    assert end == 7 * 60 * KEYS and found[0][0] >= 6 * 60 * KEYS, (found[0][0], end)
    s.kill()
    s.start()
    assert only_latest(s, t, latest), "after a kill"


def test_a_topic_that_is_compacted_no_more_keeps_what_follows(s):
    t = create(s, "back", cleanup_policy="compact", min_compaction_lag_ms="0")
    latest = overwrite(s, t, 30, 2000)
    until(lambda: only_latest(s, t, latest), 60, "only the latest values")
    policy(s, t, "delete")
    start = read(s, t)[1]
    overwrite(s, t, 30, 2000, first=100)
    other = create(s, "other", cleanup_policy="compact", min_compaction_lag_ms="0")
    newest = overwrite(s, other, 30, 2000)
    until(lambda: only_latest(s, other, newest), 60, "the other topic to be compacted")
    assert [o for o, _, _ in read(s, t)[0] if o >= start] == list(range(start, start + 30 * KEYS))


def test_large_batches_are_compacted_too(s):
    t = create(s, "direct", cleanup_policy="compact", min_compaction_lag_ms="0")
    # Batches of some 800 kB go straight to segments.
    latest = overwrite(s, t, 30, 16000, **{"linger.ms": 200, "batch.num.messages": KEYS})
    for _ in range(20):  # an open segment is not compacted: what follows ends it
        if only_latest(s, t, latest):
            break
        latest.update(overwrite(s, t, 4, 16000, first=100, **{"linger.ms": 200}))
    until(lambda: only_latest(s, t, latest), 60, "only the latest values")


def test_with_compact_and_delete_what_is_old_goes_too(s):
    t = create(s, "both", cleanup_policy="compact,delete", min_compaction_lag_ms="0", retention_ms="4000")
    overwrite(s, t, 20, 2000)
    until(lambda: read(s, t)[0] == [], 60, "everything to expire")
    assert read(s, t)[1] == 20 * KEYS


def test_records_without_a_key_are_refused(s):
    t = create(s, "keyless", cleanup_policy="compact")
    assert produce(s, t, [(None, b"x")]) == ["INVALID_RECORD"]
    assert produce(s, t, [(b"k", b"x")]) == []


if __name__ == "__main__":
    server = Server("--set", "journal.compact_check_ms=100", "--set", "journal.retention_check_ms=100",
                    "--set", "journal.wal_age_ms=500", "--set", "journal.delete_grace_ms=100").start()
    rc = run_claims(sys.modules[__name__], server)
    server.fini()
    sys.stdout.flush()
    os._exit(rc)
