#!/bin/sh
# run.sh CRASHES TARGET...: runs each fuzz target over a copy of its corpus and says how many held.
# Input that broke one is kept in the folder CRASHES; `TARGET FILE` shows it again.
#
# FUZZ_SECONDS  how long each runs
# FUZZ_RUNS     when set, instead how many inputs each runs: 0 only replays the corpus
set -u
crashes=$1
shift
mkdir -p "$crashes"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0
failed=0
for target in "$@"; do
    name=${target##*/fuzz_}
    mkdir -p "$scratch/$name"
    [ -d "tests/fuzz/corpus/$name" ] && cp "tests/fuzz/corpus/$name"/* "$scratch/$name/"
    if [ -n "$FUZZ_RUNS" ]; then
        limit=-runs=$FUZZ_RUNS
    else
        limit=-max_total_time=$FUZZ_SECONDS
    fi
    seeds=$(find "$scratch/$name" -type f | wc -l)
    # No parser may make one allocation of 64 MiB out of the small input that it gets here.
    if "$target" "$limit" -timeout=10 -malloc_limit_mb=64 -print_final_stats=1 -verbosity=0 \
        "-artifact_prefix=$crashes/$name-" "$scratch/$name" >"$scratch/log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/log")
        echo "fuzz $name: $seeds seeds, ${runs:-no} inputs"
        passed=$((passed + 1))
    else
        cat "$scratch/log"
        echo "fuzz $name: FAILED, input kept in $crashes"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
