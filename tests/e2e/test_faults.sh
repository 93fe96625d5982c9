#!/bin/bash
# The real server whose calls on its files fail (fault_shim.c): after a failed write or flush nothing is acked any more, reads go on, the
# log says so, and after a restart all that was acked is there. A short write is gone on with or a failure; a delay breaks nothing; no space for a new
# slab means full, not failed.
# test-limit: 600
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/faults.XXXXXX")
# shellcheck source=tests/e2e/server.sh
. tests/e2e/server.sh
# shellcheck source=tests/e2e/faults.sh
. tests/e2e/faults.sh
trap 'server_clean; rm -rf "$work"' EXIT
small="--set journal.slab_first=16MiB --set journal.wal_budget=4MiB --set journal.wal_extent=512KiB"
good=$server_bin

if [ -n "${SAN:-}" ]; then # a sanitizer's own library must come first
    echo "SKIP: faults under sanitizers"
    closing 1
    exit
fi
port=$(free_port)

faults_server "$good"

says() {
    grep -q "\"event\":\"$1\"" "$work/server.log"
}

# fresh: a new store under load.
fresh() {
    server_clean
    rm -rf "$work/data" "$work"/acked.* "$work"/now.*
    disarm
    server_bin=$work/with_faults
    # shellcheck disable=SC2086
    server_start "$work/data" $small && topic_create load 8 || return 1
    producer_start load 1 -i -s 2000 -R 3000
    producer_start load 2 -s 500 -R 2000
    within 60 acked_above 500
}

# Time must pass to see that nothing happens: two looks at a log that would grow by thousands.
nothing_is_acked() {
    local before
    before=$(acked_count)
    sleep 1
    [ "$(acked_count)" = "$before" ] || {
        echo "acked after the failure: $before, then $(acked_count)"
        return 1
    }
}

# What all have in common: a good server on the same store has all that was acked, and takes the rest.
restarted() {
    server_kill
    server_bin=$good
    # shellcheck disable=SC2086
    server_start "$work/data" $small && check_topic load && producers_stop && check_topic load && server_stop &&
        "$journal_ctl" --data "$work/data" verify >"$work/verify" || {
        cat "$work/verify" 2>/dev/null
        return 1
    }
}

# fails CALL PART NTH WHAT
fails() {
    fresh || return 1
    arm "$1" "$2" "$3" 1 "$4"
    within 60 hit || { echo "never happened"; return 1; }
    within 30 says device.failed || { echo "the log does not say so"; return 1; }
    sleep 0.3 # answers that were on their way when it failed
    nothing_is_acked && check_topic load && restarted
}

# goes_on CALL PART COUNT WHAT
goes_on() {
    local before
    fresh || return 1
    arm "$1" "$2" 1 "$3" "$4"
    within 60 hit || { echo "never happened"; return 1; }
    before=$(acked_count)
    within 60 acked_above $((before + 1000)) || return 1
    says device.failed && return 1
    check_topic load && restarted
}

# full CALL PART: no slab can be made for a while.
full() {
    local before
    fresh || return 1
    arm "$1" "$2" 1 0 ENOSPC
    within 60 hit || { echo "no slab was to be made"; return 1; }
    within 60 says slab.not_grown || { echo "the log does not say so"; return 1; }
    disarm
    before=$(acked_count)
    within 60 acked_above $((before + 1000)) || { echo "it did not go on"; return 1; }
    says device.failed && { grep device.failed "$work/server.log"; return 1; }
    check_topic load && restarted
}

# rows CALL PART WHAT: RocksDB's files. The log has all, so nothing is lost whatever it does.
rows() {
    fresh || return 1
    arm "$1" "$2" 1 1 "$3"
    within 60 hit || { echo "never happened"; return 1; }
    within 30 says rows.failed || { echo "the log does not say so"; tail -n 5 "$work/server.log"; return 1; }
    check_topic load && restarted
}

# reads WHAT: what is cold cannot be read for a while: who asks for it asks again, and the server goes on.
reads() {
    fresh && producers_stop && server_stop || return 1
    # shellcheck disable=SC2086
    server_start "$work/data" $small || return 1
    arm pread /data/slab- 1 5 "$1"
    check_topic load || return 1
    hit || { echo "never happened"; return 1; }
    says device.failed && { grep device.failed "$work/server.log"; return 1; }
    producer_start load 3 -s 500 -R 2000
    within 60 acked_above $(($(acked_count) + 500)) && restarted
}

claim "a flush that fails ends the acks" fails fdatasync /data/slab- 20 EIO
claim "a request that the kernel does not take is made another way" goes_on io_submit /data/slab- 3 EIO
claim "a write that fails ends the acks" fails io_getevents /data/slab- 20 EIO
claim "a write for which there is no space ends the acks" fails io_getevents /data/slab- 20 ENOSPC
claim "a write that ends inside a page ends the acks" fails io_getevents /data/slab- 20 ODD
claim "short writes are gone on with" goes_on io_getevents /data/slab- 50 SHORT
claim "a checkpoint that cannot be written ends the acks" fails pwrite superblock 1 EIO
claim "a segment that cannot be written ends the acks" fails pwrite /data/slab- 3 EIO
claim "a read of the log for a segment that fails ends the acks" fails pread /data/slab- 20 EIO
claim "reads that fail are asked for again" reads EIO
claim "reads that end inside a page are asked for again" reads ODD
claim "short reads are gone on with" reads SHORT
claim "slow reads break nothing" reads DELAY300
claim "slow flushes break nothing" goes_on fdatasync /data/slab- 5 DELAY300
claim "slow writes break nothing" goes_on io_submit /data/slab- 5 DELAY300
claim "slow checkpoints break nothing" goes_on fdatasync superblock 3 DELAY300
claim "no space for a slab means full, not failed" full open slab-
claim "no space in the middle of a slab means full, not failed" full fallocate /data/slab-
claim "a table file that cannot be written loses nothing" rows write .sst EIO
claim "a table file that cannot be flushed loses nothing" rows fdatasync .sst EIO
closing
