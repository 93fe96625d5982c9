#!/usr/bin/python3
"""Real clients: kcat, python3-confluent-kafka (librdkafka) and python3-kafka, against one server.

test-limit: 400"""
import os
import random
import subprocess
import sys
import time
import uuid

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
import kafka

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import Server, run_claims, until  # noqa: E402

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def name_of(what):
    return f"{what}-{uuid.uuid4().hex[:8]}"


admins = {}


def admin(s):
    """One for all claims: a client that is dropped takes its unanswered calls with it."""
    if s.address not in admins:
        admins[s.address] = AdminClient({"bootstrap.servers": s.address, "log_level": 2})
    return admins[s.address]


def create(s, topic, partitions=1):
    admin(s).create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)
    # A topic is created when every client can see it.
    until(lambda: len(partitions_of(s, topic)) == partitions, what="the new topic in Metadata")
    return topic


def partitions_of(s, topic):
    md = admin(s).list_topics(topic, timeout=30).topics[topic]
    return [] if md.error else sorted(md.partitions)


def produce(s, topic, records, **conf):
    """records: (key, value, headers or None, partition or None). Gives each one's place."""
    p = Producer({"bootstrap.servers": s.address, "acks": "all", "linger.ms": 5,
                  **{k.replace("_", "."): v for k, v in conf.items()}})
    places, errors = [None] * len(records), []

    def done(i):
        def report(err, msg):
            if err:
                errors.append(err)
            else:
                places[i] = (msg.partition(), msg.offset())
        return report

    for i, (key, value, headers, partition) in enumerate(records):
        extra = {} if partition is None else {"partition": partition}
        if headers is not None:
            extra["headers"] = headers
        while True:
            try:
                p.produce(topic, key=key, value=value, on_delivery=done(i), **extra)
                break
            except BufferError:
                p.poll(0.1)
        p.poll(0)
    assert p.flush(60) == 0, "not everything was answered"
    assert not errors, errors[:3]
    return places


def consumer(s, group=None, **conf):
    return Consumer({"bootstrap.servers": s.address, "group.id": group or name_of("g"),
                     "auto.offset.reset": "earliest", "enable.auto.commit": False,
                     "enable.partition.eof": True, "check.crcs": True,
                     **{k.replace("_", "."): v for k, v in conf.items()}})


def read_all(s, topic, seconds=60):
    """Everything in the topic, by partition."""
    c = consumer(s)
    waiting = set(partitions_of(s, topic))
    c.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in waiting])
    found = {p: [] for p in waiting}
    end = time.monotonic() + seconds
    while waiting:
        assert time.monotonic() < end, f"partitions {waiting} have no end"
        for m in c.consume(1000, 0.2):
            if m.error() is None:
                found[m.partition()].append(m)
            elif m.error().code() == KafkaError._PARTITION_EOF:
                waiting.discard(m.partition())
            else:
                raise KafkaException(m.error())
    c.close()
    return found


def take(c, n, seconds=60):
    """n records from a subscribed consumer."""
    found, end = [], time.monotonic() + seconds
    while len(found) < n:
        assert time.monotonic() < end, f"{len(found)} of {n} records after {seconds} s"
        for m in c.consume(min(1000, n - len(found)), 0.2):
            if m.error() is None:
                found.append(m)
            elif m.error().code() != KafkaError._PARTITION_EOF:
                raise KafkaException(m.error())
    return found


def kcat(s, *args, data=None):
    r = subprocess.run(["kcat", "-b", s.address, *args], input=data, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=60, check=False)
    assert r.returncode == 0, r.stderr.decode()[-1000:]
    return r.stdout


# ---- kcat ----

def test_kcat_lists_the_broker(s):
    out = kcat(s, "-L").decode()
    assert f"at {s.address}" in out, out


def test_kcat_creates_a_topic_by_producing(s):
    topic = name_of("auto")
    lines = b"".join(b"k%d:line %d\n" % (i % 7, i) for i in range(5000))
    kcat(s, "-P", "-t", topic, "-K:", "-X", "acks=all", data=lines)
    out = kcat(s, "-C", "-e", "-q", "-t", topic, "-K:", "-o", "beginning")
    assert out == lines


def test_kcat_takes_back_each_codec(s):
    for codec in CODECS:
        topic = name_of("kcat-" + codec)
        lines = b"".join(b"the same words again and again %d\n" % i for i in range(2000))
        kcat(s, "-P", "-t", topic, "-z", codec, data=lines)
        assert kcat(s, "-C", "-e", "-q", "-t", topic, "-o", "beginning") == lines, codec


def test_kcat_tail_begins_at_the_last_records(s):
    topic = create(s, name_of("tail"))
    kcat(s, "-P", "-t", topic, data=b"".join(b"%d\n" % i for i in range(100)))
    assert kcat(s, "-C", "-e", "-q", "-t", topic, "-o", "-3") == b"97\n98\n99\n"


def test_kcat_query_finds_offsets_by_time(s):
    topic = create(s, name_of("time"))
    kcat(s, "-P", "-t", topic, data=b"a\n")
    out = kcat(s, "-Q", "-t", f"{topic}:0:0").decode()
    assert f"{topic} [0] offset 0" in out, out


# ---- librdkafka ----

def test_confluent_takes_back_each_codec_with_headers_and_nulls(s):
    for codec in CODECS:
        topic = create(s, name_of("codec-" + codec), 2)
        sent = []
        for i in range(500):
            key = None if i % 11 == 0 else b"key %d" % (i % 50)
            value = None if i % 13 == 0 else b"" if i % 17 == 0 else b"value %d " % i * (i % 40)
            headers = None if i % 3 else [("h", b"one"), ("h", b"two"), ("empty", b""), ("null", None)]
            sent.append((key, value, headers, i % 2))
        places = produce(s, topic, sent, compression_type=codec)
        found = read_all(s, topic)
        for (key, value, headers, _), (p, offset) in zip(sent, places):
            m = found[p][offset]
            assert (m.key(), m.value(), m.headers()) == (key, value, headers), (codec, p, offset)
        assert sum(len(v) for v in found.values()) == 500


def test_offsets_are_dense_and_in_the_order_of_sending(s):
    topic = create(s, name_of("order"), 4)
    places = produce(s, topic, [(b"%d" % (i % 9), b"%d" % i, None, None) for i in range(20000)])
    found = read_all(s, topic)
    for p, messages in found.items():
        assert [m.offset() for m in messages] == list(range(len(messages)))
        numbers = [int(m.value()) for m in messages]
        assert numbers == sorted(numbers)
    assert sorted(places) == sorted((p, m.offset()) for p, ms in found.items() for m in ms)


def test_idempotent_producer_stores_each_record_once(s):
    topic = create(s, name_of("idem"), 3)
    produce(s, topic, [(None, b"%d" % i, None, None) for i in range(20000)], enable_idempotence=True,
            compression_type="lz4")
    values = [int(m.value()) for ms in read_all(s, topic).values() for m in ms]
    assert sorted(values) == list(range(20000))


def test_acks_0_and_1_are_stored_too(s):
    for acks in ("0", "1"):
        topic = create(s, name_of("acks" + acks))
        produce(s, topic, [(None, b"%d" % i, None, None) for i in range(1000)], acks=acks)
        until(lambda t=topic: consumer(s).get_watermark_offsets(TopicPartition(t, 0), 10)[1] == 1000,
              what=f"acks={acks}: 1000 records")
        assert [int(m.value()) for m in read_all(s, topic)[0]] == list(range(1000))


def test_large_messages_come_back_whole(s):
    topic = create(s, name_of("large"))
    sent = [random.Random(i).randbytes(n) for i, n in enumerate([990000, 1, 989999, 500000])]
    produce(s, topic, [(None, v, None, 0) for v in sent])
    assert [m.value() for m in read_all(s, topic)[0]] == sent


def test_message_larger_than_the_limit_is_refused_by_name(s):
    topic = create(s, name_of("toolarge"))
    p = Producer({"bootstrap.servers": s.address, "message.max.bytes": 8000000})
    errors = []
    p.produce(topic, b"x" * 3000000, on_delivery=lambda err, msg: errors.append(err))
    p.flush(30)
    assert errors and errors[0] and errors[0].code() == KafkaError.MSG_SIZE_TOO_LARGE, errors
    produce(s, topic, [(None, b"small", None, 0)])
    assert [m.value() for m in read_all(s, topic)[0]] == [b"small"]


def test_offsets_for_times_finds_the_first_record_at_or_after(s):
    topic = create(s, name_of("times"))
    base = 1700000000000
    p = Producer({"bootstrap.servers": s.address, "linger.ms": 5})
    for i in range(1000):
        p.produce(topic, b"%d" % i, timestamp=base + 10 * i)
    assert p.flush(30) == 0
    c = consumer(s)
    for ask, want in [(base, 0), (base - 5, 0), (base + 10, 1), (base + 4995, 500), (base + 9990, 999)]:
        got = c.offsets_for_times([TopicPartition(topic, 0, ask)], timeout=30)[0]
        assert got.offset == want, (ask - base, got.offset)
    got = c.offsets_for_times([TopicPartition(topic, 0, base + 9991)], timeout=30)[0]
    assert got.offset in (-1, 1000), got.offset  # the end
    assert c.get_watermark_offsets(TopicPartition(topic, 0), 30) == (0, 1000)
    c.close()


def test_fetch_from_the_middle_of_a_batch(s):
    topic = create(s, name_of("middle"))
    produce(s, topic, [(None, b"%d" % i, None, 0) for i in range(3000)], linger_ms=200)
    c = consumer(s)
    for start in (1, 17, 1500, 2999):
        c.assign([TopicPartition(topic, 0, start)])
        m = take(c, 1)[0]
        assert (m.offset(), m.value()) == (start, b"%d" % start)
    c.close()


def test_offset_past_the_end_is_out_of_range(s):
    topic = create(s, name_of("range"))
    produce(s, topic, [(None, b"one", None, 0)])
    c = consumer(s, auto_offset_reset="error")
    c.assign([TopicPartition(topic, 0, 50)])
    m = until(lambda: next((x for x in c.consume(1, 1.0) if x.error()), None), what="an error")
    assert m.error().code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE), m.error()
    c.close()


def test_waiting_consumer_gets_a_record_at_once(s):
    topic = create(s, name_of("poll"))
    c = consumer(s, fetch_wait_max_ms=20000)
    c.assign([TopicPartition(topic, 0, 0)])
    until(lambda: any(m.error() and m.error().code() == KafkaError._PARTITION_EOF for m in c.consume(1, 0.2)),
          what="the end of an empty partition")
    produce(s, topic, [(None, b"now", None, 0)])
    start = time.monotonic()
    assert take(c, 1, 15)[0].value() == b"now"
    assert time.monotonic() - start < 10, "a fetch that waits 20 s was not woken"
    c.close()


# ---- admin ----

def test_admin_creates_and_deletes_topics(s):
    topic = create(s, name_of("admin"), 5)
    assert partitions_of(s, topic) == [0, 1, 2, 3, 4]
    try:
        admin(s).create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
        raise AssertionError("created twice")
    except KafkaException as e:
        assert e.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS, e
    produce(s, topic, [(None, b"x", None, 0)])
    admin(s).delete_topics([topic])[topic].result(30)
    until(lambda: topic not in admin(s).list_topics(timeout=30).topics, what="the topic is gone")
    try:
        admin(s).delete_topics([topic])[topic].result(30)
        raise AssertionError("deleted twice")
    except KafkaException as e:
        assert e.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART, e
    create(s, topic, 1)  # the same name again is a new, empty topic
    assert read_all(s, topic)[0] == []


def test_admin_adds_partitions(s):
    topic = create(s, name_of("grow"), 2)
    produce(s, topic, [(None, b"old", None, 1)])
    admin(s).create_partitions([NewPartitions(topic, 6)])[topic].result(30)
    until(lambda: len(partitions_of(s, topic)) == 6, what="six partitions")
    produce(s, topic, [(None, b"new", None, 5)])
    found = read_all(s, topic)
    assert [m.value() for m in found[1]] == [b"old"] and [m.value() for m in found[5]] == [b"new"]
    try:
        admin(s).create_partitions([NewPartitions(topic, 3)])[topic].result(30)
        raise AssertionError("fewer partitions than before")
    except KafkaException as e:
        assert e.args[0].code() == KafkaError.INVALID_PARTITIONS, e


def test_admin_refuses_bad_topic_names(s):
    for topic in ("..", "a b", "x" * 250, "slash/es"):
        try:
            admin(s).create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
            raise AssertionError(f"{topic!r} was created")
        except KafkaException as e:
            assert e.args[0].code() == KafkaError.TOPIC_EXCEPTION, e


# ---- consumer groups ----

def test_two_members_share_the_partitions_and_take_over(s):
    topic, group = create(s, name_of("share"), 8), name_of("g")
    a, b = (consumer(s, group, session_timeout_ms=6000, enable_partition_eof=False) for _ in range(2))
    parts = {}

    def sizes(*members):
        for c in members:
            c.poll(0.05)
            parts[c] = {tp.partition for tp in c.assignment()}
        return [len(parts[c]) for c in members]

    a.subscribe([topic])
    until(lambda: sizes(a) == [8], 60, "the first member has all partitions")
    b.subscribe([topic])
    until(lambda: sizes(a, b) == [4, 4], 60, "four each")
    assert parts[a] | parts[b] == set(range(8))
    a.close()
    until(lambda: sizes(b) == [8], 60, "the second member takes over")
    produce(s, topic, [(None, b"%d" % p, None, p) for p in range(8)])
    assert sorted(int(m.value()) for m in take(b, 8)) == list(range(8))
    b.close()


def test_member_that_dies_is_replaced_after_its_session(s):
    topic, group = create(s, name_of("dies"), 2), name_of("g")
    script = ("import sys\nfrom confluent_kafka import Consumer\n"
              "c = Consumer({'bootstrap.servers': sys.argv[1], 'group.id': sys.argv[2],"
              " 'session.timeout.ms': 6000, 'auto.offset.reset': 'earliest'})\n"
              "c.subscribe([sys.argv[3]])\n"
              "while True:\n"
              "    c.poll(0.1)\n"
              "    if c.assignment(): print('assigned', flush=True)\n")
    child = subprocess.Popen([sys.executable, "-c", script, s.address, group, topic], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"assigned\n"
    child.kill()
    child.wait()
    c = consumer(s, group, session_timeout_ms=6000, enable_partition_eof=False)
    c.subscribe([topic])

    def has_both():
        c.poll(0.1)
        return len(c.assignment()) == 2

    until(has_both, 60, "the survivor has both partitions")
    c.close()


def test_committed_offsets_are_where_a_new_member_begins(s):
    topic, group = create(s, name_of("commit"), 2), name_of("g")
    produce(s, topic, [(None, b"%d" % i, None, i % 2) for i in range(1000)])
    c = consumer(s, group)
    c.subscribe([topic])
    first = take(c, 400)
    c.commit(asynchronous=False)
    c.close()
    c = consumer(s, group)
    c.subscribe([topic])
    rest = take(c, 600)
    c.close()
    values = sorted(int(m.value()) for m in first + rest)
    assert values == list(range(1000)), "records were skipped or read twice"


def test_offsets_are_committed_with_their_metadata(s):
    topic, group = create(s, name_of("meta"), 3), name_of("g")
    c = consumer(s, group)
    c.commit(offsets=[TopicPartition(topic, 1, 42)], asynchronous=False)
    got = {tp.partition: tp.offset for tp in c.committed([TopicPartition(topic, p) for p in range(3)], 30)}
    assert got == {0: OFFSET_INVALID, 1: 42, 2: OFFSET_INVALID}, got
    c.close()


def test_committed_offsets_survive_kill_and_clean_restart(s):
    topic, group = create(s, name_of("restart"), 1), name_of("g")
    produce(s, topic, [(None, b"%d" % i, None, 0) for i in range(100)])
    c = consumer(s, group)
    c.commit(offsets=[TopicPartition(topic, 0, 37)], asynchronous=False)
    c.close()
    for end in (s.kill, s.stop):
        end()
        s.start()
        c = consumer(s, group)
        c.subscribe([topic])
        assert take(c, 1)[0].offset() == 37, end.__name__
        c.close()


# ---- python3-kafka: an implementation of its own ----

def test_python_kafka_produces_and_consumes(s):
    topic = create(s, name_of("py"), 3)
    for codec in (None, "gzip"):
        p = kafka.KafkaProducer(bootstrap_servers=s.address, acks="all", compression_type=codec, linger_ms=5)
        futures = [p.send(topic, key=b"%d" % (i % 5), value=b"v%d" % i, headers=[("n", b"%d" % i)])
                   for i in range(500)]
        for f in futures:
            f.get(30)
        p.close()
    c = kafka.KafkaConsumer(topic, bootstrap_servers=s.address, auto_offset_reset="earliest",
                            group_id=name_of("g"), consumer_timeout_ms=60000)
    got = []
    for m in c:
        assert m.headers == [("n", m.value[1:])]
        got.append(int(m.value[1:]))
        if len(got) == 1000:
            break
    c.close()
    assert sorted(got) == sorted(list(range(500)) * 2)


def test_python_kafka_reads_what_librdkafka_wrote(s):
    topic = create(s, name_of("mixed"), 1)
    produce(s, topic, [(b"k", b"%d" % i, [("h", b"x")], 0) for i in range(1000)], compression_type="gzip")
    c = kafka.KafkaConsumer(bootstrap_servers=s.address, consumer_timeout_ms=60000)
    tp = kafka.TopicPartition(topic, 0)
    c.assign([tp])
    c.seek_to_beginning(tp)
    got = []
    for m in c:
        got.append((m.offset, m.key, int(m.value), m.headers))
        if len(got) == 1000:
            break
    c.close()
    assert got == [(i, b"k", i, [("h", b"x")]) for i in range(1000)]


def test_python_kafka_group_commits_and_resumes(s):
    topic, group = create(s, name_of("pygroup"), 2), name_of("g")
    produce(s, topic, [(None, b"%d" % i, None, i % 2) for i in range(100)])

    def some(n):
        c = kafka.KafkaConsumer(topic, bootstrap_servers=s.address, auto_offset_reset="earliest", group_id=group,
                                enable_auto_commit=False, max_poll_records=10, consumer_timeout_ms=60000)
        got = []
        while len(got) < n:
            for records in c.poll(1000).values():
                got += [int(m.value) for m in records]
        c.commit()
        c.close()
        return got

    first = some(40)
    assert sorted(first + some(100 - len(first))) == list(range(100))


def test_python_kafka_admin_creates_and_deletes(s):
    a = kafka.KafkaAdminClient(bootstrap_servers=s.address)
    topic = name_of("pyadmin")
    a.create_topics([kafka.admin.NewTopic(topic, 2, 1)])
    until(lambda: topic in a.list_topics(), what="the topic in the list")
    a.delete_topics([topic])
    until(lambda: topic not in a.list_topics(), what="the topic is gone")
    a.close()


if __name__ == "__main__":
    server = Server().start()
    rc = run_claims(sys.modules[__name__], server)
    server.fini()
    sys.stdout.flush()
    # Null headers make python3-confluent-kafka 1.7 lose count of None: the interpreter's own end would abort.
    os._exit(rc)
