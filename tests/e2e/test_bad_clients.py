#!/usr/bin/python3
"""Clients that are broken, slow or mean. After each claim the server is the same process, its memory
is bounded, and a good client works.

test-limit: 300"""
import os
import random
import socket
import struct
import sys
import threading
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition
from kafka.record.memory_records import MemoryRecordsBuilder

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import Server, run_claims, until  # noqa: E402

GROWTH_KIB = 200 * 1024  # what any of these may add to the server's memory
PRODUCE, FETCH, METADATA, API_VERSIONS = 0, 1, 3, 18
UNSUPPORTED_VERSION = 35


def good_client_works(s):
    topic = f"good-{uuid.uuid4().hex[:8]}"
    errors = []
    p = Producer({"bootstrap.servers": s.address, "message.timeout.ms": 20000})
    for i in range(100):
        p.produce(topic, b"%d" % i, partition=0, on_delivery=lambda e, m: errors.append(e) if e else None)
    assert p.flush(25) == 0 and not errors, errors[:1]
    c = Consumer({"bootstrap.servers": s.address, "group.id": "x", "enable.auto.commit": False})
    c.assign([TopicPartition(topic, 0, 0)])
    got = []
    until(lambda: got.extend(m.value() for m in c.consume(100, 0.2) if not m.error()) or len(got) == 100, 20,
          "a hundred records")
    assert got == [b"%d" % i for i in range(100)]
    c.close()


class Bad:
    """Around each claim: the same process, memory and descriptors bounded, a good client served."""

    def __init__(self, s):
        self.s = s

    def __enter__(self):
        self.rss, self.fds, self.pid = self.s.rss_kib(), self.s.n_fds(), self.s.child.pid
        return self

    def check_memory(self):
        grown = self.s.rss_kib() - self.rss
        assert grown < GROWTH_KIB, f"memory grew by {grown} KiB"

    def __exit__(self, kind, value, trace):
        if kind:
            return
        assert self.s.is_up(), "the server is gone: " + self.s.log()[-3000:]
        self.check_memory()
        good_client_works(self.s)
        until(lambda: self.s.n_fds() <= self.fds + 20, what="descriptors given back")


def connect(s):
    k = socket.create_connection(("127.0.0.1", s.port), 10)
    k.settimeout(20)
    return k


def request(api, version, body, correlation=7, client=b"bad"):
    head = struct.pack(">hhih", api, version, correlation, len(client)) + client
    return struct.pack(">i", len(head) + len(body)) + head + body


def read_exactly(k, n):
    data = b""
    while len(data) < n:
        more = k.recv(n - len(data))
        if not more:
            return None
        data += more
    return data


def answer(k):
    """The next answer without its length, or None when the server closed."""
    try:
        head = read_exactly(k, 4)
        return None if head is None else read_exactly(k, struct.unpack(">i", head)[0])
    except ConnectionError:
        return None


def is_closed(k):
    """The server hangs up, whatever it says before."""
    try:
        while k.recv(65536):
            pass
    except ConnectionError:
        pass
    return True  # a time-out would have raised


def send_all(k, data):
    """Sends as far as the server lets us."""
    try:
        k.sendall(data)
    except ConnectionError:
        pass


def string(text):
    return struct.pack(">h", len(text)) + text


def produce_body(topic, batch, acks=-1):
    return (struct.pack(">hhii", -1, acks, 10000, 1) + string(topic) +
            struct.pack(">iii", 1, 0, len(batch)) + batch)  # version 3: transactional id null


def produce_error(data):
    """The error code in an answer to one partition, version 3."""
    topic_len = struct.unpack_from(">h", data, 8)[0]
    return struct.unpack_from(">h", data, 8 + 2 + topic_len + 8)[0]


def batch_of(n=3):
    b = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=1 << 20)
    for i in range(n):
        b.append(timestamp=1700000000000 + i, key=b"key", value=b"value %d" % i, headers=[])
    b.close()
    return bytes(b.buffer())


def topic_of(s):
    topic = f"bad-{uuid.uuid4().hex[:8]}".encode()
    p = Producer({"bootstrap.servers": s.address})
    p.produce(topic.decode(), b"first")
    assert p.flush(20) == 0
    return topic


# ---- bytes that are no requests ----

def test_garbage_is_survived(s):
    rng = random.Random(1)
    with Bad(s):
        for _ in range(200):
            with connect(s) as k:
                send_all(k, rng.randbytes(rng.randrange(1, 3000)))


def test_http_and_tls_hellos_are_hung_up_on(s):
    with Bad(s):
        for hello in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 4, bytes.fromhex("160301020001") + bytes(600)):
            with connect(s) as k:
                send_all(k, hello)
                assert is_closed(k)


def test_impossible_lengths_are_hung_up_on_at_once(s):
    with Bad(s):
        for length in (-1, -2**31, 0, 1, 7, 2**31 - 1, (100 << 20) + 1):
            with connect(s) as k:
                send_all(k, struct.pack(">i", length) + bytes(8))
                assert is_closed(k), length


def test_half_requests_leave_nothing_behind(s):
    full = request(METADATA, 1, struct.pack(">i", -1))
    with Bad(s):
        for cut in range(1, len(full)):
            for _ in range(5):
                with connect(s) as k:
                    k.sendall(full[:cut])


def test_announced_bytes_that_never_come_cost_no_memory(s):
    with Bad(s) as bad:
        held = [connect(s) for _ in range(60)]
        for k in held:
            send_all(k, struct.pack(">i", 90 << 20) + request(PRODUCE, 3, b"")[4:] + bytes(1000))
        good_client_works(s)
        bad.check_memory()
        for k in held:
            k.close()


# ---- requests that lie ----

def test_unknown_api_is_hung_up_on(s):
    with Bad(s):
        for api in (-1, 500, 32767):
            with connect(s) as k:
                send_all(k, request(api, 0, bytes(20)))
                assert is_closed(k), api


def test_unknown_version_of_api_versions_gets_the_list_in_version_0(s):
    with Bad(s), connect(s) as k:
        k.sendall(request(API_VERSIONS, 99, bytes(4)))
        data = answer(k)
        correlation, error, n = struct.unpack_from(">ihi", data)
        assert (correlation, error) == (7, UNSUPPORTED_VERSION)
        rows = [struct.unpack_from(">hhh", data, 10 + 6 * i) for i in range(n)]
        assert any(api == API_VERSIONS for api, _, _ in rows) and len(data) == 10 + 6 * n


def test_random_bodies_for_every_api_are_survived(s):
    rng = random.Random(2)
    with connect(s) as k:
        k.sendall(request(API_VERSIONS, 0, b""))
        data = answer(k)
    n = struct.unpack_from(">i", data, 6)[0]
    rows = [struct.unpack_from(">hhh", data, 10 + 6 * i) for i in range(n)]
    assert len(rows) > 10
    with Bad(s):
        for api, low, high in rows:
            for version in range(low, high + 1):
                for size in (0, 1, 5, 40, 300):
                    with connect(s) as k:
                        send_all(k, request(api, version, rng.randbytes(size)))
                        k.shutdown(socket.SHUT_WR)
                        assert is_closed(k), (api, version, size)


def test_huge_counts_in_small_requests_allocate_nothing(s):
    with Bad(s):
        for count in (2**31 - 1, -2, -2**31, 1 << 24):
            for api, version, before in ((METADATA, 1, b""), (PRODUCE, 3, struct.pack(">hhi", -1, -1, 1000)),
                                         (FETCH, 4, struct.pack(">iiiib", -1, 100, 1, 1000, 0))):
                with connect(s) as k:
                    send_all(k, request(api, version, before + struct.pack(">i", count) + bytes(10)))
                    k.shutdown(socket.SHUT_WR)
                    assert is_closed(k), (api, count)


def test_batch_with_any_flipped_bit_is_refused(s):
    topic, batch = topic_of(s), batch_of()
    with Bad(s), connect(s) as k:
        for bit in range(17 * 8, len(batch) * 8, 3):  # what the CRC covers, and the CRC
            flipped = bytearray(batch)
            flipped[bit // 8] ^= 1 << bit % 8
            k.sendall(request(PRODUCE, 3, produce_body(topic, bytes(flipped))))
            data = answer(k)
            assert data is not None and produce_error(data) != 0, (bit, data)
        k.sendall(request(PRODUCE, 3, produce_body(topic, batch)))
        assert produce_error(answer(k)) == 0, "the whole one is taken"


def test_batch_of_a_wrong_length_is_refused(s):
    topic, batch = topic_of(s), batch_of()
    wrong = [batch[:n] for n in (0, 1, 11, 12, 17, 60, len(batch) - 1)] + [batch + b"\0", batch + batch[:20]]
    for length in (-1, 0, 5, 2**31 - 1):
        wrong.append(batch[:8] + struct.pack(">i", length) + batch[12:])
    with Bad(s):
        for each in wrong:
            with connect(s) as k:
                k.sendall(request(PRODUCE, 3, produce_body(topic, each)))
                data = answer(k)
                if 0 < len(each) <= len(batch):  # Kafka too takes no batch, and one with a torn one behind it
                    assert data is None or produce_error(data) != 0, (len(each), data)


# ---- clients that are slow ----

def test_slow_loris_gets_its_answers_and_disturbs_nobody(s):
    full = request(API_VERSIONS, 0, b"")
    with Bad(s) as bad:
        held = [connect(s) for _ in range(200)]
        for i in range(len(full) - 1):
            for k in held:
                k.sendall(full[i:i + 1])
            if i % 6 == 0:
                good_client_works(s)
        bad.check_memory()
        for k in held:
            k.sendall(full[-1:])
        for k in held:
            assert struct.unpack_from(">ih", answer(k)) == (7, 0)
            k.close()


def test_client_that_never_reads_holds_bounded_memory(s):
    topic = f"unread-{uuid.uuid4().hex[:8]}".encode()
    p = Producer({"bootstrap.servers": s.address})
    for _ in range(16):
        p.produce(topic.decode(), os.urandom(900000), partition=0)
    assert p.flush(30) == 0
    body = (struct.pack(">iiiib", -1, 100, 1, 1 << 24, 0) + struct.pack(">i", 1) + string(topic) +
            struct.pack(">iiqi", 1, 0, 0, 1 << 24))
    one = request(FETCH, 4, body)
    with Bad(s) as bad:
        held = [connect(s) for _ in range(4)]

        def pour(k):
            k.settimeout(1)
            try:
                for _ in range(2000):
                    k.sendall(one)
            except (OSError, socket.timeout):
                pass  # the server no longer reads us: as it should be

        threads = [threading.Thread(target=pour, args=(k,)) for k in held]
        for t in threads:
            t.start()
        good_client_works(s)
        for t in threads:
            t.join()
        bad.check_memory()
        for k in held:
            k.close()


def test_many_connections_that_say_nothing_are_held(s):
    with Bad(s) as bad:
        held = [connect(s) for _ in range(500)]
        good_client_works(s)
        bad.check_memory()
        for k in held:
            k.close()


if __name__ == "__main__":
    server = Server().start()
    good_client_works(server)
    sys.exit(run_claims(sys.modules[__name__], server))
