#!/usr/bin/python3
"""A real server over several folders: shards are spread, a kill loses nothing that was acked, a folder
that is missing or foreign is refused in words.

test-limit: 200"""
import json
import os
import shutil
import signal
import subprocess
import sys

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import OUT, Server, run_claims, until  # noqa: E402

PARTITIONS, RECORDS = 8, 400


def second(s):
    return os.path.join(s.folder, "second")


def devices(*folders):
    return ["--set", "devices=" + ",".join(folders)]


def create(s, topic):
    admin = AdminClient({"bootstrap.servers": s.address})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(20)


def fill(s, topic, mark):
    errors = []
    p = Producer({"bootstrap.servers": s.address, "message.timeout.ms": 30000, "acks": "all"})
    for i in range(RECORDS):
        p.produce(topic, f"{mark} {i}".encode(), partition=i % PARTITIONS,
                  on_delivery=lambda e, m: errors.append(e) if e else None)
    assert p.flush(30) == 0 and not errors, errors[:1]


def read_all(s, topic):
    c = Consumer({"bootstrap.servers": s.address, "group.id": "x", "enable.auto.commit": False})
    c.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    ends = sum(c.get_watermark_offsets(TopicPartition(topic, p), timeout=20)[1] for p in range(PARTITIONS))
    got = []
    until(lambda: got.extend(m.value() for m in c.consume(500, 0.2) if not m.error()) or len(got) >= ends, 30,
          f"{ends} records")
    c.close()
    return sorted(got)


def written(mark):
    return [f"{mark} {i}".encode() for i in range(RECORDS)]


def refusal(s, *args):
    s.spawn(*args)
    rc = s.child.wait(60)
    s.child = None
    assert rc != 0
    return s.log()


def shards_of(folder):
    out = subprocess.run([os.path.join(OUT, "bin/journal-ctl"), "--data", folder, "-o", "jsonl", "shard", "ls"],
                         capture_output=True, text=True, check=True).stdout
    shards = [json.loads(line) for line in out.splitlines()]
    return [x for x in shards if x["class"] != "catalogue"]


def test_a_store_of_one_folder_takes_a_second_one_and_keeps_what_it_has(s):
    s.start()
    create(s, "old")
    fill(s, "old", "first")
    s.stop()
    s.start(*devices(second(s)))
    assert '"devices":2' in s.log()
    assert read_all(s, "old") == sorted(written("first"))


def test_partitions_of_a_new_topic_lie_on_both(s):
    create(s, "new")
    fill(s, "new", "second")
    assert read_all(s, "new") == sorted(written("second"))


def test_a_kill_loses_nothing_of_either(s):
    for round_ in range(3):
        fill(s, "new", f"round{round_}")
        s.kill()
        s.start(*devices(second(s)))
    want = written("second") + [x for r in range(3) for x in written(f"round{r}")]
    assert read_all(s, "new") == sorted(want)
    assert read_all(s, "old") == sorted(written("first"))


def test_both_folders_hold_shards(s):
    s.stop()
    counts = [len(shards_of(folder)) for folder in (s.data, second(s))]
    assert min(counts) >= PARTITIONS // 4, counts


def test_a_missing_folder_is_refused_in_words(s):
    log = refusal(s)
    assert "device 1 of the 2 of this set is missing" in log, log[-500:]


def test_an_empty_folder_does_not_stand_for_it(s):
    log = refusal(s, *devices(os.path.join(s.folder, "empty")))
    assert "device 1 of the 2 of this set is missing" in log, log[-500:]


def test_the_second_alone_is_refused_in_words(s):
    was, s.data = s.data, second(s)
    log = refusal(s)
    s.data = was
    assert "device 0, which keeps its topics, is missing" in log, log[-500:]


def test_a_copy_is_refused_in_words(s):
    copy = os.path.join(s.folder, "copy")
    shutil.copytree(second(s), copy)
    log = refusal(s, *devices(second(s), copy))
    assert "device 1 is there twice" in log, log[-500:]
    shutil.rmtree(copy)


def test_one_folder_given_twice_is_refused_in_words(s):
    log = refusal(s, *devices(second(s), os.path.join(s.folder, "data", "..", "data")))
    assert "data is given twice" in log, log[-500:]


def test_each_device_has_its_own_metrics(s):
    s.start(*devices(second(s)))
    fill(s, "new", "counted")
    s.child.send_signal(signal.SIGUSR1)
    until(lambda: '"event":"metrics"' in s.log() and s.log().endswith("\n"), 30, "metrics")
    m = json.loads([x for x in s.log().splitlines() if '"event":"metrics"' in x][-1])["metrics"]
    of = lambda name, labels="": [m[f'weir_journal_{name}{{device="{d}"{labels}}}'] for d in (0, 1)]  # noqa: E731
    assert min(of("appends_total")) >= 1 and min(of("append_bytes_total")) > 100
    assert min(x["count"] for x in of("flush_duration_seconds") + of("block_batches")) > 0
    for folder, limit, *by_state in zip((s.data, second(s)), of("space_limit_bytes"), *(
            of("space_bytes", f',state="{x}"') for x in ("wal", "segment_live", "segment_dead", "grave", "free"))):
        slabs = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder) if f.startswith("slab-"))
        assert sum(by_state) <= slabs <= limit, (by_state, slabs, limit)
    s.stop()


def test_the_order_of_folders_does_not_matter(s):
    was, s.data = s.data, second(s)
    s.start(*devices(was))
    fill(s, "new", "third")
    s.stop()
    s.data = was
    s.start(*devices(second(s)))
    assert set(written("third")) <= set(read_all(s, "new"))
    assert read_all(s, "old") == sorted(written("first"))


def test_a_deleted_topic_goes_from_both(s):
    admin = AdminClient({"bootstrap.servers": s.address})
    admin.delete_topics(["new"])["new"].result(20)
    s.stop()
    assert len(shards_of(second(s))) == 0
    s.start(*devices(second(s)))
    assert read_all(s, "old") == sorted(written("first"))
    s.stop()


if __name__ == "__main__":
    sys.exit(run_claims(sys.modules[__name__], Server("--set", "journal.wal_extent=1MiB")))
