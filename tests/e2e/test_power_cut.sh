#!/bin/bash
# Power cuts of the real server on the volatile device: nothing acked is lost. And the other way
# round: a server that skips its flush, and one that acks before its flush returns, do lose acked
# records there.
# test-limit: 900
#
# CUT_ROUNDS (20), CONTROL_ROUNDS (20, each control ends at its first loss), CUT_SEED.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/cut.XXXXXX")
# shellcheck source=tests/e2e/server.sh
. tests/e2e/server.sh
# shellcheck source=tests/e2e/volatile.sh
. tests/e2e/volatile.sh
trap 'server_clean; volatile_clean; rm -rf "$work"' EXIT
rounds=${CUT_ROUNDS:-20}
control_rounds=${CONTROL_ROUNDS:-20}
seed=${CUT_SEED:-$$}
RANDOM=$((seed % 32768))
port=$(free_port)
small="--set journal.slab_first=32MiB --set journal.wal_budget=4MiB --set journal.wal_extent=512KiB"
good=$server_bin

start() {
    # shellcheck disable=SC2086
    server_start "$work/disk/data" $small
}

# Power off at once: whatever the server does from here on reaches nothing.
lights_out() {
    volatile_cut
    server_kill
    volatile_unmount
    tail -n 1 "$work/device.log"
}

lights_on() { # lights_on ROUND
    volatile_mount $((seed * 1000 + $1)) $((RANDOM % 4 * 2000))
}

# One cut under load; every fourth time another one follows while the server recovers from it.
cut_under_load() {
    local before
    before=$(acked_count)
    within 60 acked_above $((before + 300)) || return 1
    random_moment 500
    lights_out
    [ $((RANDOM % 4)) = 0 ] || return 0
    lights_on $((500 + $1)) || return 1
    # shellcheck disable=SC2086
    server_spawn "$work/disk/data" $small
    random_moment 200
    lights_out
}

round() {
    cut_under_load "$1" && lights_on "$1" && start && check_topic load
}

# ---- the controls ----

# One life of a broken server on a store that a good one made. Says lost, intact, or what else
# came of it in $outcome.
control_round() { # control_round BROKEN ROUND
    outcome=failed
    rm -rf "$work/backing" "$work"/acked.*
    server_bin=$good
    volatile_mount $((seed * 1000 + $2)) 0 && start && topic_create load 8 || return 1
    server_stop || return 1
    volatile_unmount
    volatile_mount $((seed * 1000 + $2)) 3000 || return 1
    server_bin=$1
    start || return 1
    producer_start load 1 -i
    producer_start load 2
    within 60 acked_above 500 || return 1
    random_moment 300
    lights_out
    # What is acked from here on would come from the next server: the producers must not live to see
    # it.
    server_clean
    volatile_mount 1 0 || return 1
    server_bin=$good
    if start; then
        check_topic load >"$work/verdict" 2>"$work/why"
        case $(cat "$work/verdict") in
        "") outcome="unknown: $(tail -n 1 "$work/why")" ;;
        *" lost 0 "*) outcome=intact ;;
        *) outcome=lost ;;
        esac
    else
        outcome=refused
    fi
    server_kill
    volatile_unmount
}

loses_acked_records() { # loses_acked_records BROKEN
    local i
    [ -x "$1" ] || return 1
    for i in $(seq "$control_rounds"); do
        if ! control_round "$1" "$i"; then
            echo "control round $i did not run"
            server_bin=$good
            return 1
        fi
        echo "control round $i: $outcome"
        if [ "$outcome" = lost ]; then
            cat "$work/verdict"
            return 0
        fi
    done
    return 1
}

# ---- the test ----

volatile_or_skip
echo "seed $seed"
if ! lights_on 0 || ! start || ! topic_create load 8; then
    failed=1
    closing
    exit
fi
producer_start load 1 -i -z zstd -R 20000
producer_start load 2 -s 2000 -R 2000
for i in $(seq "$rounds"); do
    claim "cut $i: every acked record is there" round "$i"
    [ "$failed" = 0 ] || break # what follows would only say it again
done
claim "every record is delivered in the end" producers_stop
claim "idempotent records are there once after $rounds cuts" check_topic load
claim "journal-ctl finds no damage beside the server" "$journal_ctl" --data "$work/disk/data" verify
claim "a clean stop exits 0" server_stop
claim "journal-ctl finds no damage offline" "$journal_ctl" --data "$work/disk/data" verify
echo "$(acked_count) records acked"
volatile_unmount
if [ -n "${SAN:-}" ]; then # the broken servers are built without sanitizers only
    echo "SKIP: controls under sanitizers"
    closing 2
    exit
fi
claim "a server without fdatasync loses acked records" loses_acked_records "$out/break-no-sync/bin/weir-server"
server_clean
volatile_clean
claim "a server that acks before its flush returns loses acked records" \
    loses_acked_records "$out/break-early-ack/bin/weir-server"
closing
