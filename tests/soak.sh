#!/bin/bash
# make soak: hours of what make test does for minutes. Each turn takes new seeds; it goes on until
# SOAK_HOURS (4) have gone by or a turn fails, and prints how far it came.
set -u
cd "$(dirname "$0")/.." || exit 1
out=${OUT:-build/plain}
end=$((SECONDS + ${SOAK_HOURS:-4} * 3600))
turn=0 first=${SOAK_FIRST:-1000001} passed=0 failed=0

# step COMMAND...
step() {
    if "$@" >build/soak.log 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $*"
        tail -n 40 build/soak.log
    fi
}

while [ "$failed" = 0 ] && { [ $SECONDS -lt $end ] || [ $turn = 0 ]; }; do
    step "$out/tests/journal/test_sim" --first "$first" --seeds "${SOAK_SEEDS:-100000}"
    step "$out/tests/journal/test_silent" --seeds 10000
    step "$out/tests/gateways/test_sim_kafka" --first "$first" --seeds $((${SOAK_SEEDS:-100000} / 10))
    step env KILL_ROUNDS="${SOAK_ROUNDS:-100}" KILL_SEED="$first" tests/run-tests test_kill
    step env CUT_ROUNDS="${SOAK_ROUNDS:-100}" CUT_SEED="$first" tests/run-tests test_power_cut
    turn=$((turn + 1)) first=$((first + ${SOAK_SEEDS:-100000}))
    echo "turn $turn: seeds below $first, $((SECONDS / 60)) min"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
