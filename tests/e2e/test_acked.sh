#!/bin/bash
# The checker of acked records sees each kind of wrong: a log that promises something else than the
# topic holds is refused.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/acked.XXXXXX")
# shellcheck source=tests/e2e/server.sh
. tests/e2e/server.sh
trap 'server_clean; rm -rf "$work"' EXIT
port=$(free_port)
log=$work/acked.1.log

produce() { "$bin/produce_acked" -b "127.0.0.1:$port" -t t -l "$1" "${@:2}" >/dev/null; }
# sees COUNT_NAME LOG: the checker fails and that count is not 0.
sees() {
    "$bin/check_acked" -b "127.0.0.1:$port" -t t -l "$2" >"$work/verdict" 2>/dev/null
    [ $? = 1 ] && ! grep -q " $1 0 " "$work/verdict" || { cat "$work/verdict"; return 1; }
}
# altered AWK: the log with its 10th ack changed.
altered() { awk '/^A/ && ++n == 10 { '"$1"' } { print }' "$log" >"$work/altered"; }

if ! server_start "$work/data" || ! topic_create t 4 || ! produce "$log" -r 1 -i -n 5000; then
    failed=1
    closing
    exit
fi
claim "a true log is believed" check_topic t
printf 'A 1 0 5' >"$work/torn"
cat "$log" "$work/torn" >"$work/altered"
claim "a last line without its end does not count" "$bin/check_acked" -b "127.0.0.1:$port" -t t -l "$work/altered"
altered '$6 = "0123456789abcdef"'
claim "other bytes at the place are seen" sees changed "$work/altered"
altered '$4 = 100000'
claim "a record at another offset is seen" sees moved "$work/altered"
altered '$4 = 100000; $5 = 999999'
claim "a record that is nowhere is seen" sees lost "$work/altered"
altered '$3 = ($3 + 1) % 4'
claim "a record in another partition is seen" sees moved "$work/altered"
grep -v '^R\|^A' "$log" >"$work/altered"
claim "a record that nobody sent is seen" sees foreign "$work/altered"
produce "$work/second" -r 1 -i -n 10
claim "a repeat of an idempotent run is seen" sees of_idempotent "$log"
claim "records out of order are seen" sees disorder "$log"
closing
