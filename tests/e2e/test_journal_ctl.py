#!/usr/bin/python3
"""journal-ctl from outside: what it prints of a store whose content is known, its exit codes, and what it says
beside a process that writes at full speed. test-limit: 400"""
import glob
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import OUT, ROOT, Server, flip, run_claims

CTL = os.path.join(OUT, "bin/journal-ctl")
WRITER = os.path.join(OUT, "tests/journal/store_writer")
FOLDER = tempfile.mkdtemp(prefix="journal-ctl.")
DATA = os.path.join(FOLDER, "made")
MADE = {}
LOOKS = 30
RECORDS = 40000


def ctl(*args, data=DATA, rc=0, timeout=120):
    """Runs it, wants that exit status, gives stdout."""
    p = subprocess.run([CTL, "--data", data, *map(str, args)], capture_output=True, timeout=timeout, check=False)
    assert p.returncode == rc, f"{args}: exit {p.returncode}, not {rc}: {p.stdout[-2000:]} {p.stderr}"
    return p.stdout.decode()


def as_json(*args, **kw):
    return json.loads(ctl("-o", "json", *args, **kw))


def as_lines(*args, **kw):
    return [json.loads(line) for line in ctl("-o", "jsonl", *args, **kw).splitlines()]


def made():
    if not MADE:
        out = subprocess.run([WRITER, "make", DATA], capture_output=True, timeout=60, check=True).stdout
        MADE.update(json.loads(out))
    return MADE


# What the writer puts into batch i (tests/journal/store_writer.c), reckoned here once more.
def records_of(shard):
    offset, out = 0, []
    for i in range(made()["batches"] + 1):
        if shard == 30 and i % 10 or i == made()["batches"] and shard != 16:
            continue
        for k in range(1 + i % 7):
            out.append((offset, made()["first_time"] + i * 1000 + k))
            offset += 1
    return out


def test_shards_are_those_that_were_made():
    want = {s["id"]: s for s in made()["shards"]}
    got = {s["id"]: s for s in as_json("shard", "ls")}
    assert set(got) == set(want) | {1}, got.keys()
    names = {16: "alpha/0", 17: "alpha/1", 18: "alpha/2", 20: "beta/0", 30: "(state)", 1: "(catalogue)"}
    for id, s in got.items():
        assert s["name"] == names[id], s
        assert s["state"] == "ok" and s["kind"] == "segment", s
        if id == 1:
            continue
        assert (s["start"], s["end"]) == (want[id]["start"], want[id]["end"]), s
        assert s["records"] == s["end"] - s["start"], s
        assert s["class"] == ("internal" if id == 30 else "data"), s
        assert s["bytes"] == s["segment_bytes"] + s["wal_bytes"] > 0, s
    assert (got[17]["topic"], got[17]["partition"]) == ("alpha", 1)
    assert got[17]["start"] > 0


def test_three_forms_say_the_same():
    rows, lines = as_json("shard", "ls"), as_lines("shard", "ls")
    assert rows == lines
    table = ctl("shard", "ls").splitlines()
    assert table[0].split()[:3] == ["ID", "NAME", "KIND"], table[0]
    assert len(table) == len(rows) + 1
    for row, line in zip(rows, table[1:]):
        cells = line.split()
        assert cells[0] == str(row["id"]) and cells[1] == row["name"], line
        assert str(row["end"]) in cells, line


def test_describe_lists_runs_without_gap_and_producers():
    for shard in ("alpha/1", "20"):
        d = as_json("shard", "describe", shard)
        s, at = d["shard"], None
        assert d["holes"] == []
        for run in d["runs"]:
            assert at is None or run["start"] == at, run
            assert (run["in"] == "wal") == (run["segment"] is None), run
            at = run["end"]
        assert d["runs"][0]["start"] <= s["start"] and at == s["end"]
        assert {r["in"] for r in d["runs"]} == {"wal", "segment"}
        assert s["segments"] == len({r["segment"] for r in d["runs"] if r["segment"]})
    assert [p["producer"] for p in d["producers"]] == [made()["producer"]] * 5
    assert d["producers"][-1]["last_sequence"] == s["end"] - 1
    lines = as_lines("shard", "describe", "20")
    assert {line["section"] for line in lines} == {"shard", "runs", "producers"}


def test_offsets_are_found_by_time():
    records = records_of(16)
    for time_ms in (0, records[100][1], records[500][1] + 1, records[-1][1], records[-1][1] + 1):
        got = {r["what"]: r for r in as_json("shard", "offsets", "alpha/0", "--time", time_ms)}
        assert got["earliest"]["offset"] == 0 and got["latest"]["offset"] == len(records)
        want = next((r for r in records if r[1] >= time_ms), (None, None))
        assert (got["at-time"]["offset"], got["at-time"]["timestamp"]) == want, (time_ms, got)
        top = max(t for _, t in records)
        want = next(r for r in records if r[1] == top)
        assert (got["max-timestamp"]["offset"], got["max-timestamp"]["timestamp"]) == want


def test_dumps_give_every_record_once():
    seen = {}
    for seg in as_json("segment", "ls"):
        head = as_json("segment", "head", seg["id"])
        assert head["segment"]["batches"] == seg["batches"] and len(head["segment"]["identity"]) == 32
        assert len(head["extents"]) == seg["extents"]
        batches = as_lines("segment", "dump", seg["id"])
        assert len(batches) == seg["batches"] and all(b["crc_ok"] for b in batches)
        for r in as_lines("segment", "dump", seg["id"], "--records"):
            if r["shard"] >= 16:
                assert (r["shard"], r["offset"]) not in seen, r
                seen[r["shard"], r["offset"]] = r
        assert as_json("segment", "verify", seg["id"])["damage"] == []
    shard = None
    for r in as_lines("wal", "dump", "--records"):
        if r["type"] == "record" and r["shard"] >= 16:
            old = seen.setdefault((r["shard"], r["offset"]), dict(r, timestamp=r["time"]))
            assert old["key"] == r["key"] and old["value"] == r["value"]
    for s in made()["shards"]:
        shard = s["id"]
        for offset, timestamp in records_of(shard)[s["start"]:]:
            r = seen[shard, offset]
            assert r["timestamp"] == timestamp, (r, timestamp)
            assert r["key"] == f"k{offset}" and r["value"].startswith(f"{shard}.{offset}."), r


def test_segments_of_the_log_are_made_of_the_pieces_that_are_listed():
    pieces = as_json("segment", "ls")
    logical = as_json("segment", "ls", "--logical")
    assert logical and sum(x["pieces"] for x in logical) == len(pieces)
    for x in logical:
        mine = [p for p in pieces if p["group"] == x["group"]
                and x["first_entry"] <= p["first_entry"] <= x["last_entry"]]
        assert len(mine) == x["pieces"] and not x["several"], x
        one = as_json("segment", "identity", x["group"], x["first_entry"])
        assert one == as_json("segment", "identity", x["group"], x["last_entry"])
        assert {k: one[k] for k in x} == x and len(one["identity"]) == 32
        assert 0 < one["batches"] <= sum(p["batches"] for p in mine)
        if len(mine) == 1 and one["batches"] == mine[0]["batches"]:  # nothing in it is dead
            head = as_json("segment", "head", mine[0]["id"])["segment"]
            assert one["identity"] == head["identity"], x
    last = max(x["last_entry"] for x in logical)
    ctl("segment", "identity", logical[0]["group"], last + 1000000, rc=3)


def test_segment_dump_of_one_shard():
    seg = next(s for s in as_json("segment", "ls") if s["group"] == 2)
    all_of_it = as_json("segment", "dump", seg["id"])
    one = as_json("segment", "dump", seg["id"], "--shard", "alpha/0")
    assert one and one == [b for b in all_of_it if b["shard"] == 16] and len(one) < len(all_of_it)


def test_wal_dump_keeps_to_from_and_limit():
    blocks = [r for r in as_lines("wal", "dump") if r["type"] == "block"]
    assert len(blocks) > 10 and {b["incarnation"] for b in blocks} == {1, 2}
    for a, b in zip(blocks, blocks[1:]):
        assert a["lsn"] + a["bytes"] == b["lsn"], (a, b)
    some = [r for r in as_lines("wal", "dump", "--from", blocks[4]["lsn"], "--limit", 3) if r["type"] == "block"]
    assert some == blocks[4:7]


def test_verify_is_content_and_counts():
    v = as_json("verify")
    assert v["damage"] == [] and v["summary"]["damaged"] == 0
    assert v["summary"]["superblock_copies"] == 4
    assert v["summary"]["segments"] == len(as_json("segment", "ls"))
    assert v["summary"]["torn_tail"] is False
    assert "No damage" in ctl("verify") and "No damage" in ctl("wal", "verify")


def test_without_rows_all_is_the_same():
    before = as_json("shard", "ls")
    copy = os.path.join(FOLDER, "no-rows")
    shutil.copytree(DATA, copy)
    shutil.rmtree(os.path.join(copy, "rows"))
    assert as_json("shard", "ls", data=copy) == before
    assert as_json("verify", data=copy)["damage"] == []
    assert not os.path.exists(os.path.join(copy, "rows"))


def test_damage_has_its_place_and_exit_code():
    copy = os.path.join(FOLDER, "damaged")
    shutil.copytree(DATA, copy)
    seg = as_json("segment", "ls")[2]
    extent = as_json("segment", "head", seg["id"])["extents"][0]
    file = os.path.join(copy, extent["file"])
    byte = extent["byte"] + 4096 + 40 + 70  # inside the first batch of the first run
    flip(file, byte)
    for noun in (("verify",), ("segment", "verify", seg["id"])):
        damage = as_json(*noun, data=copy, rc=5)["damage"]
        hit = [d for d in damage if d["file"] == extent["file"] and d["byte"] <= byte < d["byte"] + d["bytes"]]
        assert hit and hit[0]["segment"] == seg["id"], damage
    rows = as_lines("segment", "dump", seg["id"], data=copy, rc=5)
    assert [r for r in rows if not r["crc_ok"]]
    assert "DAMAGED" in ctl("verify", data=copy, rc=5)
    ctl("wal", "verify", data=copy)
    flip(file, byte)
    ctl("verify", data=copy)
    block = [r for r in as_lines("wal", "dump") if r["type"] == "block" and r["count"]][3]
    flip(os.path.join(copy, block["file"]), block["byte"] + 150)
    v = as_json("wal", "verify", data=copy, rc=5)
    assert [(d["file"], d["byte"], d["lsn"]) for d in v["damage"]] == [(block["file"], block["byte"], block["lsn"])]
    assert v["groups_hit"] and v["groups_hit"][0]["lsn"] == block["lsn"] and v["lost"]
    ctl("wal", "dump", data=copy, rc=5)
    flip(os.path.join(copy, block["file"]), block["byte"] + 150)
    flip(os.path.join(copy, "superblock"), 5000)
    damage = as_json("verify", data=copy, rc=5)["damage"]
    assert [(d["file"], d["byte"]) for d in damage] == [("superblock", 0)], damage


def test_exit_codes():
    missing = os.path.join(FOLDER, "missing")
    for args, rc in ((("shard", "describe", "999"), 3), (("shard", "describe", "alpha/7"), 3),
                     (("shard", "offsets", "nothing"), 3), (("segment", "head", "5"), 3),
                     (("segment", "verify", "x"), 3), (("shard",), 2), (("shard", "paint"), 2), (("paint",), 2),
                     (("shard", "ls", "more"), 2), (("shard", "ls", "--records"), 2), (("shard", "describe"), 2),
                     (("shard", "ls", "-o", "xml"), 2), (("shard", "ls", "--nothing"), 2),
                     (("wal", "dump", "--limit", "few"), 2), ((), 2), (("--help",), 0), (("--version",), 0)):
        ctl(*args, rc=rc)
    ctl("shard", "ls", data=missing, rc=3)
    for args in ("verify",), ("repair",), ("repair", "--dry-run"), ("index", "rebuild"):
        for form in "table", "json":
            assert ctl(*args, "-o", form, data=missing, rc=3) == "", args
    assert not os.path.exists(missing)
    with open("/dev/full", "w", encoding="ascii") as full:
        assert subprocess.run([CTL, "--data", DATA, "shard", "ls"], stdout=full, stderr=subprocess.DEVNULL,
                              check=False).returncode == 1


def test_config_check_says_what_the_server_says():
    good, bad = os.path.join(FOLDER, "good.yaml"), os.path.join(FOLDER, "bad.yaml")
    with open(good, "w", encoding="ascii") as f:
        f.write("kafka:\n  listen: 127.0.0.1:9999\n")
    got = {r["key"]: r for r in as_json("config", "check", good)}
    assert got["kafka.listen"]["value"] == "127.0.0.1:9999" and got["kafka.listen"]["from"].endswith("good.yaml:2")
    server = os.path.join(OUT, "bin/weir-server")
    for text, why in (("kafka:\n  lisen: 127.0.0.1:9999\n", b"bad.yaml:2: kafka.lisen"),
                      ("journal:\n  space_urgent: 96\n", b"bad.yaml:2: journal.space_urgent: is above")):
        with open(bad, "w", encoding="ascii") as f:
            f.write(text)
        ours = subprocess.run([CTL, "config", "check", bad], capture_output=True, check=False)
        assert ours.returncode == 1 and why in ours.stderr and not ours.stdout, ours
        theirs = subprocess.run([server, "--config", bad, "--check-config"], capture_output=True, check=False)
        assert theirs.stderr.split(b": ", 1)[1] == ours.stderr.split(b": ", 1)[1]


def test_completion_offers_what_there_is():
    script = f"""source {ROOT}/tools/journal-ctl/completion.bash
    try() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _journal_ctl; echo "${{COMPREPLY[*]}}"; }}
    try {CTL} s
    try {CTL} shard d
    try {CTL} -o js
    try {CTL} --data {DATA} shard describe al
    try {CTL} wal dump --l
    try {CTL} repair --d
    try {CTL} --data {DATA} export al
    try {CTL} export --format k"""
    out = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode().splitlines()
    assert out == ["shard segment stat", "describe", "json jsonl", "alpha/0 alpha/1 alpha/2", "--limit",
                   "--data --dry-run", "alpha/0 alpha/1 alpha/2", "kafka-log"], out


def test_man_page_names_every_option_and_command():
    with open(os.path.join(ROOT, "docs/man/journal-ctl.1"), encoding="ascii") as f:
        page = f.read().replace("\\", "")
    for line in ctl("--help").splitlines():
        if line.startswith("  "):
            for word in line[2:27].strip().split():
                assert word.isupper() or word.rstrip(",") in page, line


def churning(data):
    p = subprocess.Popen([WRITER, "churn", data], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert p.stdout.readline() == b"going\n"
    return p


def test_looking_beside_a_writer_at_full_speed_never_sees_damage():
    data = os.path.join(FOLDER, "churn")
    p = churning(data)
    ends, said = {}, []
    for _ in range(LOOKS):
        for args in (("verify",), ("shard", "ls")):
            q = subprocess.run([CTL, "--data", data, "-o", "json", *args], capture_output=True, timeout=120,
                               check=False)
            assert q.returncode in (0, 1), f"{args}: exit {q.returncode}: {q.stdout[-3000:]} {q.stderr}"
            said.append(q.returncode)
            if q.returncode == 1:
                assert b"changes faster" in q.stderr, q.stderr
                continue
            if args[0] == "shard":
                for s in json.loads(q.stdout):
                    assert s["state"] == "ok", s
                    assert s["end"] >= ends.get(s["id"], 0), s  # later views show more
                    ends[s["id"]] = s["end"]
    assert p.poll() is None, "the writer ended"
    assert said.count(0) >= len(said) * 2 // 3, said
    assert sum(ends.values()) > 1000
    p.stdin.close()
    assert p.wait(60) == 0, p.stdout.read()
    ctl("verify", data=data)
    segments = as_json("segment", "ls", data=data)
    assert max(s["id"] & 0xffffffff for s in segments) > 20, "too little was destaged to mean anything"


def test_a_killed_writer_leaves_no_damage():
    data = os.path.join(FOLDER, "killed")
    for _ in range(5):
        shutil.rmtree(data, ignore_errors=True)
        p = churning(data)
        time.sleep(random.random() / 4)  # anywhere
        p.kill()
        p.wait()
        assert as_json("verify", data=data)["damage"] == []
        assert all(s["state"] == "ok" for s in as_json("shard", "ls", data=data))
        p.stdin.close()
        p.stdout.close()
    shutil.rmtree(data)


def test_beside_a_real_server():
    if not os.path.exists(os.path.join(OUT, "bin/weir-server")) or not shutil.which("kcat"):
        return "there is no weir-server or no kcat"
    s = Server().start()
    lines = "".join(f"key{i}:value {i} {'x' * 500}\n" for i in range(RECORDS))
    subprocess.run(["kcat", "-P", "-b", s.address, "-t", "seen", "-K", ":", "-X", "acks=all"], input=lines.encode(),
                   check=True, timeout=60)
    got = as_json("shard", "describe", "seen/0", data=s.data)
    assert (got["shard"]["start"], got["shard"]["end"]) == (0, RECORDS), got["shard"]
    assert got["shard"]["segments"] > 0
    assert as_json("verify", data=s.data)["damage"] == []
    s.stop()
    assert as_json("shard", "describe", "seen/0", data=s.data)["shard"]["end"] == RECORDS
    assert as_json("verify", data=s.data)["damage"] == []
    return None


if __name__ == "__main__":
    rc = run_claims(sys.modules[__name__])
    shutil.rmtree(FOLDER, ignore_errors=True)
    assert not glob.glob(FOLDER)
    sys.exit(rc)
