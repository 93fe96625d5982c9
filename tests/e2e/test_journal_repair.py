#!/usr/bin/python3
"""journal-ctl where it writes or copies: export, repair, index rebuild, rows dump, stat; and what a real server
says of itself on SIGUSR1. test-limit: 400"""
import base64
import glob
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile

import zstandard

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import OUT, ROOT, Server, flip, run_claims, until

sys.path.insert(0, os.path.join(ROOT, "tests/format"))
import read_store  # its CRC-32C, written from the document

CTL = os.path.join(OUT, "bin/journal-ctl")
WRITER = os.path.join(OUT, "tests/journal/store_writer")
FOLDER = tempfile.mkdtemp(prefix="repair.")
DATA = os.path.join(FOLDER, "made")
MADE = {}
SEED = 11


def ctl(*args, data=DATA, rc=0):
    p = subprocess.run([CTL, "--data", data, *map(str, args)], capture_output=True, timeout=120, check=False)
    assert p.returncode == rc, f"{args}: exit {p.returncode}, not {rc}: {p.stdout[-2000:]} {p.stderr}"
    return p.stdout.decode()


def as_json(*args, **kw):
    return json.loads(ctl("-o", "json", *args, **kw))


def made():
    if not MADE:
        out = subprocess.run([WRITER, "make", DATA], capture_output=True, timeout=60, check=True).stdout
        MADE.update(json.loads(out))
    return MADE


def copy(name, of=DATA):
    made()
    path = os.path.join(FOLDER, name)
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(of, path)
    return path


def golden():
    """A store with empty, trimmed and deleted shards, and two lives that ended in the middle."""
    path = os.path.join(FOLDER, "golden")
    if not os.path.exists(path):
        with open(os.path.join(ROOT, "tests/golden/store-v1/store.tar.zst"), "rb") as f:
            with zstandard.ZstdDecompressor().stream_reader(f) as raw:
                with tarfile.open(fileobj=raw, mode="r|") as tar:
                    tar.extractall(path)
    return path


def sums(folder):
    out = {}
    for path in sorted(glob.glob(folder + "/**", recursive=True)):
        if os.path.isfile(path):
            with open(path, "rb") as f:
                out[path] = hashlib.sha256(f.read()).hexdigest()
    return out


# --- export: a reader of Kafka's log files of our own ---

def varint(data, at):
    v = shift = 0
    while True:
        b = data[at]
        at += 1
        v |= (b & 127) << shift
        shift += 7
        if b < 128:
            return (v >> 1) ^ -(v & 1), at


def log_batches(path):
    """(base offset, last offset, attributes, records' bytes, base timestamp, count) of each batch, its CRC checked."""
    with open(path, "rb") as f:
        data = f.read()
    at = 0
    while at < len(data):
        base, length, _, magic, crc, attributes, last, first_time = struct.unpack_from(">qiibIhiq", data, at)
        count = struct.unpack_from(">i", data, at + 57)[0]
        end = at + 12 + length
        assert magic == 2 and end <= len(data), (path, at)
        assert read_store.crc32c(data[at + 21:end]) == crc, (path, at)
        yield base, base + last, attributes, data[at + 61:end], first_time, count
        at = end
    assert at == len(data)


def log_records(path):
    for base, _, attributes, body, first_time, count in log_batches(path):
        if attributes & 7:  # compressed: the library below reads those
            continue
        at = 0
        for _ in range(count):
            size, at = varint(body, at)
            end = at + size
            delta_time, p = varint(body, at + 1)
            delta, p = varint(body, p)
            key_bytes, p = varint(body, p)
            key, p = (body[p:p + key_bytes], p + key_bytes) if key_bytes >= 0 else (None, p)
            value_bytes, p = varint(body, p)
            value = body[p:p + value_bytes] if value_bytes >= 0 else None
            yield base + delta, first_time + delta_time, key, value
            at = end


def log_files(folder, name):
    files = sorted(glob.glob(os.path.join(folder, name, "*.log")))
    assert files, (folder, name)
    return files


def json_records(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def test_exported_log_is_every_batch_once():
    made()
    into = os.path.join(FOLDER, "logs")
    told = as_json("export", "alpha", into)
    assert sorted(t["name"] for t in told) == ["alpha-0", "alpha-1", "alpha-2"]
    ends = {s["id"]: s for s in made()["shards"]}
    for t in told:
        want, next_offset, n = ends[t["shard"]], None, 0
        for path in log_files(into, t["name"]):
            batches = list(log_batches(path))
            assert os.path.basename(path) == f"{batches[0][0]:020d}.log"
            for base, last, *_ in batches:
                assert next_offset is None or base == next_offset, (path, base)
                next_offset = last + 1
                n += 1
        first = list(log_batches(log_files(into, t["name"])[0]))[0]
        assert first[0] <= want["start"] <= first[1] and next_offset == want["end"], t
        assert (t["batches"], t["missing"], t["from"], t["end"]) == (n, 0, want["start"], want["end"]), t


def test_another_library_reads_the_exported_log():
    try:
        from kafka.record import MemoryRecords
    except ImportError:
        return "there is no python3-kafka"
    lines = os.path.join(FOLDER, "lines")
    for t in as_json("export", "beta/0", "--format", "json", lines):
        want = {r["offset"]: r for r in json_records(t["file"])}
    into = os.path.join(FOLDER, "library")
    ctl("export", "beta/0", into)
    seen = 0
    for path in log_files(into, "beta-0"):
        with open(path, "rb") as f:
            records = MemoryRecords(f.read())
        while records.has_next():
            batch = records.next_batch()
            assert batch.validate_crc()
            for r in batch:
                w = want[r.offset]
                assert (r.key.decode(), r.value.decode(), r.timestamp) == (w["key"], w["value"], w["timestamp"])
                seen += 1
    assert seen == len(want) > 100
    return None


def test_exported_lines_are_what_was_written():
    into = os.path.join(FOLDER, "json")
    for shard, name in ((16, "alpha-0"), (17, "alpha-1"), (30, "shard-30")):
        (t,) = as_json("export", shard, "--format", "json", into)
        got = json_records(t["file"])
        want = next(s for s in made()["shards"] if s["id"] == shard)
        assert t["name"] == name and t["records"] == len(got)
        assert [r["offset"] for r in got] == list(range(want["start"], want["end"]))
        assert all(r["key"] == f"k{r['offset']}" and r["value"].startswith(f"{shard}.{r['offset']}.") for r in got)
        assert all(r["headers"] == [] for r in got)
    for shard, bounds in ((16, (100, 300)), (16, (0, 1)), (17, (0, 10)), (16, (500, 10 ** 9)), (16, (7, 7))):
        (t,) = as_json("export", shard, "--format", "json", "--from", bounds[0], "--to", bounds[1],
                       os.path.join(into, f"{shard}.{bounds[0]}"))
        want = next(s for s in made()["shards"] if s["id"] == shard)
        assert [r["offset"] for r in json_records(t["file"])] == \
            list(range(max(want["start"], bounds[0]), min(want["end"], bounds[1])))


def test_log_and_lines_say_the_same():
    logs, lines = os.path.join(FOLDER, "same-logs"), os.path.join(FOLDER, "same-lines")
    n = 0
    for t in as_json("export", "alpha/0", "--format", "json", lines):
        want = {r["offset"]: r for r in json_records(t["file"])}
    ctl("export", "alpha/0", logs)
    for path in log_files(logs, "alpha-0"):
        for offset, timestamp, key, value in log_records(path):
            w = want[offset]
            assert (timestamp, key.decode(), value.decode()) == (w["timestamp"], w["key"], w["value"])
            n += 1
    assert n > 20
    ctl("export", "alpha/0", logs, rc=1)  # never over what is there
    ctl("export", "nothing", logs, rc=3)
    ctl("export", "alpha/0", rc=2)


def test_damage_is_left_out_and_told():
    data = copy("damaged-export")
    seg = next(s for s in as_json("segment", "ls") if s["group"] == 2)
    extent = as_json("segment", "head", seg["id"])["extents"][0]
    batch = as_json("segment", "dump", seg["id"])[0]
    flip(os.path.join(data, batch["file"]), batch["byte"] + 70)
    assert extent["file"] == batch["file"]
    into = os.path.join(FOLDER, "damaged-lines")
    p = subprocess.run([CTL, "--data", data, "-o", "json", "export", str(batch["shard"]), "--format", "json", into],
                       capture_output=True, check=False)
    assert p.returncode == 5, p
    (t,) = json.loads(p.stdout)
    got = {r["offset"] for r in json_records(t["file"])}
    want = next(s for s in made()["shards"] if s["id"] == batch["shard"])
    missing = set(range(want["start"], want["end"])) - got
    assert batch["offset"] in missing and t["missing"] == len(missing) < want["end"] / 2, t


# --- rows: a view, and never more than that ---

KEYS = '{"table":"key'  # indexes of keys: derived from the shards alone, by a server


def rows_of(data):
    return "".join(x + "\n" for x in ctl("-o", "jsonl", "rows", "dump", data=data).splitlines()
                   if not x.startswith(KEYS))


def keys_of(data):
    return [x for x in ctl("-o", "jsonl", "rows", "dump", data=data).splitlines() if x.startswith(KEYS)]


def sst(folder):
    return max(glob.glob(folder + "/rows/*.sst"), key=os.path.getsize)


def manifest(folder):
    return glob.glob(folder + "/rows/MANIFEST-*")[0]


def truncate(path, size):
    with open(path, "r+b") as f:
        f.truncate(size)


def scribble(path, seed):
    rng = random.Random(seed)
    for _ in range(8):
        flip(path, rng.randrange(os.path.getsize(path)), rng.randrange(8))


ROWS_DAMAGE = {
    "the folder is gone": lambda d: shutil.rmtree(d + "/rows"),
    "CURRENT is gone": lambda d: os.unlink(d + "/rows/CURRENT"),
    "CURRENT is cut": lambda d: truncate(d + "/rows/CURRENT", 3),
    "MANIFEST is gone": lambda d: os.unlink(manifest(d)),
    "MANIFEST is cut": lambda d: truncate(manifest(d), 60),
    "MANIFEST has flipped bits": lambda d: scribble(manifest(d), 1),
    "a table is gone": lambda d: os.unlink(sst(d)),
    "a table is cut": lambda d: truncate(sst(d), os.path.getsize(sst(d)) // 2),
    "a table has flipped bits": lambda d: scribble(sst(d), 2),
    "a table has one flipped bit": lambda d: flip(sst(d), 200),
    "all tables are empty": lambda d: [truncate(p, 0) for p in glob.glob(d + "/rows/*.sst")],
}


def shards_of(data):
    return [(s["id"], s["group"], s["start"], s["end"], s["records"], s["state"])
            for s in as_json("shard", "ls", data=data)]


def rows_survive(base, name):
    want = rows_of(base)
    shards = shards_of(base)
    assert len(want.splitlines()) > 40
    for what, damage in ROWS_DAMAGE.items():
        data = copy(name, base)
        damage(data)
        assert rows_of(data) == want, what  # in the view
        assert shards_of(data) == shards, what
        before = sums(data)
        steps = as_json("repair", "--dry-run", data=data)["steps"]
        assert [s["state"] for s in steps] == ["would"] and "rows" in steps[0]["what"], (what, steps)
        assert sums(data) == before, what
        as_json("repair", data=data)
        assert rows_of(data) == want, what  # in RocksDB
        assert as_json("verify", data=data)["damage"] == [], what
        assert as_json("repair", data=data)["steps"] == [], what


def test_rows_lost_or_damaged_are_made_anew_the_same():
    made()
    rows_survive(DATA, "rows")


def test_so_they_are_with_empty_trimmed_and_deleted_shards():
    rows_survive(golden(), "golden-rows")


def test_index_rebuild_gives_the_same_rows_and_counts_them():
    for base in (DATA, golden()):
        data = copy("rebuilt", base)
        r = as_json("index", "rebuild", data=data)
        assert r["summary"]["lost"] == 0
        before = {t["table"]: t["before"] for t in r["rows"]}
        after = {t["table"]: t["after"] for t in r["rows"]}
        # The others may wait for a server to take away what is dead, or to write what the WAL says.
        for table in before:
            assert before[table] == after[table] or table not in ("group", "shard", "segment", "door"), \
                (table, before, after)
        assert rows_of(data) == rows_of(base)
        assert as_json("verify", data=data)["damage"] == []


def test_a_server_starts_with_damaged_rows_as_with_sound_ones():
    s = Server("--set", "journal.scrub_bytes_per_s=0", "--set", "loops=2", "--set", "journal.wal_age_ms=200").start()
    from confluent_kafka.admin import AdminClient, NewTopic
    from test_configs import delete_records
    admin = AdminClient({"bootstrap.servers": s.address})
    topics = {"full": 4, "empty": 3, "trimmed": 1, "gone": 2, "keyed": 2, "gone-keyed": 1}
    new = [NewTopic(n, p, 1, config={"weir.kind": "rocksdb", "min.compaction.lag.ms": "3600000"} if "keyed" in n else {})
           for n, p in topics.items()]
    for f in admin.create_topics(new, operation_timeout=30).values():
        f.result(60)
    for name in ("full", "trimmed", "gone", "keyed", "gone-keyed"):
        text = "".join(f"k{i}:{name} {i} {'x' * 600}\n" for i in range(9000))
        subprocess.run(["kcat", "-P", "-b", s.address, "-t", name, "-K", ":"], input=text.encode(), check=True,
                       timeout=60)
    for f in admin.delete_topics(["gone", "gone-keyed"], operation_timeout=30).values():
        f.result(60)
    assert delete_records(s, "trimmed", 7000) == 7000
    until(lambda: '"event":"segment.sealed"' in s.log(), 60, "a segment")
    s.stop()
    keys, shards = keys_of(s.data), as_json("shard", "ls", data=s.data)
    assert len(keys) == 9000 + topics["keyed"]
    names = {x["name"]: x for x in shards}
    assert (names["trimmed/0"]["start"], names["trimmed/0"]["end"]) == (7000, 9000)
    assert names["empty/0"]["end"] == 0 and sum(names[f"full/{p}"]["end"] for p in range(4)) == 9000
    assert "gone/0" not in names, names["gone/0"]
    assert as_json("segment", "ls", data=s.data)
    kept = os.path.join(FOLDER, "kept")
    shutil.copytree(s.data, kept)
    for what in ("the folder is gone", "CURRENT is cut", "MANIFEST has flipped bits", "a table has flipped bits"):
        shutil.rmtree(s.data)
        shutil.copytree(kept, s.data)
        ROWS_DAMAGE[what](s.data)
        s.start()
        until(lambda: '"event":"keys.remade"' in s.log(), 60, "the indexes of keys")
        s.stop()
        assert keys_of(s.data) == keys, what
        after = {x["name"]: (x["start"], x["end"], x["state"]) for x in as_json("shard", "ls", data=s.data)
                 if x["topic"]}
        assert after == {n: (x["start"], x["end"], x["state"]) for n, x in names.items() if x["topic"]}, what
        assert as_json("verify", data=s.data)["damage"] == [], what
    rows_survive(kept, "kept-rows")
    s.fini()


# --- repair ---

def repaired(name, damages, n_steps=1):
    """Flips, then a dry run that writes nothing, then the repair, after which all is as it was."""
    data = copy(name)
    for file, byte in damages:
        flip(os.path.join(data, file), byte, 3)
    assert as_json("verify", data=data, rc=5)["damage"]
    before = sums(data)
    dry = as_json("repair", "--dry-run", data=data)
    assert sums(data) == before, "a dry run wrote"
    assert [s["state"] for s in dry["steps"]] == ["would"] * n_steps, dry
    done = as_json("repair", data=data)
    assert [dict(s, state="would") for s in done["steps"]] == dry["steps"], done
    assert {s["state"] for s in done["steps"]} == {"done"}
    assert as_json("verify", data=data)["damage"] == []
    assert rows_of(data) == rows_of(DATA)
    return data


def test_sound_store_needs_no_repair():
    data = copy("sound")
    before = sums(data)
    assert as_json("repair", data=data)["steps"] == []
    assert {k: v for k, v in sums(data).items() if "/rows/" not in k and not k.endswith("lock")} == \
        {k: v for k, v in before.items() if "/rows/" not in k and not k.endswith("lock")}


def test_superblock_copies_are_written_again():
    made()
    repaired("super", [("superblock", 40), ("superblock", 16384 + 5), ("superblock", 3 * 16384 + 9000)])
    data = copy("no-super")
    for i in range(4):
        flip(os.path.join(data, "superblock"), i * 16384 + 40)
    ctl("repair", data=data, rc=5)


def test_headers_footers_and_indexes_are_written_again():
    made()
    segs = [s for s in as_json("segment", "ls") if s["extents"] == 1][:4]
    heads = [as_json("segment", "head", s["id"]) for s in segs]
    place = [(h["extents"][0]["file"], h["extents"][0]["byte"]) for h in heads]
    data = copy("slab")
    flip(os.path.join(data, "slab-000001"), 20)
    dry = as_json("repair", "--dry-run", data=data)["steps"]
    assert dry[0]["file"] == "slab-000001" and "once that is done" in dry[1]["what"], dry
    assert len(as_json("repair", data=data)["steps"]) == 1
    assert as_json("verify", data=data)["damage"] == [] and rows_of(data) == rows_of(DATA)
    repaired("head", [(place[0][0], place[0][1] + 50)])
    repaired("footer", [(place[1][0], place[1][1] + heads[1]["extents"][0]["bytes"] - 4096 + 60)])
    repaired("index", [(place[2][0], place[2][1] + 4096 + heads[2]["segment"]["index_pos"] + 80)])
    repaired("many", [(place[0][0], place[0][1] + 5),
                      (place[1][0], place[1][1] + 4096 + heads[1]["segment"]["index_pos"] + 20),
                      (place[3][0], place[3][1] + heads[3]["extents"][0]["bytes"] - 4090)], 3)


def test_what_cannot_be_made_again_is_named_and_left():
    data = copy("lost")
    batch = as_json("segment", "dump", as_json("segment", "ls")[3]["id"])[0]
    block = [r for r in (json.loads(x) for x in ctl("-o", "jsonl", "wal", "dump").splitlines())
             if r["type"] == "block" and r["count"]][3]
    flip(os.path.join(data, batch["file"]), batch["byte"] + 80)
    flip(os.path.join(data, block["file"]), block["byte"] + 150)
    before = sums(data)
    r = as_json("repair", "--dry-run", data=data, rc=5)
    assert sums(data) == before
    lost = [s for s in r["steps"] if s["state"] == "lost"]
    assert any(s["file"] == batch["file"] and s["byte"] <= batch["byte"] + 80 < s["byte"] + s["bytes"] for s in lost)
    assert any("journal.accept_loss" in s["what"] and str(block["lsn"]) in s["what"] for s in lost), lost


def test_repair_refuses_beside_a_server():
    data = copy("locked")
    p = subprocess.Popen([WRITER, "churn", data + "-churn"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert p.stdout.readline() == b"going\n"
    q = subprocess.run([CTL, "--data", data + "-churn", "repair"], capture_output=True, check=False)
    assert q.returncode == 1 and b"in use" in q.stderr, q
    q = subprocess.run([CTL, "--data", data + "-churn", "index", "rebuild"], capture_output=True, check=False)
    assert q.returncode == 1 and b"in use" in q.stderr, q
    exports_beside(data + "-churn", os.path.join(FOLDER, "churned"))
    p.stdin.close()
    assert p.wait(60) == 0
    missing = os.path.join(FOLDER, "nothing")
    ctl("repair", data=missing, rc=3)
    assert not os.path.exists(missing)


def exports_beside(data, into):
    """While shards are trimmed, deleted and rewritten under it: what is exported is whole, or the shard is gone."""
    good = 0
    for i in range(12):
        shards = [s for s in as_json("shard", "ls", data=data) if s["class"] == "data"]
        q = subprocess.run([CTL, "--data", data, "-o", "json", "export", str(shards[i % len(shards)]["id"]),
                            f"{into}.{i}"], capture_output=True, timeout=120, check=False)
        assert q.returncode in (0, 1, 3, 5), q
        for path in glob.glob(f"{into}.{i}/*/*.log"):
            if q.returncode == 0:
                good += len(list(log_batches(path))) > 0
    assert good > 3, good


# --- stat and the server's own figures ---

def test_stat_adds_up():
    made()
    st = as_json("stat")
    segs, shards = as_json("segment", "ls"), as_json("shard", "ls")
    (d,) = st["devices"]
    assert d["segments"] == len(segs)
    assert d["segment_live"] == sum(s["live_bytes"] for s in segs)
    assert d["segment_live"] + d["segment_dead"] == sum(s["space"] for s in segs)
    assert d["free"] + d["wal_space"] + d["segment_live"] + d["segment_dead"] + d["other"] == d["space"]
    assert st["store"]["shards"] == len(shards) - 1
    assert st["store"]["records"] == sum(s["records"] for s in shards if s["id"] != 1)
    assert st["store"]["rows"] > 100 and st["store"]["rows_lost"] is False


def metrics(s):
    n = s.log().count('"event":"metrics"')
    s.child.send_signal(signal.SIGUSR1)
    until(lambda: s.log().count('"event":"metrics"') > n and s.log().endswith("\n"), 30, "metrics")
    return json.loads([x for x in s.log().splitlines() if '"event":"metrics"' in x][-1])["metrics"]


def test_server_tells_its_metrics_and_scrubs():
    s = Server("--set", "journal.scrub_interval=1s", "--set", "journal.wal_age_ms=200").start()
    text = "".join(f"k{i}:{i} {'x' * 1000}\n" for i in range(30000))
    subprocess.run(["kcat", "-P", "-b", s.address, "-t", "t", "-K", ":"], input=text.encode(), check=True, timeout=60)
    out = subprocess.run(["kcat", "-C", "-b", s.address, "-t", "t", "-e", "-q"], capture_output=True, check=True,
                         timeout=60).stdout
    assert out.count(b"\n") == 30000
    until(lambda: metrics(s)['weir_journal_scrub_cycles_total{device="0"}'] > 1, 60, "two cycles of the scrub")
    until(lambda: metrics(s)['weir_journal_destage_rounds_total{device="0"}'] > 0, 60, "a round of destage")
    m = metrics(s)

    def of(name, labels=""):
        return m[f'weir_journal_{name}{{device="0"{labels}}}']

    assert of("append_duration_seconds")["count"] == of("appends_total") > 0
    assert 0 < of("append_duration_seconds")["p50"] <= of("append_duration_seconds")["p999"]
    assert of("append_bytes_total") > 30000 * 1000
    assert of("destage_bytes_total") + of("direct_append_bytes_total") > 0 and of("destage_rounds_total") > 0
    assert of("scrub_found_total") == 0 and of("scrub_bytes_total") > 1 << 20
    assert sum(of("read_bytes_total", f',source="{x}"') for x in ("cache", "wal", "segment")) > 30000 * 1000
    free = of("space_bytes", ',state="free"')
    slabs = sum(os.path.getsize(p) for p in glob.glob(s.data + "/slab-*"))
    assert 0 < free < slabs
    assert '"event":"scrub.damage"' not in s.log()
    s.stop()
    seg = as_json("segment", "ls", data=s.data)[-1]
    batch = as_json("segment", "dump", seg["id"], data=s.data)[0]
    flip(os.path.join(s.data, batch["file"]), batch["byte"] + 90)
    s.start()
    until(lambda: metrics(s)['weir_journal_scrub_cycles_total{device="0"}'] > 2, 60, "cycles of the scrub")
    lines = [json.loads(x) for x in s.log().splitlines() if '"event":"scrub.damage"' in x]
    assert [(x["file"], x["in"]) for x in lines] == [(batch["file"], "segment")], lines
    assert lines[0]["byte"] <= batch["byte"] + 90 < lines[0]["byte"] + lines[0]["bytes"]
    assert metrics(s)['weir_journal_scrub_damaged{device="0"}'] == 1
    s.stop()
    s.fini()


def test_bytes_that_are_no_text_are_base64():
    s = Server().start()
    from confluent_kafka import Producer
    p = Producer({"bootstrap.servers": s.address})
    raw = bytes(range(256))
    p.produce("odd", value=raw, key=b"\xff\xfe", headers=[("h", b"\x00\x80"), ("n", None), ("t", "ä\n\"\\".encode())])
    p.produce("odd", value=None, key="ключ".encode())
    p.flush(30)
    (t,) = as_json("export", "odd/0", "--format", "json", os.path.join(FOLDER, "odd"), data=s.data)
    a, b = json_records(t["file"])
    assert base64.b64decode(a["value"]) == raw and a["value_encoding"] == a["key_encoding"] == "base64"
    assert base64.b64decode(a["key"]) == b"\xff\xfe"
    assert [h["key"] for h in a["headers"]] == ["h", "n", "t"]
    assert base64.b64decode(a["headers"][0]["value"]) == b"\x00\x80"
    assert a["headers"][1]["value"] is None and a["headers"][2]["value"] == "ä\n\"\\"
    assert b["value"] is None and b["key"] == "ключ" and "key_encoding" not in b
    s.stop()
    s.fini()


if __name__ == "__main__":
    try:
        code = run_claims(sys.modules["__main__"])
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
    sys.exit(code)
