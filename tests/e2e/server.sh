# Starting, killing and loading a real server; sourced by tests and the demo. Needs $work (a
# folder); sets $bin and $port.
# shellcheck shell=bash

out=${OUT:-build/plain}
bin=$out/tests/e2e
server_bin=${SERVER_BIN:-$out/bin/weir-server}
journal_ctl=$out/bin/journal-ctl
server_pid=
producer_pids=
passed=0 failed=0

# A port below those that the kernel gives to clients, so that none takes it while the server is
# down.
free_port() {
    /usr/bin/python3 - <<'PY'
import random, socket
while True:
    port = random.randrange(12000, 30000)
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break
PY
}

# claim NAME COMMAND...: one test of this program.
claim() {
    if "${@:2}"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
    fi
}

# Prints the closing line; its result is the program's.
closing() {
    echo "$passed passed, $failed failed, ${1:-0} skipped"
    [ "$failed" = 0 ]
}

# within SECONDS COMMAND...: waits until COMMAND succeeds.
within() {
    local end=$((SECONDS + $1))
    until "${@:2}"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.02
    done
}

# server_spawn DATA [ARGS...]: starts it and does not wait. Its log: $work/server.log; those before:
# $work/server.old.log.
server_spawn() {
    [ -f "$work/server.log" ] && cat "$work/server.log" >>"$work/server.old.log"
    : >"$work/server.log" # now, not when the child gets to it: the last one's ready line must be gone
    "$server_bin" --data "$1" --set "kafka.listen=127.0.0.1:$port" --set log.format=json "${@:2}" \
        >"$work/server.log" 2>&1 &
    server_pid=$!
}

server_is_ready() {
    grep -q '"event":"ready"' "$work/server.log"
}

server_is_gone() {
    ! kill -0 "$server_pid" 2>/dev/null
}

server_is_ready_or_gone() {
    server_is_ready || server_is_gone
}

# server_start DATA [ARGS...]: starts it and waits until it serves; fails when it ends instead.
server_start() {
    server_spawn "$@"
    if ! within 60 server_is_ready_or_gone || ! server_is_ready; then
        echo "the server did not start:"
        tail -n 20 "$work/server.log"
        server_kill
        return 1
    fi
}

# As if the process had been shot.
server_kill() {
    [ -n "$server_pid" ] || return 0
    kill -KILL "$server_pid" 2>/dev/null || :
    wait "$server_pid" 2>/dev/null || :
    server_pid=
}

# A clean stop: exit 0 within a minute, or it is killed and this fails.
server_stop() {
    local rc=0
    kill -TERM "$server_pid"
    within 60 server_is_gone || kill -KILL "$server_pid"
    wait "$server_pid" || rc=$?
    server_pid=
    [ "$rc" = 0 ] || echo "the server ended with $rc"
    return "$rc"
}

# topic_create NAME PARTITIONS
topic_create() {
    /usr/bin/python3 - "127.0.0.1:$port" "$1" "$2" <<'PY'
import sys
from confluent_kafka.admin import AdminClient, NewTopic
admin = AdminClient({"bootstrap.servers": sys.argv[1]})
for f in admin.create_topics([NewTopic(sys.argv[2], int(sys.argv[3]), 1)], operation_timeout=30).values():
    f.result(60)
PY
}

# producer_start TOPIC RUN [ARGS...]: sends until producers_stop, and logs what was acked in $work/acked.RUN.log.
producer_start() {
    "$bin/produce_acked" -b "127.0.0.1:$port" -t "$1" -l "$work/acked.$2.log" -r "$2" "${@:3}" \
        >>"$work/producers.out" 2>&1 &
    producer_pids="$producer_pids $!"
}

# Tells them to end and waits for what is on its way; fails when one could not deliver all.
producers_stop() {
    local rc=0 pid
    for pid in $producer_pids; do kill -TERM "$pid" 2>/dev/null; done
    for pid in $producer_pids; do wait "$pid" || rc=1; done
    producer_pids=
    if [ "$rc" != 0 ]; then
        cat "$work/producers.out"
        grep -h '^F ' "$work"/acked.*.log | cut -d' ' -f2,4 | sort | uniq -c
    fi
    return $rc
}

acked_count() {
    cat "$work"/acked.*.log 2>/dev/null | grep -c '^A '
}

acked_above() {
    [ "$(acked_count)" -gt "$1" ]
}

# check_topic TOPIC: what the logs say by now that was acked is in the topic (check_acked.c).
check_topic() {
    local log args=()
    for log in "$work"/acked.*.log; do
        cp "$log" "$work/now.$(basename "$log")"
        args+=(-l "$work/now.$(basename "$log")")
    done
    "$bin/check_acked" -b "127.0.0.1:$port" -t "$1" "${args[@]}"
}

# A moment of up to $1 milliseconds, for faults to fall anywhere: the one place where time is waited
# for.
random_moment() {
    sleep "$(printf '0.%03d' $((RANDOM % $1)))"
}

server_clean() {
    local pid
    for pid in $producer_pids; do
        kill -KILL "$pid" 2>/dev/null || :
        wait "$pid" 2>/dev/null || :
    done
    producer_pids=
    server_kill
}
