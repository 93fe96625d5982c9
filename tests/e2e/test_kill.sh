#!/bin/bash
# SIGKILL at random moments under load: after each restart every acked record is at its offset,
# once, in order.
# test-limit: 600
#
# Two producers go on through all rounds, one idempotent and one not, and kcat sends beside them; so
# the server also sees its clients come back with what was on its way, and topics come and go, and one
# is compacted all the while (overwrite_keys.py). From the fifth part of the rounds on, writes of destage, growth and checkpoints are slowed down, so that kills fall
# into them: the log says which were under way, and each must have been. KILL_ROUNDS (10), KILL_SEED.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/kill.XXXXXX")
# shellcheck source=tests/e2e/server.sh
. tests/e2e/server.sh
# shellcheck source=tests/e2e/faults.sh
. tests/e2e/faults.sh
keys_writer=
trap 'kill $keys_writer 2>/dev/null; server_clean; rm -rf "$work"' EXIT
rounds=${KILL_ROUNDS:-10}
RANDOM=${KILL_SEED:-$$}
port=$(free_port)
small="--set journal.slab_first=16MiB --set journal.slab_max=32MiB --set journal.wal_budget=2MiB --set journal.wal_extent=512KiB --set journal.compact_check_ms=20 --set log.level=debug"
declare -A under_way=([destage]=0 [checkpoint]=0 [growth]=0 [deletion]=0 [compaction]=0)
compacted=0
if [ -z "${SAN:-}" ]; then
    faults_server "$server_bin"
    server_bin=$work/with_faults
fi

start() {
    # shellcheck disable=SC2086
    server_start "$work/data" $small
}

# The log has a BEGIN with no END behind it.
is_under_way() { # is_under_way BEGIN END
    awk -v begin="\"event\":\"($1)\"" -v end="\"event\":\"($2)\"" \
        '$0 ~ begin { on = 1 } $0 ~ end { on = 0 } END { exit !on }' "$work/server.log"
}

begun() { # begun NAME BEGIN END: counts it
    is_under_way "$2" "$3" && under_way[$1]=$((under_way[$1] + 1))
    return 0
}

# What the kill fell into.
look_back() {
    begun destage destage.begin "destage.done|destage.failed"
    begun checkpoint checkpoint.begin "destage.done|destage.failed"
    begun compaction compact.begin "compact.done|compact.failed"
    compacted=$((compacted + $(grep -c '"event":"segment.compacted"' "$work/server.log")))
    begun growth slab.grow "slab.grown|slab.not_grown"
    if [ -f "$work/deleting" ]; then under_way[deletion]=$((under_way[deletion] + 1)); fi
}

# Topics that come, are filled and go, until it is killed.
topics_come_and_go() {
    exec /usr/bin/python3 - "127.0.0.1:$port" "$work/deleting" <<'PY'
import os, sys
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
quiet = {"bootstrap.servers": sys.argv[1], "log_level": 0, "socket.timeout.ms": 2000}
admin = AdminClient(quiet)
producer = Producer({**quiet, "message.timeout.ms": 2000})
try:
    for i in range(1000):
        name = f"passing-{os.getpid()}-{i}"
        admin.create_topics([NewTopic(name, 4, 1)])[name].result(3)
        for k in range(400):
            producer.produce(name, b"x" * 1000)
        producer.flush(3)
        open(sys.argv[2], "w").close()
        admin.delete_topics([name])[name].result(3)
        os.unlink(sys.argv[2])
except Exception:
    pass
PY
}

keys_check() {
    /usr/bin/python3 tests/e2e/overwrite_keys.py check "127.0.0.1:$port" keys "$work/keys.log"
}

keys_stop() {
    kill -TERM "$keys_writer" && wait "$keys_writer"
}

# Loads until some more records are acked, then kills at any moment, or while log is compacted ($1), or in
# the middle of the next start.
kill_once() {
    local before
    before=$(acked_count)
    within 60 acked_above $((before + 500)) || return 1
    # What was slowed down begins when it is needed: a slab is, before long.
    [ "$slowed" = no ] || within 20 hit || :
    if [ "$1" = compaction ]; then # its rounds are short
        within 20 is_under_way compact.begin "compact.done|compact.failed" || :
    else
        random_moment 700
    fi
    server_kill
    look_back
    if [ $((RANDOM % 3)) = 0 ]; then # once more while it recovers
        # shellcheck disable=SC2086
        server_spawn "$work/data" $small
        random_moment 150
        server_kill
    fi
    return 0
}

round() {
    # Lines of kcat, in no log of ours: they are load, and a client that is cut off.
    seq 20000 | kcat -P -b "127.0.0.1:$port" -t noise -X acks=all -X message.timeout.ms=1000 2>/dev/null &
    local noise=$! passing
    rm -f "$work/deleting"
    topics_come_and_go &
    passing=$!
    local into=any
    slowed=no
    if [ "$1" -gt $((rounds / 5)) ] && [ -z "${SAN:-}" ]; then
        slowed=yes
        case $(($1 % 3)) in # a segment's, a slab's or a checkpoint's writes take their time
        0) arm pwrite /data/slab- 1 0 DELAY100 && into=compaction ;;
        1) arm fdatasync superblock 1 0 DELAY300 ;;
        *) arm fallocate slab- 1 0 DELAY900 ;;
        esac
    fi
    kill_once "$into" || return 1
    kill -KILL "$passing" 2>/dev/null
    wait "$passing" 2>/dev/null
    [ -n "${SAN:-}" ] || disarm
    start || return 1
    check_topic load && keys_check || return 1
    wait "$noise"
    kcat -C -e -q -b "127.0.0.1:$port" -t noise -o beginning >/dev/null
}

if ! start || ! topic_create load 8 || ! topic_create noise 1 ||
    ! /usr/bin/python3 tests/e2e/overwrite_keys.py create "127.0.0.1:$port" keys; then
    failed=1
    closing
    exit
fi
echo "seed ${KILL_SEED:-$$}"
producer_start load 1 -i -z lz4 -R 20000
producer_start load 2 -R 5000
/usr/bin/python3 tests/e2e/overwrite_keys.py write "127.0.0.1:$port" keys "$work/keys.log" &
keys_writer=$!
for i in $(seq "$rounds"); do
    claim "round $i: killed, restarted, every acked record is there" round "$i"
    [ "$failed" = 0 ] || break # what follows would only say it again
done
claim "every record is delivered in the end" producers_stop
claim "every key's record is, too" keys_stop
claim "idempotent records are there once, though their server was killed $rounds times" check_topic load
claim "a clean stop exits 0" server_stop
claim "a clean start serves the same records" start
claim "the same records are there" check_topic load
claim "of the compacted topic the latest of each key is there" keys_check
claim "journal-ctl finds no damage beside the server" "$journal_ctl" --data "$work/data" verify
claim "a clean stop exits 0 again" server_stop
claim "journal-ctl finds no damage offline" "$journal_ctl" --data "$work/data" verify
echo "$(acked_count) records acked; killed during ${under_way[destage]} destages, ${under_way[checkpoint]} checkpoints," \
    "${under_way[growth]} growths, ${under_way[deletion]} deletions, ${under_way[compaction]} of $compacted compactions"
claim "log was compacted" test "$compacted" -gt 0
if [ -z "${SAN:-}" ]; then # nothing is slowed down there, and chance would decide
    for what in destage checkpoint growth compaction; do
        claim "a kill fell into a $what" test "${under_way[$what]}" -gt 0
    done
fi
closing
