# Apache Kafka as a peer of ours in the same run; sourced by bench/run.sh. One node, broker and
# controller, with Kafka's own defaults and the flags of the JVM that its start script gives.
#
# Differs from them in this only: the addresses; one replica for its own topics, as its example
# settings for one node say; and files of deleted topics are gone after a second instead of a
# minute (ours: journal.delete_grace_ms), or a run would need many times the space. What people
# read is written nowhere: no logger is among the packages that the broker depends on.
#
# PEER_KAFKA: a version of org.apache.kafka:kafka_2.13. The jars are kept in build/interop.
# shellcheck shell=bash

peer_version=${PEER_KAFKA:-4.2.0}
peer_jars=$PWD/build/interop/kafka-$peer_version/jars
peer_data=
peer_pid=
peer_port=

peer_fetch() {
    local folder=${peer_jars%/jars}

    [ ! -f "$folder/complete" ] || return 0
    mkdir -p "$folder"
    cat >"$folder/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>interop</groupId><artifactId>kafka</artifactId>
<version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>$peer_version</version></dependency></dependencies></project>
POM
    (cd "$folder" && timeout 400 mvn -q -B -DoutputDirectory=jars -DincludeScope=runtime \
        org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies) \
        >"$folder/mvn.out" 2>&1 && touch "$folder/complete"
}

peer_free_port() {
    python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}

peer_settings() {
    local controller

    peer_port=$(peer_free_port)
    controller=$(peer_free_port)
    cat <<SETTINGS
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$peer_port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$peer_port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$peer_data/logs
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.segment.delete.delay.ms=1000
SETTINGS
}

peer_spawn() {
    local id

    id=$(java -cp "$peer_jars/*" kafka.tools.StorageTool random-uuid 2>/dev/null) &&
        java -cp "$peer_jars/*" kafka.tools.StorageTool format -t "$id" \
            -c "$peer_data/server.properties" >"$peer_data/out" 2>&1 || return 1
    java -Xmx1G -Xms1G -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 \
        -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent \
        -XX:MaxInlineLevel=15 -Djava.awt.headless=true \
        "-Xlog:gc*:file=$peer_data/kafkaServer-gc.log:time,tags:filecount=10,filesize=100M" \
        -cp "$peer_jars/*" kafka.Kafka "$peer_data/server.properties" >>"$peer_data/out" 2>&1 &
    peer_pid=$!
}

# Waits until it answers; fails when it ends instead, or after a minute.
peer_ready() {
    local end=$((SECONDS + 60))

    until kcat -L -b "127.0.0.1:$peer_port" -m 2 >/dev/null 2>&1; do
        kill -0 "$peer_pid" 2>/dev/null && [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# kafka_peer_start FOLDER: sets peer_pid and peer_port. What is missing is said, as a SKIP, and
# nothing runs then.
kafka_peer_start() {
    local command

    for command in java mvn kcat python3; do
        command -v "$command" >/dev/null || { echo "SKIP: kafka: no $command" && return 1; }
    done
    peer_fetch || { echo "SKIP: kafka $peer_version cannot be fetched" && return 1; }
    peer_data=$(realpath -m "$1")
    rm -rf "$peer_data"
    mkdir -p "$peer_data"
    peer_settings >"$peer_data/server.properties"
    if ! peer_spawn || ! peer_ready; then
        echo "SKIP: kafka $peer_version does not start"
        tail -n 20 "$peer_data/out"
        kafka_peer_end
        return 1
    fi
    echo "peer: Apache Kafka $peer_version, $(java -version 2>&1 | sed -n 2p), process $peer_pid;" \
        "it acks what is in the page cache, and leaves the disk to the kernel"
}

kafka_peer_end() {
    [ -z "$peer_pid" ] || kill -KILL "$peer_pid" 2>/dev/null
    [ -z "$peer_pid" ] || wait "$peer_pid" 2>/dev/null
    [ -z "$peer_data" ] || rm -rf "$peer_data"
    peer_pid=
    peer_data=
}
