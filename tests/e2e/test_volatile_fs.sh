#!/bin/bash
# The volatile device keeps what it promised and loses what it did not: both directions, or the
# power-cut test means nothing.
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${OUT:-build/plain}/tests/e2e
work=$(mktemp -d "${TMPDIR:-/tmp}/volatile.XXXXXX")
# shellcheck source=tests/e2e/volatile.sh
. tests/e2e/volatile.sh
trap 'volatile_clean; rm -rf "$work"' EXIT
rounds=${VOLATILE_ROUNDS:-24}
passed=0 failed=0

claim() { # claim NAME COMMAND...
    if "${@:2}"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
    fi
}

# One life of a device: write, cut (by signal or by file), look. Adds what the check found to the
# sums.
declare -A sum=([bad]=0 [kept]=0 [torn]=0 [lost]=0 [names_lost]=0)
round() {
    local seed=$1 key value
    rm -rf "$work/backing" "$work/log"
    volatile_mount "$seed" $((seed % 3 * 1500)) || return 1
    if [ $((seed % 2)) = 0 ]; then export WRITER_BUFFERED=1; else unset WRITER_BUFFERED; fi
    "$bin/volatile_writer" write "$work/disk" "$work/log" &
    local writer=$!
    until [ "$(grep -c '^synced' "$work/log" 2>/dev/null)" -gt $((30 + seed)) ] 2>/dev/null; do
        kill -0 "$writer" 2>/dev/null || return 1
        sleep 0.01
    done
    if [ $((seed % 4)) -lt 2 ]; then volatile_cut; else kill -USR1 "$volatile_pid"; fi
    wait "$writer" || return 1
    volatile_unmount
    "$bin/volatile_writer" check "$work/backing" "$work/log" >"$work/found" || cat "$work/found"
    while read -r -d ' ' key && read -r -d ' ' value; do
        sum[$key]=$((sum[$key] + value))
    done < <(tr '\n' ' ' <"$work/found")
}

clean_unmount_keeps_everything() {
    rm -rf "$work/backing"
    volatile_mount 1 0 || return 1
    head -c 300001 /dev/urandom >"$work/random"
    cp "$work/random" "$work/disk/a" && mkdir "$work/disk/d" && mv "$work/disk/a" "$work/disk/d/b"
    truncate -s 200001 "$work/disk/d/b" && echo tail >>"$work/disk/d/b"
    volatile_unmount
    { head -c 200001 "$work/random" && echo tail; } | cmp - "$work/backing/d/b"
}

# Readers see what was written at once, at any alignment, over a file cut short and grown again.
reads_see_the_newest_bytes() {
    rm -rf "$work/backing"
    volatile_mount 1 0 || return 1
    /usr/bin/python3 - "$work/disk/f" <<'PY'
import os, random, sys
random.seed(7)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
model = bytearray()
for step in range(3000):
    at, n = random.randrange(60000), random.randrange(1, 9000)
    what = random.random()
    if what < 0.5:
        data = random.randbytes(n)
        os.pwrite(fd, data, at)
        model.extend(b"\0" * max(0, at + n - len(model)))
        model[at:at + n] = data
    elif what < 0.6:
        os.ftruncate(fd, at)
        del model[at:]
        model.extend(b"\0" * (at - len(model)))
    elif what < 0.65:
        os.fdatasync(fd)
    assert os.fstat(fd).st_size == len(model), step
    assert os.pread(fd, n, at) == bytes(model[at:at + n]), step
PY
    local rc=$?
    volatile_unmount
    return $rc
}

dead_device_answers_eio() {
    volatile_mount 1 0 || return 1
    volatile_cut
    local rc=0
    if ls "$work/disk" >/dev/null 2>&1 || touch "$work/disk/x" 2>/dev/null; then rc=1; fi
    volatile_unmount
    return $rc
}

volatile_or_skip
claim reads_see_the_newest_bytes reads_see_the_newest_bytes
claim clean_unmount_keeps_everything clean_unmount_keeps_everything
claim dead_device_answers_eio dead_device_answers_eio
for seed in $(seq "$rounds"); do
    claim "round $seed runs" round "$seed"
done
echo "synced but missing ${sum[bad]}; unsynced: kept ${sum[kept]}, torn ${sum[torn]}, lost ${sum[lost]};" \
    "names lost ${sum[names_lost]}"
claim "synced pages and names survive every cut" test "${sum[bad]}" = 0
claim "some unsynced pages survive" test "${sum[kept]}" -gt 0
claim "some unsynced pages are torn" test "${sum[torn]}" -gt 0
claim "some unsynced pages are lost" test "${sum[lost]}" -gt 0
claim "some unsynced names are lost" test "${sum[names_lost]}" -gt 0
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
