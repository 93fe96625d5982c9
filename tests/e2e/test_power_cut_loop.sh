#!/bin/bash
# Power cuts under a real file system: ext4, and xfs, on a loop device whose image lies on the volatile device (volatile_fs.c). What the
# server and RocksDB write goes through the file system's own journal and the kernel's page cache first; a cut then takes what the file
# system had not flushed. Nothing acked is lost, and the file system mounts again.
# test-limit: 600
#
# LOOP_ROUNDS (4 for each file system), LOOP_SEED. Needs root, FUSE and loop devices.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/loop.XXXXXX")
# shellcheck source=tests/e2e/server.sh
. tests/e2e/server.sh
# shellcheck source=tests/e2e/volatile.sh
. tests/e2e/volatile.sh
rounds=${LOOP_ROUNDS:-4}
seed=${LOOP_SEED:-$$}
RANDOM=$((seed % 32768))
port=$(free_port)
small="--set journal.slab_first=16MiB --set journal.wal_budget=2MiB --set journal.wal_extent=512KiB
    --set journal.space_floor=16MiB --set journal.space_max=256MiB"
device=
skipped=0

# Takes the file system and its loop device away, whatever state they are in.
fs_down() {
    mountpoint -q "$work/fs" && umount "$work/fs" 2>/dev/null || umount -l "$work/fs" 2>/dev/null
    [ -z "$device" ] || losetup -d "$device" 2>/dev/null
    device=
}
trap 'server_clean; fs_down; volatile_clean; rm -rf "$work"' EXIT

# fs_up KIND
fs_up() {
    mkdir -p "$work/fs"
    device=$(losetup -f --show "$work/disk/image" 2>>"$work/loop.log") || { device=; return 1; }
    mount -t "$1" "$device" "$work/fs" 2>>"$work/loop.log"
}

fs_make() { # fs_make KIND
    rm -rf "$work/backing"
    volatile_mount "$seed" 0 || return 1
    truncate -s 640M "$work/disk/image" || return 1
    case $1 in
    ext4) mkfs.ext4 -q -F "$work/disk/image" 2>>"$work/loop.log" ;;
    xfs) mkfs.xfs -q -f "$work/disk/image" 2>>"$work/loop.log" ;;
    esac || return 1
    # what is cut later is what lies in the image, not the image itself
    python3 -c 'import os, sys
for path in sys.argv[1:]:
    os.fsync(os.open(path, os.O_RDONLY))' "$work/disk/image" "$work/disk" && fs_up "$1"
}

start() {
    # shellcheck disable=SC2086
    server_start "$work/fs/data" $small
}

# One cut under load, then everything up again from what is left.
round() { # round KIND NUMBER
    local before
    before=$(acked_count)
    within 60 acked_above $((before + 300)) || return 1
    random_moment 700
    volatile_cut
    server_kill
    fs_down
    volatile_unmount
    tail -n 1 "$work/device.log"
    volatile_mount $((seed * 1000 + $2)) $((RANDOM % 4 * 2000)) || return 1
    fs_up "$1" || { tail -n 3 "$work/loop.log"; echo "the file system does not mount"; return 1; }
    start && check_topic load
}

# What this machine cannot do is said and skipped.
can() { # can KIND
    [ "$(id -u)" = 0 ] || { echo "SKIP: loop $1: needs root"; return 1; }
    command -v "mkfs.$1" >/dev/null || { echo "SKIP: loop $1: no mkfs.$1"; return 1; }
    fs_make "$1" && return 0
    echo "SKIP: loop $1: cannot be mounted here"
    tail -n 2 "$work/loop.log"
    return 1
}

cuts() { # cuts KIND
    local i
    if ! can "$1"; then
        skipped=$((skipped + 1))
        fs_down
        volatile_clean
        return
    fi
    rm -f "$work"/acked.* "$work"/now.*
    claim "a server starts on $1" start
    claim "a topic on $1" topic_create load 8
    producer_start load 1 -i -z lz4 -s 1000 -R 5000
    producer_start load 2 -s 300 -R 3000
    for i in $(seq $((rounds * 5))); do
        claim "$1, cut $i: every acked record is there" round "$1" "$i"
        [ "$failed" = 0 ] || break
        # and more, until one fell where something was not flushed
        [ "$i" -ge "$rounds" ] && grep -q 'dropped [1-9]' "$work/device.log" && break
    done
    claim "$1: cuts took pages that were not flushed" grep -q 'dropped [1-9]' "$work/device.log"
    claim "$1: every record is delivered in the end" producers_stop
    claim "$1: idempotent records are there once after $i cuts" check_topic load
    claim "$1: a clean stop exits 0" server_stop
    claim "$1: journal-ctl finds no damage" "$journal_ctl" --data "$work/fs/data" verify
    server_clean
    fs_down
    volatile_unmount
}

volatile_or_skip
echo "seed $seed"
cuts ext4
cuts xfs
closing "$skipped"
