#!/usr/bin/python3
"""A few keys of a compacted topic, overwritten again and again while servers come and go.

    overwrite_keys.py create BROKERS TOPIC
    overwrite_keys.py write BROKERS TOPIC LOG    until SIGTERM; each acked record is a line of LOG: key, number, offset
    overwrite_keys.py check BROKERS TOPIC LOG    reads the topic: exit 0 when all that compaction must leave is there

Numbers go up. Of each key the last acked record is there or a later one; acked records are at their offsets; no record
is there twice, and none before an older one."""
import os
import signal
import sys

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

KEYS = 40


def create(brokers, topic):
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic(topic, 1, 1, config={"cleanup.policy": "compact"})])[topic].result(60)
    return 0


def write(brokers, topic, log_path):
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 2, "batch.size": 100000,
                         "message.timeout.ms": 300000, "retry.backoff.ms": 50, "log_level": 0})
    with open(log_path, "a", buffering=1) as log:
        def acked(number):
            def told(error, message):
                if error:
                    log.write(f"F {number} {error.name()}\n")
                else:
                    log.write(f"A {message.key().decode()} {number} {message.offset()}\n")
            return told

        number = 0
        while not stopped:
            number += 1
            key = f"key-{number * 7 % KEYS}"
            value = None if number % 50 == 0 else b"%d %s" % (number, os.urandom(600))
            try:
                producer.produce(topic, key=key, value=value, partition=0, headers={"n": str(number)},
                                 on_delivery=acked(number))
            except BufferError:
                producer.poll(0.1)
                continue
            producer.poll(0.001)
        left = producer.flush(30)
    return 1 if left else 0


def read(brokers, topic):
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "reader", "enable.auto.commit": False,
                         "enable.partition.eof": True, "log_level": 0})
    # To where the log ends now: beside a writer it never ends for good.
    end = consumer.get_watermark_offsets(TopicPartition(topic, 0), 60)[1]
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = []
    while not found or found[-1][0] < end - 1:
        m = consumer.poll(60)
        assert m is not None, "nothing for 60 s"
        if m.error():
            assert m.error().name() == "_PARTITION_EOF", m.error()
            break
        found.append((m.offset(), m.key().decode(), int(dict(m.headers())["n"]), m.value() is None))
    consumer.close()
    return found


def check(brokers, topic, log_path):
    acked, offsets = {}, {}
    with open(log_path) as log:
        for line in log:
            kind, *rest = line.split()
            assert kind == "A", line
            if len(rest) == 3 and line.endswith("\n"):
                acked[rest[0]] = max(acked.get(rest[0], 0), int(rest[1]))
                offsets[int(rest[1])] = int(rest[2])
    latest, before = {}, 0
    found = read(brokers, topic)
    for offset, key, number, _ in found:
        assert number > before, f"record {number} at {offset} follows {before}"
        assert offsets.get(number, offset) == offset, f"record {number} is at {offset}, not at {offsets[number]}"
        before = latest[key] = number
    for key, number in acked.items():
        assert latest.get(key, 0) >= number, f"{key}: {number} was acked, the latest is {latest.get(key)}"
    print(f"{len(found)} records of {len(offsets)} acked are left")
    return 0


if __name__ == "__main__":
    sys.exit({"create": create, "write": write, "check": check}[sys.argv[1]](*sys.argv[2:]))
