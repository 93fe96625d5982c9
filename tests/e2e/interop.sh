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

# Kafka's own dump tool reads what journal-ctl exports, and checks each batch.
kafka_dump() {
    local version=3.9.0 folder=$cache/kafka dump
    if ! command -v mvn >/dev/null || ! command -v java >/dev/null; then
        echo "SKIP: kafka's dump tool: no mvn or no java"
        return 1
    fi
    mkdir -p "$folder"
    cat >"$folder/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>interop</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>$version</version></dependency></dependencies></project>
POM
    if ! [ -f "$folder/jars/kafka_2.13-$version.jar" ] &&
        ! (cd "$folder" && timeout 400 mvn -q -B -DoutputDirectory=jars \
            org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies) >"$work/mvn.out" 2>&1; then
        echo "SKIP: kafka's dump tool: cannot be fetched"
        return 1
    fi
    for codec in none gzip snappy lz4 zstd; do
        seq 2000 | sed "s/.*/k&:value & of $codec/" |
            kcat -P -b "127.0.0.1:$port" -t dumped -K : -z "$codec" -p 0 || return 0
    done
    "$journal_ctl" --data "$work/data" export dumped/0 "$work/exported" >"$work/export.out" || :
    dump=$(java -cp "$folder/jars/*" kafka.tools.DumpLogSegments --deep-iteration --print-data-log \
        --files "$work/exported/dumped-0/00000000000000000000.log" 2>/dev/null)
    claim "kafka's dump tool gives every record of an export" \
        [ "$(grep -c '^| offset: .* payload: value [0-9]* of' <<<"$dump")" = 10000 ]
    claim "kafka's dump tool finds every batch valid" \
        [ "$(grep -c 'isvalid: true' <<<"$dump")" = "$(grep -c '^baseOffset' <<<"$dump")" ]
    claim "kafka's dump tool sees all five codecs" \
        [ "$(grep -o 'compresscodec: [a-z0-9]*' <<<"$dump" | sort -u | wc -l)" = 5 ]
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
kafka_dump || skipped=$((skipped + 1))
claim "a clean stop exits 0" server_stop
closing "$skipped"
