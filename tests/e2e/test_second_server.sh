#!/bin/bash
# One data folder, one server: a second one refuses and says why; when the first is gone, even by
# SIGKILL, the next one starts.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/second.XXXXXX")
# shellcheck source=tests/e2e/server.sh
. tests/e2e/server.sh
trap 'server_clean; rm -rf "$work"' EXIT
port=$(free_port)
other=$(free_port)

# The second server, on a port of its own, ends by itself.
second_refuses() {
    timeout -s KILL 30 "$server_bin" --data "$1" --set "kafka.listen=127.0.0.1:$other" >"$work/second.log" 2>&1
    local rc=$?
    [ "$rc" -gt 0 ] && [ "$rc" -lt 124 ]
}
says_why() {
    grep -qi 'in use\|lock' "$work/second.log" || { cat "$work/second.log"; return 1; }
}
names_the_other() {
    grep -q "\b$server_pid\b" "$work/second.log" || { cat "$work/second.log"; return 1; }
}
first_still_serves() {
    echo hello | kcat -P -b "127.0.0.1:$port" -t t -X acks=all && kill -0 "$server_pid"
}
record_is_there() {
    [ "$(kcat -C -e -q -b "127.0.0.1:$port" -t t -o beginning)" = "$1" ]
}
restart_after_kill() {
    server_kill
    server_start "$work/data"
}
port_in_use_is_said() {
    timeout -s KILL 60 "$server_bin" --data "$work/data2" --set "kafka.listen=127.0.0.1:$port" >"$work/second.log" 2>&1
    local rc=$?
    [ "$rc" -gt 0 ] && [ "$rc" -lt 124 ] && grep -q "$port" "$work/second.log"
}

claim "the first server starts" server_start "$work/data"
claim "the second one refuses" second_refuses "$work/data"
claim "and says why" says_why
claim "and names the process" names_the_other
ln -s data "$work/alias"
claim "also by another path to the same folder" second_refuses "$work/alias"
claim "the first one still serves" first_still_serves
claim "a port in use is said by its number" port_in_use_is_said
claim "after SIGKILL the folder is free" restart_after_kill
claim "and holds what was acked" record_is_there hello
claim "a clean stop exits 0" server_stop
claim "after a clean stop the folder is free" server_start "$work/data"
claim "and holds the same" record_is_there hello
closing
