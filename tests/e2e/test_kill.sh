#!/bin/bash
# SIGKILL at random moments under load: after each restart every acked record is at its offset,
# once, in order.
# test-limit: 600
#
# Two producers go on through all rounds, one idempotent and one not, and kcat sends beside them; so
# the server also sees its clients come back with what was on its way. KILL_ROUNDS (10), KILL_SEED.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/kill.XXXXXX")
# shellcheck source=tests/e2e/server.sh
. tests/e2e/server.sh
trap 'server_clean; rm -rf "$work"' EXIT
rounds=${KILL_ROUNDS:-10}
RANDOM=${KILL_SEED:-$$}
port=$(free_port)
small="--set journal.slab_first=64MiB --set journal.wal_budget=8MiB --set journal.wal_extent=1MiB"

start() {
    # shellcheck disable=SC2086
    server_start "$work/data" $small
}

# Loads until some more records are acked, then kills at any moment, or in the middle of the next
# start.
kill_once() {
    local before
    before=$(acked_count)
    within 60 acked_above $((before + 500)) || return 1
    random_moment 700
    server_kill
    if [ $((RANDOM % 3)) = 0 ]; then # once more while it recovers
        # shellcheck disable=SC2086
        server_spawn "$work/data" $small
        random_moment 150
        server_kill
    fi
    return 0
}

round() {
    # Lines of kcat, in no log of ours: they are load, and a client that is cut off.
    seq 20000 | kcat -P -b "127.0.0.1:$port" -t noise -X acks=all -X message.timeout.ms=1000 2>/dev/null &
    local noise=$!
    kill_once || return 1
    start || return 1
    check_topic load || return 1
    wait "$noise"
    kcat -C -e -q -b "127.0.0.1:$port" -t noise -o beginning >/dev/null
}

if ! start || ! topic_create load 8 || ! topic_create noise 1; then
    failed=1
    closing
    exit
fi
echo "seed ${KILL_SEED:-$$}"
producer_start load 1 -i -z lz4 -R 20000
producer_start load 2 -R 5000
for i in $(seq "$rounds"); do
    claim "round $i: killed, restarted, every acked record is there" round
    [ "$failed" = 0 ] || break # what follows would only say it again
done
claim "every record is delivered in the end" producers_stop
claim "idempotent records are there once, though their server was killed $rounds times" check_topic load
claim "a clean stop exits 0" server_stop
claim "a clean start serves the same records" start
claim "the same records are there" check_topic load
claim "journal-ctl finds no damage beside the server" "$journal_ctl" --data "$work/data" verify
claim "a clean stop exits 0 again" server_stop
claim "journal-ctl finds no damage offline" "$journal_ctl" --data "$work/data" verify
echo "$(acked_count) records acked"
closing
