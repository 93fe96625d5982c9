#!/usr/bin/python3
"""The demo's records: Debian package stanzas, keyed by package name.

    demo_records.py split INDEX SENT LINES
    demo_records.py compare SENT RECEIVED

SENT, for kcat: key 0x1f stanza 0x1e. LINES: key TAB stanza, with \\n for its line ends. RECEIVED, as
kcat printed it: partition 0x1f offset 0x1f key 0x1f stanza 0x1e.
"""
import hashlib
import re
import sys

RECORD, FIELD = b"\x1e", b"\x1f"
PACKAGE = re.compile(rb"^Package: (\S+)", re.M)


def say(text):
    print("   " + text)


def split(index, sent, lines):
    with open(index, "rb") as f:
        stanzas = [s.strip(b"\n") for s in f.read().split(b"\n\n")]
    records = []
    for s in stanzas:
        m = PACKAGE.search(s)
        if m and RECORD not in s and FIELD not in s and b"\t" not in m.group(1):
            records.append((m.group(1), s))
    with open(sent, "wb") as f:
        f.write(b"".join(k + FIELD + v + RECORD for k, v in records))
    with open(lines, "wb") as f:
        for k, v in records:
            f.write(k + b"\t" + v.replace(b"\\", b"\\\\").replace(b"\n", b"\\n") + b"\n")
    size = sum(len(k) + len(v) for k, v in records)
    say(f"{len(records):,} stanzas, {size / 1e6:.1f} MB of keys and values")


def records_of(path, fields):
    with open(path, "rb") as f:
        data = f.read()
    parts = data.split(RECORD)
    if parts and not parts[-1].strip(b"\n"):
        parts.pop()
    return [tuple(p.split(FIELD, fields - 1)) for p in parts]


def digest(records):
    h = hashlib.sha256()
    for k, v in sorted(records):
        h.update(b"%d %d " % (len(k), len(v)) + k + v)
    return h.hexdigest()


def compare(sent_path, received_path):
    sent = records_of(sent_path, 2)
    partitions = {}
    for p, offset, key, value in records_of(received_path, 4):
        partitions.setdefault(int(p), []).append((int(offset), key, value))
    received = [(k, v) for rows in partitions.values() for _, k, v in rows]
    say(f"sent     {len(sent):7,} records, sha256 {digest(sent)}")
    say(f"received {len(received):7,} records, sha256 {digest(received)}")
    problems = []
    home = {}
    for p, rows in partitions.items():
        if [o for o, _, _ in rows] != list(range(len(rows))):
            problems.append(f"partition {p}: offsets are not 0 to {len(rows) - 1}")
        for _, key, _ in rows:
            if home.setdefault(key, p) != p:
                problems.append(f"key {key!r} is in partitions {home[key]} and {p}")
    # What one partition holds must be what was sent to it, in the order in which it was sent.
    expected = {}
    for key, value in sent:
        expected.setdefault(home.get(key), []).append((key, value))
    for p, rows in partitions.items():
        if [(k, v) for _, k, v in rows] != expected.get(p, []):
            problems.append(f"partition {p}: not the records that were sent, in their order")
    if None in expected:
        problems.append(f"{len(expected[None])} records did not arrive")
    for text in problems[:10]:
        say("WRONG: " + text)
    if problems:
        sys.exit(1)
    counts = " ".join(str(len(partitions[p])) for p in sorted(partitions))
    say(f"equal, record for record, in order, over {len(partitions)} partitions: {counts}")


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] == "split":
        split(*sys.argv[2:])
    elif len(sys.argv) == 4 and sys.argv[1] == "compare":
        compare(*sys.argv[2:])
    else:
        sys.exit(__doc__)
