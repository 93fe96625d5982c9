#!/usr/bin/python3
"""A small device filled by kcat until producers are refused: with an error that they retry after, while all else works; and
each way of deleting gives the space back to them.

test-limit: 300"""
import os
import subprocess
import sys
import uuid

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import Server, run_claims, until  # noqa: E402
from test_configs import admin, alter, bounds, create, delete_records, events  # noqa: E402

SPACE = 96 << 20
LINE, LINES = 100000, 50  # of one call of kcat


def new(s, what):
    return create(s, f"{what}-{uuid.uuid4().hex[:8]}", retention_ms="-1")


def load(s):
    """What kcat sends: lines that no codec makes smaller."""
    path = os.path.join(s.folder, "load")
    if not os.path.exists(path):
        with open(path, "w", encoding="ascii") as f:
            for _ in range(LINES):
                f.write(os.urandom(LINE // 2).hex() + "\n")
    return path


def kcat(s, topic):
    """Whether all of it was taken within the time."""
    with open(load(s), "rb") as f:
        return subprocess.run(["kcat", "-P", "-b", s.address, "-t", topic, "-p", "0", "-X", "acks=all",
                               "-X", "message.timeout.ms=4000", "-X", "linger.ms=5"], stdin=f,
                              stderr=subprocess.DEVNULL, check=False).returncode == 0


def sprinkle(s, topic, total):
    """Small batches, which become segments that are small, too."""
    p = Producer({"bootstrap.servers": s.address, "acks": "all", "batch.size": 16000, "linger.ms": 1})
    for _ in range(total // 5000):
        p.produce(topic, os.urandom(5000), partition=0)
        if len(p) > 1000:
            p.poll(0.01)
    assert p.flush(60) == 0


def fill(s, topic):
    """Until kcat gives up; gives how many bytes the topic holds then, at least."""
    for _ in range(SPACE // (LINE * LINES) * 3):
        if not kcat(s, topic):
            break
    else:
        raise AssertionError("three times the device went in")
    assert events(s, "device.full"), "the log does not say so"
    low, high = bounds(s, topic)
    assert (high - low) * LINE > SPACE // 2, (low, high)
    return (high - low) * LINE


def refusal(s, topic):
    """The broker's own answer to one record: None when it is taken."""
    errors = []
    p = Producer({"bootstrap.servers": s.address, "acks": "all", "retries": 0, "message.timeout.ms": 20000})
    p.produce(topic, os.urandom(LINE), partition=0, on_delivery=lambda e, m: errors.append(e))
    assert p.flush(30) == 0
    return errors[0]


def slabs(s):
    return sum(os.stat(os.path.join(s.data, f)).st_size for f in os.listdir(s.data) if f.startswith("slab-"))


def heals(s, topic, heal, left):
    """A record that waits goes through once heal() has been called, then twice what is left of the device."""
    errors = []
    p = Producer({"bootstrap.servers": s.address, "acks": "all", "message.timeout.ms": 60000})
    p.produce(topic, os.urandom(LINE), partition=0, on_delivery=lambda e, m: errors.append(e))
    p.poll(1)
    heal()
    assert p.flush(60) == 0 and errors[0] is None, str(errors)
    for _ in range(left // (LINE * LINES) // 2):
        until(lambda: kcat(s, topic), 60, "kcat to be taken again")
    assert slabs(s) <= SPACE, slabs(s)


def test_the_refusal_is_one_that_clients_try_again_after(s):
    sprinkle(s, new(s, "sprinkled"), SPACE // 4)
    t = new(s, "refused")
    s.n_filled = fill(s, t)
    e = until(lambda: refusal(s, t), 30, "a refusal")
    assert e.code() == KafkaError.KAFKA_STORAGE_ERROR, e
    s.full = t


def test_a_full_device_rests(s):
    """Nothing can be gained by copying, so nothing is copied."""
    seen = [-1]

    def rests():
        before, seen[0] = seen[0], len(events(s, "segment.rewritten"))
        subprocess.run(["sleep", "1"], check=True)
        return before == seen[0] == len(events(s, "segment.rewritten"))

    until(rests, 60, "an end of rewriting")


def test_what_is_not_a_producers_works_on_a_full_device(s):
    t = new(s, "made-when-full")
    alter(s, t, retention_ms="5000000")
    c = Consumer({"bootstrap.servers": s.address, "group.id": "reads-when-full", "enable.auto.commit": False})
    try:
        low, high = bounds(s, s.full)
        c.assign([TopicPartition(s.full, 0, low)])
        offsets = []
        until(lambda: offsets.extend(m.offset() for m in c.consume(500, 1) if not m.error()) or
              len(offsets) == high - low, 60, "all records")
        assert offsets == list(range(low, high))
        done = c.commit(offsets=[TopicPartition(s.full, 0, high)], asynchronous=False)
        assert done[0].error is None and c.committed(done, timeout=20)[0].offset == high
    finally:
        c.close()
    admin(s).delete_topics([t])[t].result(30)


def test_a_restart_finds_it_full_and_serves(s):
    s.kill()
    s.start()
    assert until(lambda: refusal(s, s.full), 30, "a refusal").code() == KafkaError.KAFKA_STORAGE_ERROR


def test_delete_records_gives_the_space_back(s):
    _, high = bounds(s, s.full)
    heals(s, s.full, lambda: delete_records(s, s.full, high - 10), s.n_filled)


def test_delete_topics_gives_the_space_back(s):
    fill(s, s.full)
    other = new(s, "after")
    heals(s, other, lambda: admin(s).delete_topics([s.full])[s.full].result(30), s.n_filled)
    s.full = other


def test_retention_by_bytes_gives_the_space_back(s):
    fill(s, s.full)
    heals(s, s.full, lambda: alter(s, s.full, retention_bytes="10000000", retention_ms="-1"), s.n_filled)


def test_retention_by_time_gives_the_space_back(s):
    alter(s, s.full, retention_ms="-1")
    fill(s, s.full)
    other = new(s, "last")
    heals(s, other, lambda: alter(s, s.full, retention_ms="1"), s.n_filled)
    until(lambda: len(set(bounds(s, s.full))) == 1, 60, "the last of it to go")


def test_it_fills_no_more_than_it_may(s):
    assert slabs(s) <= SPACE
    s.stop()


if __name__ == "__main__":
    server = Server("--set", f"journal.space_max={SPACE}", "--set", "journal.wal_extent=2MiB",
                    "--set", "journal.wal_budget=8MiB", "--set", "journal.slab_first=16MiB",
                    "--set", "journal.retention_check_ms=100", "--set", "journal.wal_age_ms=500",
                    "--set", "journal.delete_grace_ms=100").start()
    rc = run_claims(sys.modules[__name__], server)
    server.fini()
    sys.stdout.flush()
    os._exit(rc)
