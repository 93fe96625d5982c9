#!/usr/bin/python3
"""Settings of topics, retention and DeleteRecords, with kcat's library and python3-kafka.

test-limit: 300"""
import json
import os
import sys
import time
import uuid

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
import kafka
import kafka.admin

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import Server, run_claims, until  # noqa: E402

DAY = 24 * 3600 * 1000


def name_of(what):
    return f"{what}-{uuid.uuid4().hex[:8]}"


admins = {}


def admin(s):
    """One for all claims: a client that is dropped takes its unanswered calls with it."""
    if s.address not in admins:
        admins[s.address] = AdminClient({"bootstrap.servers": s.address, "log_level": 2})
    return admins[s.address]


def create(s, topic, partitions=1, **config):
    a = admin(s)
    a.create_topics([NewTopic(topic, partitions, 1, config={k.replace("_", "."): v
                                                            for k, v in config.items()})])[topic].result(30)
    until(lambda: topic in a.list_topics(timeout=30).topics, what="the new topic in Metadata")
    return topic


def describe(s, topic):
    """name -> (value, source)"""
    r = ConfigResource(ConfigResource.Type.TOPIC, topic)
    found = admin(s).describe_configs([r])[r].result(30)
    return {k: (e.value, e.source) for k, e in found.items()}


def alter(s, topic, **config):
    """All others go back to their defaults, as AlterConfigs does."""
    r = ConfigResource(ConfigResource.Type.TOPIC, topic,
                       set_config={k.replace("_", "."): v for k, v in config.items()})
    admin(s).alter_configs([r])[r].result(30)


def code_of(call):
    try:
        call()
    except KafkaException as e:
        return e.args[0].name(), e.args[0].str()
    return "NO_ERROR", ""


def produce(s, topic, n, size=1000, timestamp=None, partition=0):
    p = Producer({"bootstrap.servers": s.address, "acks": "all", "linger.ms": 5})
    errors = []

    def report(err, msg):
        if err:
            errors.append(err)

    extra = {} if timestamp is None else {"timestamp": timestamp}
    for i in range(n):
        while True:
            try:
                p.produce(topic, value=os.urandom(size), partition=partition, on_delivery=report, **extra)
                break
            except BufferError:
                p.poll(0.1)
    assert p.flush(60) == 0
    return errors


def bounds(s, topic, partition=0):
    c = Consumer({"bootstrap.servers": s.address, "group.id": name_of("g")})
    try:
        return c.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
    finally:
        c.close()


def test_what_was_set_at_creation_is_described_and_the_rest_is_default(s):
    t = create(s, name_of("described"), retention_ms="123456", cleanup_policy="compact,delete",
               max_message_bytes="5000")
    d = describe(s, t)
    assert d["retention.ms"] == ("123456", 1), d["retention.ms"]
    assert d["cleanup.policy"] == ("compact,delete", 1)
    assert d["retention.bytes"] == ("-1", 5)
    assert d["weir.kind"] == ("segment", 5)
    d = describe(s, create(s, name_of("plain")))
    assert d["retention.ms"] == (str(7 * DAY), 5)
    assert d["cleanup.policy"] == ("delete", 5)
    assert d["max.message.bytes"] == ("1048588", 5)


def test_what_kafka_refuses_is_refused_with_its_reason(s):
    for config, text in [({"retention.ms": "-2"}, "Value must be at least -1"),
                         ({"retention.ms": "soon"}, "Not a number of type LONG"),
                         ({"cleanup.policy": "burn"}, "String must be one of: compact, delete"),
                         ({"no.such": "1"}, "Unknown topic config name: no.such"),
                         ({"weir.kind": "rocksdb", "cleanup.policy": "delete"}, "asks for cleanup.policy")]:
        t = name_of("refused")
        code, why = code_of(lambda: admin(s).create_topics([NewTopic(t, 1, 1, config=config)])[t].result(30))
        assert code == "INVALID_CONFIG" and text in why, (config, code, why)


def test_alter_configs_sets_and_puts_back(s):
    t = create(s, name_of("altered"), retention_bytes="1000000")
    alter(s, t, retention_ms="1000000000", cleanup_policy="compact")
    d = describe(s, t)
    assert d["retention.ms"] == ("1000000000", 1) and d["cleanup.policy"] == ("compact", 1)
    assert d["retention.bytes"] == ("-1", 5)
    assert code_of(lambda: alter(s, t, weir_kind="memory"))[0] == "INVALID_CONFIG"
    assert code_of(lambda: alter(s, name_of("missing"), retention_ms="1"))[0] == "UNKNOWN_TOPIC_OR_PART"
    s.stop()
    s.start()
    assert describe(s, t)["cleanup.policy"] == ("compact", 1)
    alter(s, t)
    assert describe(s, t)["retention.ms"] == (str(7 * DAY), 5)


def test_python_kafka_reads_and_alters_the_same(s):
    t = create(s, name_of("python"), retention_ms="5000000")
    a = kafka.KafkaAdminClient(bootstrap_servers=s.address)
    try:
        r = kafka.admin.ConfigResource(kafka.admin.ConfigResourceType.TOPIC, t, {"retention.ms": "7000000"})
        a.alter_configs([r])
        answers = a.describe_configs([kafka.admin.ConfigResource(kafka.admin.ConfigResourceType.TOPIC, t)])
        found = {c[0]: c[1] for each in answers for one in each.resources for c in one[4]}
        assert found["retention.ms"] == "7000000", found["retention.ms"]
    finally:
        a.close()


SET, DELETE, APPEND, SUBTRACT = range(4)


def alter_some(s, topic, *changes):
    """IncrementalAlterConfigs, which neither library has: (name, operation, value) each; gives the error's number."""
    from kafka.protocol.api import Request, Response
    from kafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

    class Answer(Response):
        API_KEY, API_VERSION = 44, 0
        SCHEMA = Schema(("throttle_time_ms", Int32), ("responses", Array(
            ("error", Int16), ("message", String("utf-8")), ("type", Int8), ("name", String("utf-8")))))

    class Ask(Request):
        API_KEY, API_VERSION, RESPONSE_TYPE = 44, 0, Answer
        SCHEMA = Schema(("resources", Array(("type", Int8), ("name", String("utf-8")), ("configs", Array(
            ("name", String("utf-8")), ("operation", Int8), ("value", String("utf-8")))))), ("validate_only", Boolean))

    k = kafka.KafkaAdminClient(bootstrap_servers=s.address)
    try:
        f = k._send_request_to_node(1, Ask([(2, topic, list(changes))], False))
        k._wait_for_futures([f])
        return f.value.responses[0][0]
    finally:
        k.close()


def test_incremental_alter_configs_changes_what_it_names_on_a_topic_with_data(s):
    t = create(s, name_of("some"), retention_ms="1000000000", max_message_bytes="500000")
    assert not produce(s, t, 100)
    assert alter_some(s, t, ("cleanup.policy", APPEND, "compact"), ("retention.bytes", SET, "5000000")) == 0
    d = describe(s, t)
    assert sorted(d["cleanup.policy"][0].split(",")) == ["compact", "delete"] and d["retention.bytes"] == ("5000000", 1)
    assert d["retention.ms"] == ("1000000000", 1) and d["max.message.bytes"] == ("500000", 1)
    assert alter_some(s, t, ("cleanup.policy", SUBTRACT, "compact"), ("max.message.bytes", DELETE, None)) == 0
    d = describe(s, t)
    assert d["cleanup.policy"][0] == "delete" and d["max.message.bytes"] == ("1048588", 5)
    assert alter_some(s, t, ("retention.ms", APPEND, "1")) == 40  # INVALID_CONFIG: it is no list
    assert bounds(s, t) == (0, 100)
    assert alter_some(s, t, ("retention.ms", SET, "1")) == 0
    until(lambda: bounds(s, t) == (100, 100), 60, "all of it to expire")
    s.kill()
    s.start()
    assert describe(s, t)["retention.ms"] == ("1", 1) and bounds(s, t) == (100, 100)


def test_a_batch_above_max_message_bytes_is_refused(s):
    t = create(s, name_of("small"), max_message_bytes="3000")
    assert not produce(s, t, 1, size=1000)
    errors = produce(s, t, 1, size=4000)
    assert errors and errors[0].name() == "MSG_SIZE_TOO_LARGE", errors
    assert bounds(s, t) == (0, 1)


def test_log_append_time_is_the_brokers(s):
    t = create(s, name_of("stamped"), message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    assert not produce(s, t, 3, timestamp=1000)
    c = Consumer({"bootstrap.servers": s.address, "group.id": name_of("g"), "auto.offset.reset": "earliest"})
    try:
        c.assign([TopicPartition(t, 0, 0)])
        for _ in range(3):
            m = until(lambda: c.poll(1))
            kind, ms = m.timestamp()
            assert kind == 2 and before <= ms <= time.time() * 1000, (kind, ms)
    finally:
        c.close()


def delete_records(s, topic, offset):
    a = admin(s)
    tp = TopicPartition(topic, 0, offset)
    if hasattr(a, "delete_records"):
        return a.delete_records([tp])[tp].result(30).low_watermark
    from kafka.protocol.api import Request, Response
    from kafka.protocol.types import Array, Int16, Int32, Int64, Schema, String

    class Answer(Response):
        API_KEY, API_VERSION = 21, 1
        SCHEMA = Schema(("throttle_time_ms", Int32), ("topics", Array(
            ("name", String("utf-8")), ("partitions", Array(
                ("index", Int32), ("low_watermark", Int64), ("error", Int16))))))

    class Ask(Request):
        API_KEY, API_VERSION, RESPONSE_TYPE = 21, 1, Answer
        SCHEMA = Schema(("topics", Array(("name", String("utf-8")), ("partitions", Array(
            ("index", Int32), ("offset", Int64))))), ("timeout_ms", Int32))

    k = kafka.KafkaAdminClient(bootstrap_servers=s.address)
    try:
        f = k._send_request_to_node(1, Ask([(topic, [(0, offset)])], 30000))
        k._wait_for_futures([f])
        _, low, error = f.value.topics[0][1][0]
        return low if error == 0 else -error
    finally:
        k.close()


def test_delete_records_moves_the_start(s):
    t = create(s, name_of("trimmed"))
    produce(s, t, 50)
    assert delete_records(s, t, 20) == 20
    assert bounds(s, t) == (20, 50)
    assert delete_records(s, t, 10) == 20
    assert delete_records(s, t, 51) == -1  # OFFSET_OUT_OF_RANGE
    assert delete_records(s, t, -1) == 50
    assert bounds(s, t) == (50, 50)
    alter(s, t, cleanup_policy="compact")
    assert delete_records(s, t, -1) == -44  # POLICY_VIOLATION


def events(s, name):
    return [x for x in map(json.loads, filter(lambda l: l.startswith("{"), s.log().splitlines()))
            if x["event"] == name]


def test_records_past_their_retention_go_and_their_space_comes_back(s):
    keep = create(s, name_of("keep"))
    produce(s, keep, 10)
    t = create(s, name_of("brief"))
    for _ in range(3):
        produce(s, t, 6000)  # 18 MB: more than the slabs have room for thrice
    assert bounds(s, t) == (0, 18000)
    slabs = lambda: sum(os.stat(os.path.join(s.data, f)).st_size  # noqa: E731
                        for f in os.listdir(s.data) if f.startswith("slab-"))
    alter(s, t, retention_ms="2000")
    until(lambda: bounds(s, t)[0] == 18000, 60, "everything to expire")
    # deleted, or left out by the rewriting that copies what is alive beside them: ten records at most
    until(lambda: events(s, "segment.deleted") or [x for x in events(s, "segment.rewritten") if x["bytes"] < 1 << 20],
          120, "segments to go")
    size = slabs()
    for _ in range(6):
        produce(s, t, 6000)
        until(lambda: bounds(s, t)[0] == bounds(s, t)[1], 60, "the round to expire")
    assert slabs() <= size + (32 << 20), (size, slabs())  # 36 MB more went through the same space
    assert bounds(s, keep) == (0, 10)


def test_a_partition_is_held_to_its_bytes(s):
    t = create(s, name_of("limited"), retention_bytes="2000000", retention_ms="-1")
    for _ in range(6):
        produce(s, t, 2000)
    until(lambda: bounds(s, t)[0] > 0, 60, "the oldest to go")
    low, high = bounds(s, t)
    # a record takes nine bytes at least beside its value
    assert high == 12000 and (high - low) * 1009 >= 2000000, (low, high)


if __name__ == "__main__":
    server = Server("--set", "journal.retention_check_ms=100", "--set", "journal.wal_age_ms=500",
                    "--set", "journal.delete_grace_ms=100").start()
    rc = run_claims(sys.modules[__name__], server)
    server.fini()
    sys.stdout.flush()
    os._exit(rc)
