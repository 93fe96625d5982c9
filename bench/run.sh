#!/bin/bash
# Runs the drivers of bench/ against this build, and prints every figure beside its mark.
#
#   bench/run.sh [--rounds N] [--seconds N] [--only PART,...] [--data DIR] [--smoke] [--strict]
#
# Parts: raw latency half throughput direct replay recovery produce paced small consume restart idle random; and, only when asked for,
# since it fetches a real Kafka from a registry and starts a JVM: kafka, or one figure of it, as kafka_small. --smoke: tiny numbers;
# only shows that the drivers run. --strict: fails when a mark is not met. DIR (build/bench) is
# emptied; it should lie on the device that is to be measured. Fails when a driver does, or when an
# acked record is lost.
#
# OUT: the build (build/plain). SERVER_SETTINGS: further arguments of the server.
set -u
cd "$(dirname "$0")/.." || exit 1
out=${OUT:-build/plain}
rounds=7 seconds=5 data=build/bench smoke= strict=
parts=raw,latency,half,throughput,direct,replay,recovery,produce,paced,small,consume,restart,idle,random
server_pid= port=
failed=0
# shellcheck source=bench/kafka_peer.sh
. bench/kafka_peer.sh

usage() {
    sed -n '2,/^set -u/s/^# \{0,1\}//p' bench/run.sh
    exit "$1"
}

while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2 && shift 2 ;;
    --seconds) seconds=$2 && shift 2 ;;
    --only) parts=$2 && shift 2 ;;
    --data) data=$2 && shift 2 ;;
    --smoke) smoke=yes && shift ;;
    --strict) strict=yes && shift ;;
    --help) usage 0 ;;
    *) usage 2 >&2 ;;
    esac
done

# n SMOKE FULL: the number that this mode takes.
n() { if [ -n "$smoke" ]; then echo "$1"; else echo "$2"; fi; }
[ -z "$smoke" ] || { rounds=1 seconds=1; }

wants() { [[ ",$parts," == *",$1,"* ]]; }

# run COMMAND...: a driver; a failure is counted and the rest goes on.
run() {
    echo "\$ $*"
    "$@" || { failed=$((failed + 1)) && echo "FAILED ($?): $*"; }
}

journal() { run "$out/bench/journal_bench" "$@" -r "$rounds"; }
kafka() { run "$out/bench/kafka_bench" "$@" -b "127.0.0.1:$port" -p "$server_pid" -r "$rounds"; }

# --- the server ---

server_args=(--set kafka.listen=127.0.0.1:0 --set log.format=json
    --set "journal.wal_budget=$(n 16 256)MiB" --set journal.delete_grace_ms=1000)
read -r -a more_settings <<<"${SERVER_SETTINGS:-}"
server_args+=(${more_settings[@]+"${more_settings[@]}"})

# server_start ARGS...: further settings.
server_start() {
    rm -rf "$data/server"
    "$out/bin/weir-server" --data "$data/server" "${server_args[@]}" "$@" 2>"$data/server.log" &
    server_pid=$!
    until grep -q '"event":"ready"' "$data/server.log"; do
        kill -0 "$server_pid" 2>/dev/null || { cat "$data/server.log" && exit 1; }
        sleep 0.02
    done
    port=$(sed -n 's/.*"event":"ready".*"kafka_port":\([0-9]*\).*/\1/p' "$data/server.log")
}

server_memory() {
    awk '/^VmHWM/ { printf "server: peak memory %d MiB", $2 / 1024 }' "/proc/$server_pid/status"
    echo ", $(grep -c '"event":"segment.sealed"' "$data/server.log") segments destaged"
}

server_end() {
    [ -z "$server_pid" ] || kill "-$1" "$server_pid" 2>/dev/null
    [ -z "$server_pid" ] || wait "$server_pid" 2>/dev/null
    server_pid=
}
trap 'server_end KILL; kafka_peer_end' EXIT

# --- the parts ---

rm -rf "$data"
mkdir -p "$data"
export BENCH_FIGURES=$data/figures
: >"$BENCH_FIGURES"

echo "policy: every ack waits for the fdatasync of the block that holds its batch, written with"
echo "        O_DIRECT; WAL budget $(n 16 256) MiB (journal alone: $(n 8 64) MiB, throughput $(n 8 1024) MiB), so that"
echo "        destage and checkpoint run meanwhile;"
echo "        the mock broker keeps a few MiB in memory and syncs nothing"
echo "device: $(df --output=fstype,source "$data" | tail -n 1); $(nproc) cores;" \
    "load $(cut -d' ' -f1-3 /proc/loadavg);" \
    "librdkafka $(pkg-config --modversion rdkafka 2>/dev/null)"

run "$out/bench/test_measure"

if wants raw; then
    for bytes in 4096 65536; do
        run "$out/bench/raw" latency -n "$(n 100 10000)" -s $bytes -m "$(n 16 256)" "$data/raw"
    done
    run "$out/bench/raw" stream -t "$seconds" -m "$(n 16 1024)" "$data/raw"
    run "$out/bench/raw" stalls -t "$(n 1 10)"
fi
if wants latency; then
    journal latency -d "$data/latency" -n "$(n 200 2000)" -b "$(n 8 64)"
    journal latency -d "$data/latency" -n "$(n 200 20000)" -b "$(n 8 64)" -K memory
    rm -rf "$data/latency"
fi
if wants half; then
    journal half -d "$data/half" -t "$seconds" -b "$(n 8 1024)"
    rm -rf "$data/half"
fi
if wants throughput; then
    for shards in 1 "$(n 100 10000)"; do
        journal throughput -d "$data/throughput" -t "$seconds" -k "$shards" -x "journal_$shards" \
            -b "$(n 8 1024)"
        rm -rf "$data/throughput"
    done
fi
if wants direct; then
    journal direct -d "$data/direct" -t "$seconds" -w 8 -s 1048576 -b "$(n 8 64)" -R 2048 -x direct_1m
    rm -rf "$data/direct"
    journal direct -d "$data/direct" -t "$seconds" -w 8 -s 65536 -b "$(n 8 64)" -R 2048 -x direct_64k
    rm -rf "$data/direct"
    journal direct -d "$data/direct" -t "$seconds" -w 8 -s 1024 -c 16 -b "$(n 8 64)" -x direct_1k
    rm -rf "$data/direct"
fi
if wants replay; then
    run "$out/bench/replay_bench" -d "$data/replay" -r "$rounds" -t "$seconds" -g "$(n 64 2048)" \
        -b "$(n 8 64)"
    rm -rf "$data/replay"*
fi
if wants recovery; then
    journal recovery -d "$data/recovery" -b "$(n 16 1024)" -k "$(n 10 1000)" -x recovery
    rm -rf "$data/recovery"
    journal recovery -d "$data/recovery" -b "$(n 16 1024)" -k "$(n 10 1000)" -c 64 -s 1000 \
        -x recovery_64
    rm -rf "$data/recovery"
    journal recovery -d "$data/recovery" -b "$(n 16 1024)" -k "$(n 100 100000)" -x recovery_100k
    rm -rf "$data/recovery"
fi
if wants produce || wants paced || wants small || wants consume || wants restart; then
    server_start
    if wants produce; then
        kafka produce -s 100 -t "$seconds" -x produce_100
        kafka produce -s 1024 -t "$seconds" -x produce_1k
    fi
    if wants paced; then
        kafka paced -s 1024 -L 0 -t "$seconds" -R "$(n 1000 10000)" -x paced \
            -X socket.nagle.disable=true
    fi
    if wants small; then
        kafka produce -s 100 -P "$(n 100 1000)" -B 1 -t "$seconds" -x small
    fi
    if wants consume; then
        kafka consume -s 100 -n "$(n 20000 5000000)" -x consume_100
        kafka consume -s 1024 -n "$(n 5000 1000000)" -x consume_1k
    fi
    server_memory
    if wants restart; then
        # Killed while a producer keeps it busy; the producer has no other end.
        "$out/bench/kafka_bench" produce -b "127.0.0.1:$port" -s 1024 -N -r 1 -t 3600 \
            >"$data/producer.log" 2>&1 &
        producer=$!
        sleep "$(n 1 5)"
        server_end KILL
        kill -KILL "$producer" && wait "$producer" 2>/dev/null
        run "$out/bench/journal_bench" restart -d "$data/server" -r "$rounds" -- \
            "$out/bin/weir-server" --data "$data/server" "${server_args[@]}"
    else
        server_end TERM
    fi
fi

# small with fewer, larger commits, as a server that is short of CPU can be set.
if wants small; then
    server_start --set journal.commit_delay_us=300
    kafka produce -s 100 -P "$(n 100 1000)" -B 1 -t "$seconds" -x small_delay
    server_end TERM
fi

# --- a real Kafka, turn by turn ---

# The first rounds warm up the JVM and our slabs.
peer() { kafka "$@" -k "127.0.0.1:$peer_port" -K "$peer_pid" -w "$(n 0 2)"; }

peer_figure() {
    case $1 in
    small) peer produce -s 100 -P "$(n 100 1000)" -B 1 -T -t "$seconds" -x small_kafka ;;
    produce_100) peer produce -s 100 -t "$seconds" -x produce_100_kafka ;;
    produce_1k) peer produce -s 1024 -t "$seconds" -x produce_1k_kafka ;;
    consume_100) peer consume -s 100 -n "$(n 20000 5000000)" -x consume_100_kafka ;;
    consume_1k) peer consume -s 1024 -n "$(n 5000 1000000)" -x consume_1k_kafka ;;
    esac
}

# Both start anew for each. What is consumed is in the page cache there, so it is in memory here.
for name in small produce_100 produce_1k consume_100 consume_1k; do
    if wants kafka || wants "kafka_$name"; then
        in_memory=()
        [[ $name != consume* ]] ||
            in_memory=(--set journal.cache_bytes=4GiB --set journal.read_cache_bytes=4GiB)
        kafka_peer_start "$data/kafka" || continue
        server_start ${in_memory[@]+"${in_memory[@]}"}
        peer_figure "$name"
        server_memory
        server_end TERM
        kafka_peer_end
    fi
done

# --- shards that do nothing ---

# figure NAME UNIT VALUE: one without reference, of one round.
figure() {
    echo "$1: $3 $2"
    printf '%s\t%s\t%s\t-\t-\t-\t%s\t%s\t1\n' "$1" "$2" "$3" "$3" "$3" >>"$BENCH_FIGURES"
}

# idle_server FOLDER: milliseconds from exec to ready, and resident KiB four seconds later.
idle_server() {
    local began

    : >"$data/server.log" # the one before must not say that this one is ready
    began=$(date +%s%N)
    "$out/bin/weir-server" --data "$1" "${server_args[@]}" 2>"$data/server.log" &
    server_pid=$!
    until grep -q '"event":"ready"' "$data/server.log"; do
        kill -0 "$server_pid" 2>/dev/null || { cat "$data/server.log" && exit 1; }
        sleep 0.01
    done
    ready_ms=$((($(date +%s%N) - began) / 1000000))
    sleep "$(n 0 4)"
    rss_kib=$(awk '/^VmRSS/ { print $2 }' "/proc/$server_pid/status")
    server_end TERM
}

if wants idle; then
    topics=$(n 10 10000)
    rm -rf "$data/idle" "$data/none"
    run "$out/bench/idle_bench" load -d "$data/idle" -T "$topics"
    run "$out/bench/idle_bench" load -d "$data/none" -T 1 -P 1
    idle_server "$data/new"
    figure idle_rss MiB "$(awk "BEGIN { printf \"%.1f\", $rss_kib / 1024 }")"
    idle_server "$data/none"
    none_kib=$rss_kib
    idle_server "$data/idle"
    figure restart_1m s "$(awk "BEGIN { printf \"%.2f\", $ready_ms / 1000 }")"
    figure idle_bytes B "$(awk "BEGIN { printf \"%.1f\", ($rss_kib - $none_kib) * 1024 / ($topics * 100) }")"
    rm -rf "$data/idle" "$data/none" "$data/new"
fi
if wants random; then
    run "$out/bench/idle_bench" random -d "$data/random" -r "$(n 1 3)" -t "$(n 1 60)" \
        -k "$(n 100 100000)" -s 1024 -b "$(n 16 1024)"
    rm -rf "$data/random"
fi

# --- the table ---

# Figure, which of its columns, bound. An aim is not yet a mark.
marks='append_p50 ratio <= 1.6
append_p50_cross ratio <= 1.6
half_p99 ratio <= 2 aim
journal_1 ratio >= 0.6 aim
journal_10000 ratio >= 0.6 aim
direct_1m ratio >= 0.8 aim
direct_1m_amp ours <= 1.03
direct_64k_amp ours <= 1.03 aim
direct_1k_amp ours <= 2.3
replay ratio >= 0.8
replay_p99 ratio <= 1.5
recovery ratio <= 3
recovery_64 ratio <= 3
recovery_100k ratio <= 1.6
restart ratio <= 3
idle_bytes ours <= 64
idle_rss ours <= 30
restart_1m ours <= 3
random_100k ratio >= 0.8 aim
produce_100 ratio >= 0.85 aim
produce_100_cpu ours <= 0.08 aim
produce_1k ratio >= 0.75 aim
produce_1k_cpu ours <= 0.6
paced_p50 ours <= 0.6
paced_p99 ours <= 4
small ratio >= 0.7
small_cpu ours <= 10 aim
small_delay ratio >= 0.7
small_delay_cpu ours <= 10 aim
small_kafka_cpu ratio <= 0.093 aim
produce_100_kafka_cpu ratio <= 0.615 aim
produce_1k_kafka_cpu ratio <= 0.286 aim
consume_100_kafka ratio >= 1 aim
consume_1k_kafka ratio >= 1 aim
produce_100_lost ours <= 0
produce_1k_lost ours <= 0
paced_lost ours <= 0
small_lost ours <= 0
small_delay_lost ours <= 0
produce_100_kafka_lost ours <= 0
produce_1k_kafka_lost ours <= 0
small_kafka_lost ours <= 0'

echo
awk -F'\t' -v marks="$marks" -v smoke="$smoke" -v strict="$strict" '
BEGIN {
    n = split(marks, lines, "\n")
    for (i = 1; i <= n; i++) {
        split(lines[i], m, " ")
        column[m[1]] = m[2]; op[m[1]] = m[3]; bound[m[1]] = m[4]; aim[m[1]] = m[5]
    }
    form = "%-22s %-10s %10s %10s %7s %-17s %-14s %s\n"
    printf form, "figure", "unit", "ours", "reference", "ratio", "least - most", "mark", ""
}
{
    verdict = mark = ""
    if ($1 in op) {
        value = column[$1] == "ratio" ? $6 : $3
        ok = op[$1] == "<=" ? value + 0 <= bound[$1] : value + 0 >= bound[$1]
        mark = column[$1] " " op[$1] " " bound[$1]
        verdict = smoke ? "" : aim[$1] ? (ok ? "aim met" : "aim not met") : ok ? "met" : "NOT MET"
        if (!smoke && !aim[$1]) { if (ok) met++; else missed++ }
        if ($1 ~ /_lost$/ && !ok) lost = 1
    }
    printf form, $1, $2, $3, $4, $6, $7 " - " $8, mark, verdict
}
END {
    printf "\n%d marks met, %d not met\n", met, missed
    if (lost || (strict && missed)) exit 1
}' "$BENCH_FIGURES" || failed=$((failed + 1))
[ "$failed" = 0 ] || echo "$failed failed"
[ "$failed" = 0 ]
