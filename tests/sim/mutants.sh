#!/bin/sh
# Shows that the simulator sees: builds the journal with one fault put in (docs/mutants.md) and runs seeds until one fails. A mutant that
# survives all of them is a failure of the tests.
#
#     tests/sim/mutants.sh [NAME...]        MUTANT_SEEDS: at most so many seeds each (20000)
set -u
seeds=${MUTANT_SEEDS:-20000}
all="NO_SYNC NO_ROT_RULE NOTFOUND_ON_EIO CONSTANT_SALT CHECKPOINT_BACK CUT_NOT_RECORDED NO_CLOSING_BLOCK
DUPLICATE_EARLY ACK_ORDER REUSE_EARLY TRIM_NOT_RECORDED FOUND_NOT_SYNCED INTENT_NOT_REDONE
PAYLOAD_NOT_CHECKED DIRECT_NOT_SYNCED OFFSETS_NOT_RESERVED KEYS_APART KEYS_STALE
CUT_BY_LANE CUT_FORGOTTEN IDENTITY_OF_RUNS MERGED_ACROSS
COMPACT_DROPS_LATEST COMPACT_NO_PRODUCERS COMPACT_EARLY_NUMBER"
passed=0
failed=0

for name in ${*:-$all}; do
    out=build/mutants/$name
    program=test_sim
    arguments="--seeds $seeds --no-gates --first-failure"
    case $name in
    CUT_BY_LANE | CUT_FORGOTTEN | IDENTITY_OF_RUNS | MERGED_ACROSS)
        program=test_identity
        arguments=
        ;;
    esac
    if ! make --no-print-directory OUT="$out" CFLAGS=-O1 DEFS="-DWEIR_MUTANT_$name" \
        "$out/tests/journal/$program" >"build/mutants-$name.log" 2>&1; then
        echo "$name: does not build, see build/mutants-$name.log"
        failed=$((failed + 1))
        continue
    fi
    # shellcheck disable=SC2086
    said=$("$out/tests/journal/$program" $arguments 2>&1)
    if [ $? -eq 1 ]; then
        passed=$((passed + 1))
        echo "$name: killed: $(echo "$said" | grep -m 1 '^seed\|^run\|assertion')"
        echo "    $(echo "$said" | grep -m 1 '^replay' | sed "s/^replay with: //")"
    else
        failed=$((failed + 1))
        echo "$name: SURVIVES $seeds seeds"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
