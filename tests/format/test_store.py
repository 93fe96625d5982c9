#!/usr/bin/python3
"""Stored stores: the golden ones and a fresh one, opened by the journal (store_tool check) and read by
read_store.py, which knows docs/format.md alone. Both must find what the manifest says; and what damage,
a torn tail and a newer version must lead to.

OUT is the build folder (default build/plain)."""
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile

import xxhash
import zstandard

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
GOLDEN = os.path.join(ROOT, "tests/golden/store-v1")
GOLDENS = GOLDEN, os.path.join(ROOT, "tests/golden/store-v2")
TOOL = os.path.join(ROOT, os.environ.get("OUT", "build/plain"), "tests/golden/store_tool")
READER = os.path.join(HERE, "read_store.py")
PAGE = 4096

sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
import read_store  # noqa: E402

scratch = tempfile.mkdtemp(dir=os.environ.get("TMPDIR"))
SEED = int(os.environ.get("STORE_SEED", "1"))


def unpack(name, rows=True, golden=GOLDEN):
    folder = os.path.join(scratch, name)
    with open(os.path.join(golden, "store.tar.zst"), "rb") as f:
        with zstandard.ZstdDecompressor().stream_reader(f) as raw:
            with tarfile.open(fileobj=raw, mode="r|") as tar:
                tar.extractall(folder)
    if not rows:
        shutil.rmtree(os.path.join(folder, "rows"))
    return folder


def tool(*args):
    return subprocess.run([TOOL, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, timeout=120)


def journal_holds(folder, manifest):
    r = tool("check", folder, manifest)
    assert r.returncode == 0, f"store_tool check: exit {r.returncode}\n{r.stdout}"


def expected(manifest):
    """The lines that read_store.py knows of, too."""
    with open(manifest) as f:
        return [line.rstrip("\n") for line in f if line.split()[0] not in ("deleted", "producer")]


def document_holds(folder, manifest):
    r = subprocess.run([sys.executable, READER, folder], capture_output=True, text=True, check=False)
    assert r.returncode == 0, f"read_store.py: exit {r.returncode}\n{r.stderr}"
    got, want = r.stdout.splitlines(), expected(manifest)
    assert got == want, "differ: " + "; ".join([a + " / " + b for a, b in zip(got, want) if a != b][:3])


def read(folder):
    """(lines, problems), or what it was refused for."""
    try:
        store = read_store.Store(folder)
        return store.lines(), store.problems
    except (read_store.Refused, read_store.Damage) as e:
        return None, [str(e)]


def change(folder, name, at, fn, size=1):
    with open(os.path.join(folder, name), "r+b") as f:
        f.seek(at)
        data = fn(f.read(size))
        f.seek(at)
        f.write(data)


def flip(folder, name, at, bit):
    change(folder, name, at, lambda b: bytes([b[0] ^ 1 << bit]))


def resealed(page, version):
    """The page with another version and a right sum."""
    page = page[:4] + struct.pack("<H", version) + page[6:]
    seed = version if page[:4] in (b"WSUP", b"WFTR") and version > 1 else 0
    return page[:8] + struct.pack("<Q", xxhash.xxh3_64_intdigest(page[16:], seed)) + page[16:]


GOLDEN_MANIFEST = os.path.join(GOLDEN, "manifest.txt")


def each_golden(fn):
    """fn(name, folder of the golden store, its manifest) for each."""
    for golden in GOLDENS:
        fn(os.path.basename(golden), golden, os.path.join(golden, "manifest.txt"))


def test_golden_stores_open_as_they_are():
    each_golden(lambda name, golden, manifest:
                journal_holds(unpack(f"as-it-is-{name}", golden=golden), manifest))


def test_golden_stores_open_without_rows():
    each_golden(lambda name, golden, manifest:
                journal_holds(unpack(f"no-rows-{name}", rows=False, golden=golden), manifest))


def test_golden_stores_are_what_the_document_says():
    each_golden(lambda name, golden, manifest:
                document_holds(unpack(f"document-{name}", rows=False, golden=golden), manifest))


def test_golden_stores_read_the_same_after_they_were_opened():
    def opened(name, golden, manifest):
        folder = unpack(f"opened-{name}", golden=golden)
        for _ in range(3):
            journal_holds(folder, manifest)
            document_holds(folder, manifest)
    each_golden(opened)


def test_golden_stores_are_appended_to_and_then_read():
    def appended(name, golden, golden_manifest, rows):
        folder = unpack(f"appended-{name}-{rows}", rows=rows, golden=golden)
        manifest = os.path.join(scratch, f"appended-{name}-{rows}.txt")
        shutil.copy(golden_manifest, manifest)
        r = tool("append", folder, manifest)
        assert r.returncode == 0, r.stdout
        old, new = set(expected(golden_manifest)), set(expected(manifest))
        gone = {x for x in old - new if x.startswith("batch") and x.split()[1] not in ("22",)}
        assert not gone, f"batches of the old store are missing: {sorted(gone)[:3]}"
        assert len([x for x in new - old if x.startswith("batch")]) > 100
        document_holds(folder, manifest)
        journal_holds(folder, manifest)
        document_holds(folder, manifest)
    for rows in (True, False):
        each_golden(lambda name, golden, manifest, rows=rows: appended(name, golden, manifest, rows))


def test_fresh_store_is_what_the_document_says():
    folder, manifest = os.path.join(scratch, "fresh"), os.path.join(scratch, "fresh.txt")
    r = tool("make", folder, manifest)
    assert r.returncode == 0, r.stdout
    # What is in it is the same whenever it is made.
    # (Bytes and sums of batches may not be: compressors differ. Version 1 had other groups.)
    def shape(path):
        return [x.split()[:4] if x.startswith("batch") else re.sub(r" group \d+", "", x)
                for x in expected(path)]
    assert shape(manifest) == shape(GOLDEN_MANIFEST), "not deterministic"
    document_holds(folder, manifest)
    shutil.copytree(folder, folder + "-no-rows")
    shutil.rmtree(folder + "-no-rows/rows")
    journal_holds(folder + "-no-rows", manifest)
    journal_holds(folder, manifest)


def test_no_flipped_bit_changes_what_is_read_unseen():
    folder = unpack("flips", rows=False)
    rng = random.Random(SEED)
    want, problems = read(folder)
    assert not problems
    tail = read_store.Store(folder).blocks[-1]
    seen = 0
    for n in range(120):
        name = rng.choice(sorted(n for n in os.listdir(folder) if n.startswith("slab")))
        path = os.path.join(folder, name)
        with open(path, "rb") as f:
            data = f.read()
        pages = [at for at in range(0, len(data), PAGE) if any(data[at:at + PAGE])]
        page = rng.choice(pages)
        used = len(data[page:page + PAGE].rstrip(b"\0"))
        at, bit = page + rng.randrange(used), rng.randrange(8)
        flip(folder, name, at, bit)
        got, problems = read(folder)
        in_tail = int(name[5:]) == tail[0] and tail[1] <= at < tail[1] + tail[2]
        assert got == want or problems or in_tail, \
            f"seed {SEED}: {name} byte {at} bit {bit}: other lines, and nothing said"
        seen += bool(problems)
        flip(folder, name, at, bit)
    assert seen >= 10, f"{seen} of 120 flips were seen: they do not hit what is live"
    assert read(folder) == (want, [])


def live_places(store):
    """(slab, byte in its file, bytes) of what is used."""
    for slab, at, size in store.blocks[:-1]:
        yield slab, at, size
        yield slab, at // read_store.UNIT * read_store.UNIT, 128  # extents are of one unit here
    for seg in store.segments():
        for place, log2 in seg["extents"]:
            at = (place & 0xFFFFFFFF) * read_store.UNIT
            yield place >> 32, at, 80
            yield place >> 32, at + PAGE, seg["index_pos"] + seg["index_bytes"]
            yield place >> 32, at + (1 << log2) - PAGE, 200


def test_flipped_bit_may_hide_batches_but_gives_no_other():
    rng = random.Random(SEED)
    places = list(live_places(read_store.Store(unpack("places"))))
    for n in range(30):
        folder = unpack(f"hit-{n}", rows=n % 2 == 0)
        slab, at, size = rng.choice(places)
        name, at, bit = f"slab-{slab:06d}", at + rng.randrange(size), rng.randrange(8)
        flip(folder, name, at, bit)
        where = f"seed {SEED}, try {n}: {name} byte {at} bit {bit}"
        lines, problems = read(folder)
        assert problems, f"{where}: not seen"
        r = tool("check", folder, GOLDEN_MANIFEST)
        assert r.returncode in (0, 1), f"{where}: exit {r.returncode}\n{r.stdout}"
        for bad in ("XXH3 is", "bytes is", "a batch that", "AddressSanitizer", "runtime error"):
            assert bad not in r.stdout, f"{where}:\n{r.stdout}"
        # What our own reader finds, the journal gives, too, unless it refuses the whole store.
        if lines is not None and "store_tool:" not in r.stdout:
            hidden = {tuple(x.split()[:3]) for x in expected(GOLDEN_MANIFEST)} - \
                     {tuple(x.split()[:3]) for x in lines}
            for line in r.stdout.splitlines():
                w = line.split()
                if len(w) == 4 and w[2] == "missing:":
                    assert ("batch", w[1][:-1], w[3]) in hidden, f"{where}: {line}"
        shutil.rmtree(folder)


def test_torn_tail_is_cut_alike():
    folder = unpack("torn", rows=False)
    before = read(folder)[0]
    slab, at, size = read_store.Store(folder).blocks[-1]
    flip(folder, f"slab-{slab:06d}", at + size // 2, 3)
    lines, problems = read(folder)
    assert not problems, problems
    manifest = os.path.join(scratch, "torn.txt")
    with open(manifest, "w") as f:
        f.write("\n".join(lines) + "\n")
    assert len(read_store.Store(folder).blocks) > 1 and before
    journal_holds(folder, manifest)


def test_catalogue_that_ends_too_early_is_refused_alike():
    folder = unpack("torn-more", rows=False)
    store = read_store.Store(folder)
    # Without a block of the last incarnation all after it looks torn. But the superblock knows better.
    for slab, at, size in store.blocks[store.blocks_of_last:]:
        change(folder, f"slab-{slab:06d}", at, lambda b: bytes(len(b)), size)
    lines, problems = read(folder)
    assert lines is None and "the catalogue ends at" in problems[0], problems
    r = tool("check", folder, GOLDEN_MANIFEST)
    assert r.returncode == 1 and "the catalogue ends at" in r.stdout, r.stdout


def test_rot_is_told_and_the_rest_is_read():
    folder = unpack("rot", rows=False)
    store = read_store.Store(folder)
    want = set(store.lines())
    slab, at, size = store.blocks[len(store.blocks) // 2]
    flip(folder, f"slab-{slab:06d}", at + 200, 0)
    lines, problems = read(folder)
    assert any("rot from LSN" in p for p in problems), problems
    if lines is not None:
        batches = {x for x in lines if x.startswith("batch")}
        assert batches, "nothing is left"
        assert batches <= want, "batches that were never there"
    r = tool("check", folder, GOLDEN_MANIFEST)
    assert r.returncode == 1 and ("wal.rot" in r.stdout or "CORRUPT" in r.stdout), r.stdout


def test_damaged_index_is_made_anew():
    folder = unpack("index", rows=False)
    store = read_store.Store(folder)
    n = 0
    for seg in store.segments():
        place, log2 = seg["extents"][0]
        if len(seg["extents"]) == 1 and seg["group"] != 0:
            at = (place & 0xFFFFFFFF) * read_store.UNIT + PAGE + seg["index_pos"]
            flip(folder, f"slab-{place >> 32:06d}", at + 70, 1)
            n += 1
    assert n >= 3
    lines, problems = read(folder)
    assert lines == expected(GOLDEN_MANIFEST)
    assert len(problems) == n and all("index" in p for p in problems), problems
    journal_holds(folder, GOLDEN_MANIFEST)


def refused(folder):
    lines, problems = read(folder)
    assert lines is None and "newer" in problems[0], problems
    r = tool("check", folder, GOLDEN_MANIFEST)
    assert r.returncode == 1 and "newer version" in r.stdout, r.stdout


def test_newer_superblock_is_refused_even_beside_older_copies():
    folder = unpack("newer-super")
    for copy in (0, 1):
        change(folder, "superblock", copy * 16384, lambda b: resealed(b, 3), 16384)
    refused(folder)


def test_one_superblock_copy_alone_of_another_version_is_damage():
    folder = unpack("one-newer-super")
    change(folder, "superblock", 0, lambda b: resealed(b, 3), 16384)
    lines, problems = read(folder)
    assert lines == expected(GOLDEN_MANIFEST) and len(problems) == 1


def test_newer_slab_is_refused():
    folder = unpack("newer-slab")
    change(folder, "slab-000001", 0, lambda b: resealed(b, 2), PAGE)
    refused(folder)


def test_superblock_survives_two_bad_copies_and_not_four():
    folder = unpack("copies")
    with open(os.path.join(folder, "superblock"), "rb") as f:
        data = f.read()
    generations = [struct.unpack_from("<Q", data, i * 16384 + 32)[0] for i in range(4)]
    older = [i for i in range(4) if generations[i] != max(generations)]
    assert len(older) == 2
    for i in older:
        flip(folder, "superblock", i * 16384 + 5000, 2)
    lines, problems = read(folder)
    assert lines == expected(GOLDEN_MANIFEST) and len(problems) == 2
    journal_holds(folder, GOLDEN_MANIFEST)
    change(folder, "superblock", 0, lambda b: bytes(x ^ 1 for x in b), 65536)
    assert read(folder)[0] is None
    r = tool("check", folder, GOLDEN_MANIFEST)
    assert r.returncode == 1 and "no valid copy" in r.stdout, r.stdout


def main():
    passed = failed = 0
    for name, fn in sorted(globals().items()):
        if not name.startswith("test_"):
            continue
        try:
            fn()
            passed += 1
        except (AssertionError, subprocess.SubprocessError, OSError, LookupError, ValueError,
                struct.error) as e:
            failed += 1
            print(f"{name}: {type(e).__name__}: {e}")
    shutil.rmtree(scratch, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
