#!/usr/bin/python3
"""read_store.py FOLDER: prints what a store holds, without its rows/ folder.

Written from docs/format.md alone, so that the document is known to be enough; the numbers in brackets
are its sections. One line each, sorted by number:

    shard NUMBER class CLASS group GROUP start OFFSET end OFFSET
    batch SHARD BASE OFFSETS BYTES XXH3          every live batch; XXH3 of its bytes, in hex
    hole SHARD START END
    row KEY VALUE                                of the doors, in hex
    max_shard NUMBER

What is damaged is said on stderr, with its place. Exit 0: all sums are right; 5: damage, and the rest
is printed; 1: refused. A torn tail is not damage.

    read_store.py --pieces FOLDER INTO           writes every structure into a file of its own
"""
import glob
import os
import re
import struct
import sys

import lz4.frame
import xxhash
import zstandard

PAGE, UNIT, NONE = 4096, 65536, (1 << 64) - 1
EXTENT_WAL, EXTENT_SEGMENT = 1, 2
CATALOGUE = 1


class Damage(Exception):
    pass


class Refused(Exception):
    pass


def xxh3(data, seed=0):
    return xxhash.xxh3_64_intdigest(data, seed)


def crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


CRC_TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for b in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ b) & 255]
    return crc ^ 0xFFFFFFFF


def u32(data, at):
    return struct.unpack_from("<I", data, at)[0]


def u64(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def sealed(data, magic, what):
    """What superblock, slab, extent, index and footer have in common [1]."""
    version = struct.unpack_from("<H", data, 4)[0]
    known = 2 if magic in (b"WSUP", b"WFTR", b"WIDX") else 1
    seed = version if known == 2 and version > 1 else 0
    if data[:4] != magic or u64(data, 8) != xxh3(data[16:], seed):
        raise Damage(f"{what}: bad magic or sum")
    if version > known:
        raise Refused(f"{what}: version {version} is newer than this reader")
    if version == 0 or (magic != b"WEXT" and data[6:8] != b"\0\0"):
        raise Damage(f"{what}: version {version}, or what stands beside it")


# --- RecordBatch [8] ---

class Batch:
    def __init__(self, data, at, left):
        if left < 61:
            raise Damage("batch: short")
        self.base, length = struct.unpack_from(">qi", data, at)
        self.bytes = length + 12
        if self.bytes < 61 or self.bytes > left or data[at + 16] != 2:
            raise Damage("batch: bad length or magic")
        self.data = bytes(data[at:at + self.bytes])
        self.epoch, = struct.unpack_from(">i", self.data, 12)
        crc, self.attributes, delta = struct.unpack_from(">IHi", self.data, 17)
        self.offsets = delta + 1
        if crc != crc32c(self.data[21:]):
            raise Damage(f"batch at offset {self.base}: bad CRC")
        if self.offsets < 1:
            raise Damage(f"batch at offset {self.base}: no offsets")

    def body(self):
        codec, body = self.attributes & 7, self.data[61:]
        if codec == 0:
            return body
        if codec == 3:
            return lz4.frame.decompress(body)
        if codec == 4:
            return zstandard.ZstdDecompressor().decompressobj().decompress(body)
        raise Refused(f"codec {codec} in a catalogue batch")

    def records(self):
        count, = struct.unpack_from(">i", self.data, 57)
        body, at = self.body(), 0
        for _ in range(count):
            size, at = varint(body, at)
            end = at + size
            at += 1
            _, at = varint(body, at)
            _, at = varint(body, at)
            key, at = field(body, at)
            value, at = field(body, at)
            yield key, value
            at = end


def varint(data, at):
    shift = value = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value >> 1 ^ -(value & 1), at


def field(data, at):
    size, at = varint(data, at)
    return (None, at) if size < 0 else (data[at:at + size], at + size)


class Store:
    def __init__(self, folder, pieces=None):
        self.folder, self.pieces = folder, pieces
        self.n_pieces = {}
        self.problems = []
        self.slabs = {}
        self.superblock()
        self.open_slabs()
        self.rows = {}
        self.groups = {}  # group -> (last entry, hash of its frame) in the WAL so far
        self.cuts = {}  # group -> (first entry, bytes) of the segment that its next frame is in
        self.wal_batches = []  # (shard, batch) in the order of the WAL
        self.direct_lost = []  # (segment, what is wrong), of direct batches
        self.blocks = []  # (slab, byte in its file, bytes) of each valid one
        self.wal()
        self.catalogue()

    def problem(self, text):
        self.problems.append(text)

    def piece(self, kind, data):
        if self.pieces:
            n = self.n_pieces[kind] = self.n_pieces.get(kind, 0) + 1
            with open(os.path.join(self.pieces, f"{kind}-{n:03d}"), "wb") as f:
                f.write(data)

    # --- superblock [3] ---

    def superblock(self):
        path = os.path.join(self.folder, "superblock")
        with open(path, "rb") as f:
            data = f.read()
        best, newer = None, 0
        for i in range(4):
            copy = data[i * 16384:(i + 1) * 16384]
            try:
                if len(copy) < 16384:
                    raise Damage("short")
                sealed(copy, b"WSUP", f"superblock copy {i}")
            except Refused as e:
                newer += 1
                if newer == 2:
                    raise
                self.problem(str(e))
                continue
            except Damage as e:
                self.problem(str(e))
                continue
            self.piece("super", copy)
            if best is None or u64(copy, 32) > u64(best, 32):
                best = copy
        if best is None:
            raise Refused("superblock: no valid copy")
        self.store = best[16:32]
        self.ckpt_lsn, self.catalogue_start = u64(best, 48), u64(best, 56)
        self.log2, n = u32(best, 64), u32(best, 68)
        self.catalogue_end = u64(best, 88)
        self.set, (self.device, devices) = best[96:112], struct.unpack_from("<2H", best, 112)
        self.n_devices = devices or 1
        if self.device >= self.n_devices or self.n_devices > 15 or any(best[116:128]):
            raise Damage("superblock: its place in the set")
        alone = self.set == bytes(16)
        if alone != (self.n_devices == 1) or (self.device == 0 and not alone and self.set != self.store):
            self.problem("superblock: set")
        self.incarnations = [struct.unpack_from("<6Q", best, 128 + 64 * i) for i in range(n)]

    # --- slabs and extents [4] ---

    def open_slabs(self):
        for path in sorted(glob.glob(os.path.join(self.folder, "slab-*"))):
            m = re.fullmatch(r"slab-([0-9]{6})", os.path.basename(path))
            if not m:
                continue
            with open(path, "rb") as f:
                data = f.read()
            sealed(data[:PAGE], b"WSLB", path)
            self.piece("slab", data[:PAGE])
            number, size = u32(data, 32), u64(data, 40)
            if data[16:32] != self.store or number != int(m.group(1)) or size > len(data):
                raise Refused(f"{path}: not a slab of this store")
            self.slabs[number] = data[:size]

    def extent(self, place, log2):
        """The bytes of an extent."""
        data, at = self.slabs.get(place >> 32), (place & 0xFFFFFFFF) * UNIT
        if not 16 <= log2 <= 30 or data is None or at + (1 << log2) > len(data):
            raise Damage(f"place {place:#x}: no such extent")
        return data[at:at + (1 << log2)]

    def extent_head(self, page, place, kind):
        sealed(page, b"WEXT", f"extent at {place:#x}")
        if page[16:32] != self.store or u64(page, 32) != place or \
                struct.unpack_from("<H", page, 6)[0] != kind:
            raise Damage(f"extent at {place:#x}: of another use")

    # --- the WAL [5, 6] ---

    def block(self, data, at, incarnation, salt):
        """A block whose own lsn is taken as given, or None."""
        if len(data) - at < 128 or data[at:at + 8] != b"WBLK\x01\0\0\0":
            return None
        head = struct.unpack_from("<Q16s4Q2IQ4IqQ", data, at + 8)
        (hash_, store, inc, lsn, prev_hash, durable, size, body, next_place, frames, prev, placements, flags,
         _, _) = head
        end = 128 + 48 * frames + 24 * prev + 40 * placements
        if size % PAGE or size == 0 or at + size > len(data) or body > size or end > body:
            return None
        block = data[at:at + size]
        if store != self.store or inc != incarnation or xxh3(block[16:end], salt ^ lsn) != hash_:
            return None
        found = []
        for i in range(frames):
            group, epoch, entry, pos, length, _, _, frame_hash = \
                struct.unpack_from("<3Q4IQ", block, 128 + 48 * i)
            frame = block[pos:pos + length]
            if pos < end or pos % 8 or pos + length > body or any(block[end:pos]) or \
                    xxh3(frame) != frame_hash:
                return None
            found.append((group, epoch, entry, frame_hash, frame))
            end = pos + length
        if any(block[end:]):
            return None
        self.flags = flags
        at = 128 + 48 * frames + 24 * prev
        placed = [struct.unpack_from("<4QI", block, at + 40 * i) for i in range(placements)]
        return {"lsn": lsn, "hash": hash_, "prev_hash": prev_hash, "next": next_place,
                "durable": durable, "frames": found, "bytes": block, "end": lsn + size,
                "batches": [p for p in placed if p[0]], "extents": [p for p in placed if not p[0]]}

    # --- direct batches [5, 6] ---

    def direct_bytes(self, block, segment, pos, size):
        """Bytes of an open segment, by the extents that the block names."""
        out = b""
        while len(out) < size:
            for _, place, of, first, log2 in block["extents"]:
                at = pos + len(out) - first
                if of == segment and 0 <= at < (1 << log2) - PAGE:
                    out += self.extent(place, log2)[PAGE + at:][:size - len(out)]
                    break
            else:
                raise Damage(f"block at {block['lsn']}: no extent has byte {pos} of {segment:#x}")
        return out

    @staticmethod
    def items(frame):
        for i in range(u32(frame, 56)):
            item = struct.unpack_from("<2Q2IB", frame, 80 + 40 * i)
            yield item + (u64(frame, 80 + 40 * i + 32),)

    def payloads_there(self, block):
        """Whether every direct batch of the block is where the block says."""
        placed = iter(block["batches"])
        for frame in (f[4] for f in block["frames"]):
            for _, _, _, size, kind, hash_ in self.items(frame):
                if kind == 1:
                    _, _, segment, pos, _ = next(placed)
                    try:
                        if xxh3(self.direct_bytes(block, segment, pos, size)) != hash_:
                            return False
                    except Damage:
                        return False
        return True

    def is_proven(self, block, data, at, inc, salt, first, end_lsn, next_place):
        """Whether anything says that this block was flushed: the superblock, or what follows it."""
        if end_lsn != NONE and block["end"] <= end_lsn:
            return True
        if self.later(data, at + len(block["bytes"]), inc, salt, block["end"] - 1, first) is not None:
            return True
        said, pieces = len(self.problems), self.pieces
        self.pieces = None
        follows = self.enter(block["next"] if block["next"] != NONE else next_place, inc, salt,
                             block["end"])
        self.pieces = pieces
        del self.problems[said:]
        return follows is not None

    def enter(self, place, inc, salt, x):
        """(first_lsn, next place, bytes, place) when the extent continues the log at x or later, or None."""
        if place == NONE:
            return None
        data = self.extent(place, self.log2)
        try:
            self.extent_head(data[:PAGE], place, EXTENT_WAL)
            if u64(data, 48) == inc and u64(data, 56) == salt and u64(data, 72) >= x:
                self.piece("extent", data[:PAGE])
                return u64(data, 72), u64(data, 96), data, place
        except (Damage, Refused):  # the superblock's version speaks for the WAL
            pass
        for at in range(PAGE, len(data), PAGE):
            b = self.block(data, at, inc, salt)
            if b and b["lsn"] >= x and b["lsn"] - (at - PAGE) >= x:
                self.problem(f"extent at {place:#x}: header damaged")
                return b["lsn"] - (at - PAGE), b["next"], data, place
        return None

    def rot(self, x, end):
        if end > x:
            self.problem(f"WAL: rot from LSN {x} to {end}")
            self.groups, self.cuts = {}, {}  # what follows may miss entries
        return end

    def wal(self):
        for incarnation in self.incarnations:
            self.blocks_of_last = len(self.blocks)
            self.incarnation(*incarnation)

    def incarnation(self, inc, salt, first_lsn, end_lsn, end_hash, place):
        x, before = max(first_lsn, self.ckpt_lsn), None
        if end_lsn != NONE and end_lsn <= x:
            return
        entered = self.enter(place, inc, salt, x)
        while entered:
            first, next_place, data, place = entered
            if first > x:
                x, before = self.rot(x, first), None
            while end_lsn == NONE or x < end_lsn:
                at = PAGE + x - first
                b = self.block(data, at, inc, salt) if at < len(data) else None
                if b and b["lsn"] == x and b["batches"] and not self.payloads_there(b) and \
                        not self.is_proven(b, data, at, inc, salt, first, end_lsn, next_place):
                    break  # the torn tail: its batches never came
                if b and b["lsn"] == x and (before is None or b["prev_hash"] == before):
                    self.piece("block", b["bytes"])
                    self.blocks.append((place >> 32, (place & 0xFFFFFFFF) * UNIT + at, len(b["bytes"])))
                    self.frames(b)
                    x, before = x + len(b["bytes"]), b["hash"]
                    next_place = b["next"] if b["next"] != NONE else next_place
                    continue
                later = self.later(data, at + PAGE, inc, salt, x, first)
                if later is None:
                    break
                x, before = self.rot(x, later), None
            if end_lsn != NONE and x >= end_lsn:
                break
            entered = self.enter(next_place, inc, salt, x)
            if not entered:
                x = self.rot(x, self.stray(data, inc, salt, x, first))
        if end_lsn != NONE and x < end_lsn:
            self.rot(x, end_lsn)
        elif end_lsn != NONE and before not in (None, end_hash):
            self.problem(f"WAL: incarnation {inc} ends with another block than the superblock says")

    def later(self, data, at, inc, salt, x, first):
        for at in range(at, len(data), PAGE):
            b = self.block(data, at, inc, salt)
            if b and b["lsn"] > x and b["lsn"] - (at - PAGE) == first:
                return b["lsn"]
        return None

    def stray(self, data, inc, salt, x, first):
        """Up to where a block that is not at its place says that all was durable; x: none says more."""
        for at in range(PAGE, len(data), PAGE):
            b = self.block(data, at, inc, salt)
            if b and b["lsn"] - (at - PAGE) != first and b["durable"] > x and b["lsn"] < first + len(data) - PAGE:
                return b["durable"]
        return x

    # --- frames [7] ---

    def frames(self, block):
        placed = iter(block["batches"])
        for group, epoch, entry, hash_, frame in block["frames"]:
            self.piece("frame", frame)
            if frame[:4] != b"WFRM":
                raise Damage("frame: bad magic")
            version, flags = struct.unpack_from("<2H", frame, 4)
            if version != 1:
                raise Refused(f"frame: version {version}")
            f_group, f_epoch, f_entry, prev_hash = struct.unpack_from("<4Q", frame, 8)
            n_items, size = struct.unpack_from("<2I", frame, 56)
            if (f_group, f_epoch, f_entry, size) != (group, epoch, entry, len(frame)):
                self.problem(f"group {group} entry {entry}: frame and directory differ")
            last = self.groups.get(group)
            if last and not flags & 1 and last != (entry - 1, prev_hash):
                self.problem(f"group {group} entry {entry}: does not follow entry {last[0]}")
            self.groups[group] = entry, hash_
            self.segment_follow(frame, group, entry, flags, n_items)
            at = 80 + 40 * n_items
            for i in range(n_items):
                shard, base, offsets, length, kind = struct.unpack_from("<2Q2IB", frame, 80 + 40 * i)
                if kind > 1:
                    raise Refused(f"group {group} entry {entry}: item of kind {kind}")
                if kind == 1:
                    self.direct(block, next(placed, None), frame, 80 + 40 * i, at)
                    at += 61
                    continue
                b = Batch(frame, at, length)
                if (b.base, b.offsets, b.bytes, b.epoch) != (base, offsets, length, epoch):
                    self.problem(f"group {group} entry {entry}: item {i} is not its batch")
                self.wal_batches.append((shard, b))
                at += length
            if (at + 7) // 8 * 8 != size or any(frame[at:]):
                self.problem(f"group {group} entry {entry}: wrong size")

    def segment_follow(self, frame, group, entry, flags, n_items):
        """Every frame says where its segment began; that must follow from the frames before."""
        said = struct.unpack_from("<2Q", frame, 64)
        want = self.cuts.pop(group, said)
        if said[0] == 0:
            return  # written before the log cut segments
        if want != said:
            self.problem(f"group {group} entry {entry}: segment {said}, not {want}")
        bytes_ = sum(u32(frame, 80 + 40 * i + 20) for i in range(n_items))
        self.cuts[group] = (entry + 1, 0) if flags & 2 else (said[0], said[1] + bytes_)

    def direct(self, block, placement, frame, item, at):
        shard, base, offsets, length, _ = struct.unpack_from("<2Q2IB", frame, item)
        name = f"shard {shard} offset {base}"
        if placement is None or (placement[0], placement[1], placement[4]) != (shard, base, length):
            self.problem(f"{name}: the block does not say where it is")
            return
        try:
            data = self.direct_bytes(block, placement[2], placement[3], length)
            if xxh3(data) != u64(frame, item + 32):
                raise Damage("its hash is another")
            b = Batch(data, 0, length)
            if (b.base, b.offsets, b.bytes) != (base, offsets, length) or \
                    data[:61] != frame[at:at + 61]:
                raise Damage("it is not what the frame says")
        except Damage as e:
            self.direct_lost.append((placement[2], f"{name}: {e}"))
            return
        self.wal_batches.append((shard, b))

    # --- segments [9] ---

    def rooms(self, extents, group, segment):
        """The bytes of a segment."""
        out, pos = [], 0
        for i, (place, log2) in enumerate(extents):
            data = self.extent(place, log2)
            try:
                self.extent_head(data[:PAGE], place, EXTENT_SEGMENT)
                head = struct.unpack_from("<2Q2IQ", data, 48)
                if head not in ((group, segment, i, len(extents), pos), (group, segment, i, 0, pos)):
                    raise Damage(f"extent at {place:#x}: not part {i} of segment {segment:#x}")
                self.piece("extent", data[:PAGE])
            except Damage as e:
                self.problem(str(e))  # the row or footer that led here says where the bytes are
            out.append(data[PAGE:])
            pos += len(data) - PAGE
        return b"".join(out)

    def footer(self, page):
        sealed(page, b"WFTR", "footer")
        if page[16:32] != self.store:
            raise Damage("footer: of another store")
        f = dict(zip(("group", "segment", "first_entry", "last_entry", "data_bytes", "index_pos",
                      "index_bytes", "n_batches", "n_offsets", "min_ts", "max_ts"),
                     struct.unpack_from("<9Q2q", page, 32)))
        f["identity"] = page[120:136]
        f["extents"] = [struct.unpack_from("<QI", page, 152 + 16 * i) for i in range(u32(page, 144))]
        f["direct_bytes"], f["sorted_pos"], f["segment_first"], f["flags"] = \
            struct.unpack_from("<3QI", page, 3992)
        f["version"], = struct.unpack_from("<H", page, 4)
        return f

    def stretches(self, index, n_runs, data, seg):
        """Each has a sum of its own, from version 2 of the index on."""
        version, = struct.unpack_from("<H", index, 4)
        for i in range(n_runs):
            pos, size = struct.unpack_from("<2Q", index, 64 + 72 * i + 24)
            n, first = struct.unpack_from("<2I", index, 64 + 72 * i + 44)
            at = [struct.unpack_from("<QII", index, 64 + 72 * n_runs + 24 * (first + k))[1:]
                  for k in range(n)]
            for (start, want), end in zip(at, [x[0] for x in at[1:]] + [size]):
                if want != (xxh3(data[pos + start:pos + end]) & 0xFFFFFFFF if version > 1 else 0):
                    self.problem(f"segment {seg['segment']:#x}: the bytes at {pos + start} are not what was written")

    def runs(self, data, seg):
        """[(shard, base, end, pos, bytes, xxh3 or None)] from the index, else from the runs' headers."""
        index = data[seg["index_pos"]:seg["index_pos"] + seg["index_bytes"]]
        try:
            sealed(index, b"WIDX", f"index of segment {seg['segment']:#x}")
            if u64(index, 16) != seg["segment"]:
                raise Damage(f"index of segment {seg['segment']:#x}: of another")
            self.piece("index", index)
            n_runs = u32(index, 24)
            self.stretches(index, n_runs, data, seg)
            return [struct.unpack_from("<5Q", index, 64 + 72 * i) + (u64(index, 64 + 72 * i + 64),)
                    for i in range(n_runs)]
        except Damage as e:
            self.problem(str(e))
        runs = []
        for start, end, gaps in ((0, seg["direct_bytes"], True),
                                 (seg["sorted_pos"], seg["data_bytes"], False)):
            pos = start
            while pos < end:
                head = data[pos:pos + 40]
                if head[:4] == b"WRUN" and u64(head, 32) == xxh3(head[:32], seg["segment"]):
                    shard, base, size = struct.unpack_from("<3Q", head, 8)
                    runs.append((shard, base, None, pos + 40, size, None))
                    pos += 40 + size
                elif gaps:
                    pos = (pos // PAGE + 1) * PAGE
                else:
                    break
        return sorted(runs)

    def run_batches(self, data, seg, run):
        shard, base, end, pos, size, hash_ = run
        head = data[pos - 40:pos]
        if head[:4] != b"WRUN" or u64(head, 32) != xxh3(head[:32], seg["segment"]) or \
                struct.unpack_from("<3Q", head, 8) != (shard, base, size):
            self.problem(f"segment {seg['segment']:#x}: run header at {pos - 40}")
        self.piece("run", head + data[pos:pos + min(size, 8192)])
        if hash_ is not None and xxh3(data[pos:pos + size]) != hash_:
            raise Damage(f"segment {seg['segment']:#x}: run of shard {shard} from offset {base}")
        batches, at, next_ = [], pos, base
        while at < pos + size:
            b = Batch(data, at, pos + size - at)
            if b.base != next_:
                raise Damage(f"segment {seg['segment']:#x}: shard {shard}: offset {b.base}")
            batches.append(b)
            next_ += b.offsets
            at += b.bytes
        if end is not None and next_ != end:
            raise Damage(f"segment {seg['segment']:#x}: shard {shard}: run ends at {next_}")
        return batches

    # --- the catalogue [10, 12] ---

    def found_segments(self):
        """Footers of the catalogue's segments, found by looking at every unit."""
        for number, slab in self.slabs.items():
            for unit in range(1, len(slab) // UNIT):
                place, page = number << 32 | unit, slab[unit * UNIT:unit * UNIT + PAGE]
                try:
                    self.extent_head(page, place, EXTENT_SEGMENT)
                    group, segment, index, n = struct.unpack_from("<2Q2I", page, 48)
                    if group != 0 or index + 1 != n:
                        continue
                    f = self.footer(self.extent(place, u32(page, 40))[-PAGE:])
                except (Damage, Refused):
                    continue
                if f["group"] == 0 and f["segment"] == segment:
                    yield f

    def catalogue_batches(self):
        """Of the segments that were found. A stale one may be damaged: only what is missing counts."""
        said = len(self.problems)
        found = []
        for f in self.found_segments():
            try:
                data = self.rooms(f["extents"], 0, f["segment"])
                for run in self.runs(data, f):
                    if run[0] == CATALOGUE:
                        found += self.run_batches(data, f, run)
            except Damage:
                continue
        del self.problems[said:]
        return sorted(found, key=lambda b: b.base)

    def catalogue(self):
        next_ = self.catalogue_start
        batches = self.catalogue_batches()
        for b in batches + [b for shard, b in self.wal_batches if shard == CATALOGUE]:
            if b.base != next_:
                continue
            next_ += b.offsets
            for key, value in b.records():
                self.piece("row", bytes([len(key) & 255]) + key + (value or b""))
                if value is None:
                    self.rows.pop(key, None)
                else:
                    self.rows[key] = value
        if next_ < self.catalogue_end:
            raise Refused(f"the catalogue ends at {next_}, not at {self.catalogue_end}")

    def table(self, letter):
        """(numbers of the key, fields of the value) of each row."""
        for key in sorted(self.rows):
            value = self.rows[key]
            if key[:1] == letter and letter != b"A":
                if value[0] not in {b"M": (1, 2, 3), b"S": (1, 2), b"G": (1, 2)}.get(letter, (1,)):
                    raise Refused(f"row {key.hex()}: version {value[0]}")
                self.version = value[0]
                yield struct.unpack(f">{len(key) // 8}Q", key[1:]), value[1:]

    # --- live batches [12] ---

    def segments(self):
        for (number,), value in self.table(b"M"):
            seg = dict(zip(("group", "first_entry", "last_entry", "data_bytes", "index_pos",
                            "index_bytes", "n_batches", "min_ts", "max_ts", "identity", "created"),
                           struct.unpack_from("<7Q2q16sq", value, 3)))
            n, = struct.unpack_from("<H", value, 1)
            seg["segment"], seg["version"] = number, min(self.version, 2)
            seg["direct_bytes"], seg["sorted_pos"], at = 0, 0, 99
            seg["segment_first"], seg["flags"] = 0, value[0] if self.version == 3 else 0
            if self.version >= 2:
                seg["direct_bytes"], seg["sorted_pos"] = struct.unpack_from("<2Q", value, at)
                at += 16
            if self.version == 3:
                seg["segment_first"] = u64(value, at)
                at += 8
            seg["extents"] = [struct.unpack_from("<QI", value, at + 12 * i) for i in range(n)]
            if len(value) != at + 12 * n:
                raise Damage(f"row of segment {number:#x}: wrong length")
            yield seg

    def segment_batches(self, seg):
        name = f"segment {seg['segment']:#x}"
        data = self.rooms(seg["extents"], seg["group"], seg["segment"])
        try:
            self.piece("footer", data[-PAGE:])
            f = self.footer(data[-PAGE:])
            for key in f:
                if key in seg and f[key] != seg[key]:
                    raise Damage(f"{name}: footer and row differ in {key}")
        except Damage as e:
            self.problem(f"{name}: {e}")
        if any(data[seg["data_bytes"]:seg["index_pos"]]):
            self.problem(f"{name}: what lies between data and index is not zero")
        identity, n = xxhash.xxh3_128(), 0
        for run in self.runs(data, seg):
            try:
                batches = self.run_batches(data, seg, run)
            except Damage as e:
                self.problem(str(e))
                continue
            for b in batches:
                identity.update(struct.pack("<Q", run[0]))
                identity.update(b.data if seg["version"] == 1 else struct.pack("<Q", xxh3(b.data)))
                n += 1
            if batches:
                yield run[0], batches
        if n != seg["n_batches"] or identity.digest() != seg["identity"]:
            self.problem(f"{name}: identity")

    def contents(self):
        """shards: {number: row}, holes: {shard: [(start, end)]}, batches: {shard: [Batch]}."""
        shards = {n: struct.unpack("<3B2Qq", v[:27]) for (n,), v in self.table(b"S")}
        holes, all_ = {}, {n: {} for n in shards}
        for (shard, start), v in self.table(b"H"):
            holes.setdefault(shard, []).append((start, u64(v, 7)))
        taken = {n: [] for n in shards}  # runs, each (base, end)
        segments = sorted(self.segments(), key=lambda seg: -seg["segment"])  # the newest holds
        sources = [p for seg in segments for p in self.segment_batches(seg)]
        sealed_ = {seg["segment"] for seg in segments}
        for segment, text in self.direct_lost:
            if segment not in sealed_:  # what a sealed one lacks is said there
                self.problem(text)
        for shard, batches in sources:
            base, end = batches[0].base, batches[-1].base + batches[-1].offsets
            if shard not in shards or any(base < e and b < end for b, e in taken[shard]):
                continue
            taken[shard].append((base, end))
            all_[shard].update((b.base, b) for b in batches)
        for shard, b in self.wal_batches:
            if shard in shards and not any(s <= b.base < e for s, e in taken[shard]):
                have = all_[shard].setdefault(b.base, b)
                if have.data != b.data:
                    self.problem(f"shard {shard} offset {b.base}: two batches")
        return shards, holes, {n: [all_[n][base] for base in sorted(all_[n])] for n in shards}

    def intents(self):
        """What other devices are owed: (serial, device, [(operation, kind, class, shard, policy)])."""
        out = []
        for (serial, device), v in self.table(b"I"):
            at, changes = 7, []
            if self.device != 0 or device == 0 or device >= self.n_devices:
                raise Damage(f"intent {serial} of device {device}")
            for _ in range(u32(v, 3)):
                op, kind, class_, has, shard = struct.unpack_from("<4BQ", v, at)
                policy = struct.unpack_from("<I4q", v, at + 12) if has == 1 else None
                at += 48 if has == 1 else 12
                if op not in (1, 2, 3) or has > 1 or shard >> 56 != device:
                    raise Damage(f"intent {serial} of device {device}")
                changes.append((op, kind, class_, shard, policy))
            if at != len(v):
                raise Damage(f"intent {serial} of device {device}")
            out.append((serial, device, changes))
        return out

    def lines(self):
        shards, holes, batches = self.contents()
        out = []
        for n in sorted(shards):
            _, class_, _, group, start, _ = shards[n]
            lost = holes.get(n, [])
            ends = [b.base + b.offsets for b in batches[n]] + [end for _, end in lost]
            end = max([start] + ends)
            out.append(f"shard {n} class {class_} group {group} start {start} end {end}")
            out += [f"hole {n} {a} {b}" for a, b in lost]
            at = start
            for b in batches[n]:
                if b.base + b.offsets <= start:
                    continue
                if b.base > at and not any(s <= at and b.base <= e for s, e in lost):
                    self.problem(f"shard {n}: offsets {at} to {b.base} are not there")
                at = b.base + b.offsets
                out.append(f"batch {n} {b.base} {b.offsets} {b.bytes} {xxh3(b.data):016x}")
        for key in sorted(k for k in self.rows if k[:1] == b"A"):
            out.append(f"row {key[1:].hex()} {self.rows[key].hex()}")
        for serial, device, changes in self.intents():
            out += [f"owed {serial} {device} {op} {shard}" for op, _, _, shard, _ in changes]
        least = (self.device << 56) + 15
        out.append(f"max_shard {u64(self.rows[b'N'], 8) if b'N' in self.rows else least}")
        return out


def main(args):
    pieces = None
    if args[:1] == ["--pieces"] and len(args) == 3:
        args, pieces = args[1:2], args[2]
    if len(args) != 1:
        print(__doc__)
        return 2
    try:
        store = Store(args[0], pieces)
        lines = store.lines()
    except (Refused, Damage) as e:
        print(f"refused: {e}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    for text in store.problems:
        print(text, file=sys.stderr)
    return 5 if store.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
