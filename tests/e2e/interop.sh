#!/bin/bash
# make interop: clients that Debian does not package, each against a real server. A registry that
# cannot be reached is a SKIP. Downloads are kept in build/interop.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/interop.XXXXXX")
# shellcheck source=tests/e2e/server.sh
. tests/e2e/server.sh
trap 'server_clean; rm -rf "$work"' EXIT
cache=$PWD/build/interop
mkdir -p "$cache"

# Each client prints its own claims as "ok NAME" and "FAILED: NAME why"; count NAME adds them up.
count_claims() {
    cat "$work/claims"
    passed=$((passed + $(grep -c '^ok ' "$work/claims")))
    failed=$((failed + $(grep -c '^FAILED: ' "$work/claims")))
}

kafkajs() {
    local version=2.2.4 rc
    if ! command -v npm >/dev/null; then
        echo "SKIP: kafkajs: no npm"
        return 1
    fi
    if [ ! -d "$cache/node_modules/kafkajs" ] &&
        ! timeout 120 npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$cache" \
            "kafkajs@$version" >"$work/npm.out" 2>&1; then
        echo "SKIP: kafkajs: cannot be fetched"
        return 1
    fi
    NODE_PATH=$cache/node_modules KAFKAJS_NO_PARTITIONER_WARNING=1 timeout 120 \
        node tests/e2e/interop_kafkajs.js "127.0.0.1:$port" >"$work/claims" 2>"$work/node.err"
    rc=$?
    if [ "$rc" != 0 ] && ! grep -q '^FAILED: ' "$work/claims"; then
        echo "FAILED: kafkajs ended with $rc" >>"$work/claims"
    fi
    count_claims
    [ "$rc" = 0 ] || tail -n 30 "$work/node.err"
    return 0
}

port=$(free_port)
skipped=0
if ! server_start "$work/data"; then
    failed=1
    closing
    exit
fi
kafkajs || skipped=$((skipped + 1))
claim "a clean stop exits 0" server_stop
closing "$skipped"
