#!/usr/bin/python3
"""python3-kafka and our codec read each other's messages, in all versions that both know.

Its random messages, written by it, must come back from us byte for byte, and ours from it. OUT is the
build folder (default build/plain)."""
import importlib
import io
import os
import random
import subprocess
import sys

from kafka.protocol import types

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.path.join(ROOT, os.environ.get("OUT", "build/plain"), "tests/gateways/kafka_recode")
MODULES = ["produce", "fetch", "offset", "metadata", "admin", "commit", "group"]
ROUNDS = 20
# Where the peer itself (2.0.2) does not follow the protocol's message definitions.
PEER_ERRORS = {
    ("response", 0, 8),  # record_errors beside the partitions instead of inside them
    ("request", 2, 4),  # current_leader_epoch of 64 bits
    ("request", 2, 5),  # the same
    ("response", 10, 1),  # no throttle_time_ms
    ("response", 32, 1),  # a boolean is_default where the source stands
    ("response", 15, 3),  # authorized_operations beside the groups instead of inside them
}
LEAST = 60  # message versions that both must know, or this test tests nothing


def repair(t):
    """The peer names the class String where it means an instance, in forgotten_topics_data."""
    if isinstance(t, types.Schema):
        t.fields = tuple(repair(f) for f in t.fields)
    elif isinstance(t, types.Array):
        t.array_of = repair(t.array_of)
    return types.String("utf-8") if t is types.String else t


def peer_classes():
    """(kind, key, version) -> class."""
    found = {}
    for name in MODULES:
        module = importlib.import_module("kafka.protocol." + name)
        for each in vars(module).values():
            if isinstance(each, type) and hasattr(each, "API_KEY") and hasattr(each, "SCHEMA"):
                if each.API_KEY is None:
                    continue
                kind = "response" if "Response" in each.__name__ else "request"
                repair(each.SCHEMA)
                found[(kind, each.API_KEY, each.API_VERSION)] = each
    return {k: v for k, v in found.items() if k not in PEER_ERRORS}


def text(rng):
    return "".join(rng.choice("abcxyz-._") for _ in range(rng.choice([0, 1, 5, 300])))


def value(rng, t):
    if isinstance(t, types.Schema):
        return tuple(value(rng, f) for f in t.fields)
    if isinstance(t, types.Array):
        return [value(rng, t.array_of) for _ in range(rng.randrange(4))]
    if isinstance(t, types.String):
        return text(rng)
    bits = {types.Int8: 8, types.Int16: 16, types.Int32: 32, types.Int64: 64}.get(t)
    if bits:
        return rng.choice([0, -1, 2 ** (bits - 1) - 1, -2 ** (bits - 1), rng.getrandbits(bits - 1)])
    if t is types.Boolean:
        return rng.random() < 0.5
    if t is types.Bytes:
        return bytes(rng.getrandbits(8) for _ in range(rng.randrange(9)))
    raise TypeError(t)


def ours(lines):
    out = subprocess.run([TOOL], input="\n".join(lines) + "\n", stdout=subprocess.PIPE, check=True, text=True)
    return out.stdout.splitlines()


def check_theirs(classes, served):
    """What the peer writes, we read and write again the same."""
    rng = random.Random(3)
    lines = []
    for kind, key, version in sorted(served):
        cls = classes[(kind, key, version)]
        for _ in range(ROUNDS):
            encoded = cls.SCHEMA.encode(value(rng, cls.SCHEMA)).hex()
            lines.append(f"{kind} {key} {version} {encoded}")
    bad = 0
    for sent, back in zip(lines, ours(lines)):
        if sent.split(" ")[3] != back:
            print(f"not the same: {sent} came back as {back}")
            bad += 1
    return len(lines), bad


def check_ours(classes):
    """What we write, the peer reads to the end and writes again the same."""
    out = subprocess.run([TOOL, "make"], stdout=subprocess.PIPE, check=True, text=True).stdout
    known, bad, n = set(), 0, 0
    for line in out.splitlines():
        kind, key, version, encoded = (line + " ").split(" ")[:4]
        cls = classes.get((kind, int(key), int(version)))
        if cls is None:
            continue
        known.add((kind, int(key), int(version)))
        data = io.BytesIO(bytes.fromhex(encoded))
        n += 1
        try:
            read = cls.SCHEMA.decode(data)
            same = data.read() == b"" and cls.SCHEMA.encode(read).hex() == encoded
        except ValueError as e:
            print(e)
            same = False
        if not same:
            print(f"the peer does not read: {line}")
            bad += 1
    return known, n, bad


def main():
    classes = peer_classes()
    known, n_ours, bad_ours = check_ours(classes)
    n_theirs, bad_theirs = check_theirs(classes, known)
    print(f"{len(known)} message versions, {n_ours} of our messages, {n_theirs} of theirs")
    few = len(known) < LEAST
    if few:
        print(f"only {len(known)} message versions in common")
    failed = bool(bad_ours) + bool(bad_theirs) + few
    print(f"{3 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
