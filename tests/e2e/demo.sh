#!/bin/bash
# make demo: the main job, end to end, on this machine's own package index. Takes well under a
# minute.
#
# Data in ./data (DEMO_DATA), port 9092 where it is free. It starts from an empty store (make_room
# below).
set -eu
cd "$(dirname "$0")/../.."
data=${DEMO_DATA:-./data}
work=$PWD/build/demo
mkdir -p "$work"
# shellcheck source=tests/e2e/server.sh
. tests/e2e/server.sh
mine=
trap finish EXIT
small="--set journal.wal_budget=4MiB --set journal.wal_extent=1MiB
    --set journal.slab_first=16MiB --set journal.slab_max=16MiB"

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
say() { printf '   %s\n' "$*"; }
show() { # show LINES COMMAND...: a command and the head of what it prints
    printf '   $ %s\n' "${*:2}"
    "${@:2}" >"$work/shown" || { cat "$work/shown"; return 1; }
    head -n "$1" "$work/shown" | cut -c1-150 | sed 's/^/     /'
    local n
    n=$(wc -l <"$work/shown")
    [ "$n" -le "$1" ] || printf '     ... %s more lines\n' $((n - $1))
}
ms() { echo $(($(date +%s%N) / 1000000)); }

# What the demo left, as it left it, it may remove; what was used since is moved aside; what is not
# its own it leaves alone.
fingerprint() { find "$data" -printf '%P %s %T@\n' | sort | sha256sum; }

make_room() {
    if [ -e "$data" ] && [ "$(cat "$work/made" 2>/dev/null)" != "$(stat -c '%i %W' "$data")" ]; then
        say "$data is there already and no demo made it: I leave it alone. Move it, or: DEMO_DATA=elsewhere make demo"
        exit 1
    fi
    if [ -e "$data" ] && [ "$(cat "$work/left" 2>/dev/null)" = "$(fingerprint)" ]; then
        say "removing $data of the last demo"
        rm -rf "$data"
    elif [ -e "$data" ]; then
        local n=1
        while [ -e "$data.old-$n" ]; do n=$((n + 1)); done
        say "$data was used since the last demo: moving it to $data.old-$n"
        mv "$data" "$data.old-$n"
    fi
    mkdir -p "$data"
    stat -c '%i %W' "$data" >"$work/made"
    mine=yes
}

finish() {
    server_clean
    [ -z "$mine" ] || fingerprint >"$work/left"
}

pick_port() {
    port=9092
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        port=$(free_port)
        say "port 9092 is taken, using $port"
    fi
}

# The machine's package index; where it was never fetched, fetch it; without a network, the
# installed packages.
package_index() {
    apt-cache dumpavail >"$work/available" 2>/dev/null || true
    if [ "$(grep -c '^Package: ' "$work/available")" -lt 1000 ]; then
        say "the package index is empty: apt-get update"
        local sudo=
        [ "$(id -u)" = 0 ] || sudo=sudo
        $sudo apt-get -qq update || true
        apt-cache dumpavail >"$work/available" 2>/dev/null || true
    fi
    if [ "$(grep -c '^Package: ' "$work/available")" -lt 1000 ]; then
        say "no index to be had: taking the list of installed packages instead"
        cp /var/lib/dpkg/status "$work/available"
    fi
}

start_server() {
    local start
    start=$(ms)
    # shellcheck disable=SC2086
    server_start "$data" $small
    say "ready after $(($(ms) - start)) ms, pid $server_pid"
}

step "1. A server on an embedded default, data in $data"
make_room
pick_port
env -u MAKEFLAGS make --no-print-directory OUT="$out" "$bin/produce_acked" "$bin/check_acked" >"$work/make.out" 2>&1 || {
    cat "$work/make.out"
    exit 1
}
say "weir-server --data $data --set kafka.listen=127.0.0.1:$port $small"
start_server

step "2. Real input: this machine's Debian package index"
package_index
/usr/bin/python3 tests/e2e/demo_records.py split "$work/available" "$work/sent" "$work/lines"
topic_create packages 8
topic_create again 8

step "3. In with kcat, acks=all, 8 partitions, keyed by package name"
start=$(ms)
kcat -P -b "127.0.0.1:$port" -t packages -D '\x1e' -K '\x1f' -z lz4 -X acks=all <"$work/sent"
say "produced in $(($(ms) - start)) ms"

step "4. Out with kcat, compared record for record"
start=$(ms)
kcat -C -q -e -b "127.0.0.1:$port" -t packages -o beginning -f '%p\x1f%o\x1f%k\x1f%s\x1e' >"$work/received"
say "consumed in $(($(ms) - start)) ms"
/usr/bin/python3 tests/e2e/demo_records.py compare "$work/sent" "$work/received"

step "5. SIGKILL in the middle of a second run, then a restart"
rm -f "$work"/acked.*log
half=$(($(wc -l <"$work/lines") / 2))
producer_start again 1 -i -f "$work/lines"
within 120 acked_above $((half / 2)) || { say "the second run does not get on"; exit 1; }
killed=$server_pid
server_kill
say "kill -9 $killed"
server_clean
say "$(acked_count) records of $((half * 2)) were acked before"
start_server
"$bin/check_acked" -b "127.0.0.1:$port" -t again -l "$work/acked.1.log" -f >"$work/verdict" || {
    cat "$work/verdict"
    exit 1
}
# shellcheck disable=SC2046
set -- $(cat "$work/verdict")
say "after the restart: $4 records in the topic; of $6 acked ones lost $8, moved ${10}, changed ${12}"

step "6. What the files say, beside the running server"
show 12 "$journal_ctl" --data "$data" shard ls
show 12 "$journal_ctl" --data "$data" segment ls
show 8 "$journal_ctl" --data "$data" wal dump
show 12 "$journal_ctl" --data "$data" verify

step "7. A clean stop"
server_stop
say "exit 0; the data stays in $data ($(du -sh "$data" | cut -f1)): make run serves it"
