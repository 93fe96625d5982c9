#!/bin/sh
# Shows that the simulator sees: builds the journal with one fault put in (docs/mutants.md) and runs the program that must see it: first the
# seed that did so last, then seeds from 1 on until one fails. A mutant that survives all of them is a failure of the tests.
#
#     tests/sim/mutants.sh [NAME...]        MUTANT_SEEDS: at most so many seeds each (20000)
set -u
seeds=${MUTANT_SEEDS:-20000}
# NAME:PROGRAM:SEED; test_identity takes none
all="NO_SYNC:sim:2 NO_ROT_RULE:sim:35 NOTFOUND_ON_EIO:sim:24 CONSTANT_SALT:sim:1 CHECKPOINT_BACK:sim:1 CHECKPOINT_AHEAD:sim:1
CUT_NOT_RECORDED:sim:738 NO_CLOSING_BLOCK:sim:87 DUPLICATE_EARLY:sim:1 ACK_ORDER:sim:2 REUSE_EARLY:sim:1 TRIM_NOT_RECORDED:sim:1
FOUND_NOT_SYNCED:sim:332 INTENT_NOT_REDONE:sim:43 PAYLOAD_NOT_CHECKED:sim:1 DIRECT_NOT_SYNCED:sim:1 OPEN_NOT_TAKEN:sim:1
OFFSETS_NOT_RESERVED:sim:1 KEYS_APART:sim:1 KEYS_STALE:sim:1 ENDS_APART:sim:27475 REPLAY_BACK:sim:1 SCRUB_SKIPS:sim:469
STRANGE_STRETCH:silent:37257 STRANGE_RUN:silent:12123 STRANGE_DESTAGED:silent:5066 GROUP_BACK:silent:356
COMPACT_DROPS_LATEST:sim:2 COMPACT_NO_PRODUCERS:sim:4 COMPACT_EARLY_NUMBER:sim:10475
CUT_BY_LANE:identity: CUT_FORGOTTEN:identity: IDENTITY_OF_RUNS:identity: MERGED_ACROSS:identity:
COMPACT_ACROSS:identity: IDENTITY_OF_DEAD:identity: IDENTITY_OF_EMPTY:identity:"
base=build/mutants/base
passed=0
failed=0

build() { # build OUT DEFS
    make --no-print-directory OUT="$1" CFLAGS=-O1 DEFS="$2" "$1/tests/journal/test_sim" \
        "$1/tests/journal/test_silent" "$1/tests/journal/test_identity"
}

row() { # row NAME: the name with its program and seed
    for r in $all; do
        [ "${r%%:*}" = "$1" ] && echo "$r"
    done
}

# Only the files that know the mutant are compiled again.
mutate() { # mutate NAME
    rm -rf "build/mutants/$1"
    cp -a "$base" "build/mutants/$1"
    grep -rl "WEIR_MUTANT_$1\$" base format journal --include='*.c' | while read -r file; do
        rm -f "build/mutants/$1/${file%.c}.o"
    done
    rm -f "build/mutants/$1"/lib*.a "build/mutants/$1"/tests/journal/test_*
    build "build/mutants/$1" "-DWEIR_MUTANT_$1" >"build/mutants/$1.log" 2>&1
}

kill_it() { # kill_it NAME PROGRAM SEED
    program=build/mutants/$1/tests/journal/test_$2
    if [ -z "$3" ]; then
        said=$("$program" 2>&1)
    else
        said=$("$program" --first "$3" --seeds 1 --no-gates --first-failure 2>&1) &&
            said=$("$program" --seeds "$seeds" --no-gates --first-failure 2>&1)
    fi
    [ $? -eq 1 ] || return 1
    echo "$1: killed: $(echo "$said" | grep -m 1 '^seed\|^run\|assertion')"
    echo "    $(echo "$said" | grep -m 1 '^replay' | sed "s/^replay with: //")"
}

mkdir -p build/mutants
if ! build "$base" "" >build/mutants/base.log 2>&1; then
    echo "the journal does not build, see build/mutants/base.log"
    exit 1
fi
for name in ${*:-$all}; do
    name=${name%%:*}
    entry=$(row "$name")
    rest=${entry#*:}
    if ! mutate "$name"; then
        echo "$name: does not build, see build/mutants/$name.log"
        failed=$((failed + 1))
    elif kill_it "$name" "${rest%:*}" "${rest#*:}"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$name: SURVIVES $seeds seeds"
    fi
    rm -rf "build/mutants/$name"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
