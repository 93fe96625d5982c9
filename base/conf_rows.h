/* The configuration: one row per key. Files, environment, --set, --print-config and docs/config.md
 * all follow from it.
 *
 * X(ID, name, type, default, min, max, choices, change, help)
 *   type     STRING  text; min and max bound its length
 *            BOOL    true or false
 *            U64     a whole number
 *            BYTES   a number of bytes, or with KiB, MiB, GiB, TiB
 *            BYTES_AUTO the same, or auto, which is 0; min is above 0
 *            POWER2  a number of bytes that is a power of two
 *            MS      a time with ms, s, m or h; kept in milliseconds
 *            ADDRESS host:port ([::1]:9092); min and max bound the port
 *            ADDRESS0 the same, or empty
 *            CHOICE  one of choices
 *            CHOICES a list of choices, each once, at least one
 *            U64S    a list of whole numbers
 *            PATHS   a list of folders, none with a comma, each once; min and max bound their length
 *   change   RELOAD: taken over on SIGHUP; RESTART: at the next start
 * Keys of one section stand together; a section's name is no key. */
#ifndef WEIR_BASE_CONF_ROWS_H
#define WEIR_BASE_CONF_ROWS_H

#include <stdint.h>

#define CONF_KIB (UINT64_C(1) << 10)
#define CONF_MIB (UINT64_C(1) << 20)
#define CONF_GIB (UINT64_C(1) << 30)
#define CONF_TIB (UINT64_C(1) << 40)
#define CONF_DAY (UINT64_C(86400000))

/* clang-format off */
#define CONF_ROWS(X) \
    X(DATA, "data", STRING, "./data", 1, 3000, NULL, RESTART, \
      "Folder that holds everything the server keeps; made when missing.") \
    X(DEVICES, "devices", PATHS, "", 1, 3000, NULL, RESTART, \
      "Further folders, one for each further device, up to 14, in any order. They and `data` belong together: none may be missing later. Topics' shards are spread over all of them; what was written before stays where it is.") \
    X(ROLES, "roles", CHOICES, "meta, broker, engine", 0, 0, "meta|broker|engine", RESTART, \
      "What this process does. In this version one process does all three.") \
    X(LOOPS, "loops", U64, "0", 0, 256, NULL, RESTART, \
      "Event loops, each on a thread of its own. 0: one fewer than cores, at least one.") \
    X(NODE_ID, "node.id", U64, "1", 1, INT32_MAX, NULL, RESTART, \
      "This node's number, as clients see it.") \
    X(LOG_LEVEL, "log.level", CHOICE, "info", 0, 0, "error|warn|info|debug", RELOAD, \
      "The least important lines that are still written to stderr.") \
    X(LOG_FORMAT, "log.format", CHOICE, "text", 0, 0, "text|json", RELOAD, \
      "Form of those lines.") \
    X(NET_MAX_CONNECTIONS, "net.max_connections", U64, "100000", 1, 10000000, NULL, RESTART, \
      "Connections open at once; more are closed as they come. The limit on open files bounds it too.") \
    X(NET_BACKLOG, "net.backlog", U64, "1024", 1, 65535, NULL, RESTART, \
      "Connections that may wait to be accepted.") \
    X(KAFKA_LISTEN, "kafka.listen", ADDRESS, "127.0.0.1:9092", 0, 65535, NULL, RESTART, \
      "Where Kafka clients connect. Port 0: any free one, named in the `ready` line.") \
    X(KAFKA_ADVERTISED, "kafka.advertised", ADDRESS0, "", 1, 65535, NULL, RESTART, \
      "The address that clients are told to come back to. Empty: the one that they reached.") \
    X(KAFKA_CLUSTER_ID, "kafka.cluster_id", STRING, "", 0, 64, NULL, RESTART, \
      "The cluster's name for clients. Empty: made from the store's identity.") \
    X(KAFKA_REQUEST_MAX, "kafka.request_max", BYTES, "100MiB", CONF_KIB, CONF_GIB, NULL, RESTART, \
      "Largest request; a larger one closes its connection.") \
    X(KAFKA_BATCH_MAX, "kafka.batch_max", BYTES, "1048588", 128, 512 * CONF_MIB, NULL, RESTART, \
      "Largest record batch; a larger one is refused.") \
    X(KAFKA_FETCH_MAX, "kafka.fetch_max", BYTES, "55MiB", CONF_KIB, CONF_GIB, NULL, RESTART, \
      "Largest answer to a fetch. One batch larger than this is still sent.") \
    X(KAFKA_CONN_PENDING_MAX, "kafka.conn_pending_max", BYTES, "16MiB", CONF_KIB, CONF_GIB, NULL, RESTART, \
      "Produced bytes of one connection not yet answered, past which it is not read.") \
    X(KAFKA_IDLE_CLOSE, "kafka.idle_close", MS, "10m", 1, 30 * CONF_DAY, NULL, RESTART, \
      "A connection without traffic for so long is closed.") \
    X(KAFKA_AUTO_CREATE, "kafka.auto_create", BOOL, "true", 0, 0, NULL, RESTART, \
      "Create a topic when a client asks for one that is missing.") \
    X(KAFKA_DEFAULT_PARTITIONS, "kafka.default_partitions", U64, "1", 1, 100000, NULL, RESTART, \
      "Partitions of a topic created without a number.") \
    X(KAFKA_PARTITIONS_MAX, "kafka.partitions_max", U64, "10000", 1, 1000000, NULL, RESTART, \
      "Most partitions of one topic.") \
    X(KAFKA_REBALANCE_DELAY, "kafka.rebalance_delay", MS, "0ms", 0, CONF_DAY, NULL, RESTART, \
      "How long the first rebalance of an empty group waits for more members.") \
    X(KAFKA_SESSION_MIN, "kafka.session_min", MS, "6s", 1, CONF_DAY, NULL, RESTART, \
      "Shortest session timeout that a group member may ask for.") \
    X(KAFKA_SESSION_MAX, "kafka.session_max", MS, "30m", 1, CONF_DAY, NULL, RESTART, \
      "Longest session timeout that a group member may ask for.") \
    X(KAFKA_OFFSETS_RETENTION, "kafka.offsets_retention", MS, "168h", 1, 49 * CONF_DAY, NULL, RESTART, \
      "How long committed offsets are kept once their group is empty.") \
    X(KAFKA_OFFSETS_SNAPSHOT_EVERY, "kafka.offsets_snapshot_every", U64, "10000", 1, INT32_MAX, NULL, RESTART, \
      "Records of committed offsets between two snapshots of them.") \
    X(TOPICS_RETENTION_MS, "topics.retention_ms", U64, "604800000", 0, INT64_MAX, NULL, RESTART, \
      "retention.ms of new topics that do not name it: a topic keeps what was right when it was made. 0: for ever.") \
    X(TOPICS_RETENTION_BYTES, "topics.retention_bytes", BYTES, "0", 0, INT64_MAX, NULL, RESTART, \
      "retention.bytes of new topics that do not name it, for each partition. 0: no limit.") \
    X(TOPICS_CLEANUP_POLICY, "topics.cleanup_policy", CHOICE, "delete", 0, 0, "delete|compact", RESTART, \
      "cleanup.policy of new topics that do not name it.") \
    X(COMPRESSION_SERVER_BATCHES, "compression.server_batches", CHOICE, "lz4", 0, 0, "lz4|zstd|none", RESTART, \
      "Codec of batches that the server builds itself, such as committed offsets, from 1 KiB on.") \
    X(JOURNAL_WAL_BUDGET, "journal.wal_budget", BYTES, "1GiB", 128 * CONF_KIB, 64 * CONF_TIB, NULL, RESTART, \
      "Live write-ahead log past which its oldest extents move to segments. Recovery reads this much.") \
    X(JOURNAL_WAL_EXTENT, "journal.wal_extent", POWER2, "2MiB", 64 * CONF_KIB, CONF_GIB, NULL, RESTART, \
      "Size of the pieces that the write-ahead log takes; a power of two.") \
    X(JOURNAL_SLAB_FIRST, "journal.slab_first", BYTES, "32MiB", 256 * CONF_KIB, CONF_TIB, NULL, RESTART, \
      "The first slab file, written through when the store is made; eight times journal.wal_extent at least, whatever is set here. Each further one doubles what there is.") \
    X(JOURNAL_SLAB_MAX, "journal.slab_max", BYTES, "1GiB", 256 * CONF_KIB, CONF_TIB, NULL, RESTART, \
      "No slab file is larger than this, or than the first.") \
    X(JOURNAL_SPACE_MAX, "journal.space_max", BYTES, "0", 0, UINT64_MAX, NULL, RESTART, \
      "All slab files of one device together. 0: what the file system gives.") \
    X(JOURNAL_SPACE_FLOOR, "journal.space_floor", BYTES, "256MiB", 4 * CONF_KIB, CONF_TIB, NULL, RESTART, \
      "Free bytes of the file system that slabs leave alone.") \
    X(JOURNAL_SPACE_URGENT, "journal.space_urgent", U64, "80", 5, 98, NULL, RESTART, \
      "Percent used of what a device may use, from which on space is given back before all else.") \
    X(JOURNAL_SPACE_THROTTLE, "journal.space_throttle", U64, "90", 5, 98, NULL, RESTART, \
      "Percent from which on producers are slowed down, the more the fuller it is.") \
    X(JOURNAL_SPACE_REFUSE, "journal.space_refuse", U64, "95", 5, 98, NULL, RESTART, \
      "Percent from which on producers are refused, with an error that they try again after. The rest is kept for trims, deletions and the server's own records.") \
    X(JOURNAL_BLOCK_MAX, "journal.block_max", BYTES, "1MiB", 4 * CONF_KIB, 256 * CONF_MIB, NULL, RESTART, \
      "A block of the write-ahead log, which is one flush, takes no more batches from this size on.") \
    X(JOURNAL_DIRECT_FROM, "journal.direct_from", BYTES_AUTO, "auto", 4 * CONF_KIB, CONF_GIB, NULL, RESTART, \
      "Batches from this size on are written once, straight to where they stay; smaller ones go through the WAL. auto: 16 to 64 KiB, found at each start by trying the device. Above every batch: none are.") \
    X(JOURNAL_BATCH_MAX, "journal.batch_max", BYTES, "16MiB", CONF_KIB, 512 * CONF_MIB, NULL, RESTART, \
      "Largest batch that is stored; at most three quarters of journal.wal_extent, whatever is set here.") \
    X(JOURNAL_CACHE_BYTES, "journal.cache_bytes", BYTES, "64MiB", 64 * CONF_KIB, CONF_TIB, NULL, RESTART, \
      "Memory for recent blocks, from which readers at the end are served.") \
    X(JOURNAL_READ_CACHE_BYTES, "journal.read_cache_bytes", BYTES, "64MiB", 64 * CONF_KIB, CONF_TIB, NULL, RESTART, \
      "Memory for what was read from disk, ahead of readers who go through a partition in order; none is taken before.") \
    X(JOURNAL_MEMORY_BYTES, "journal.memory_bytes", BYTES, "256MiB", 64 * CONF_KIB, CONF_TIB, NULL, RESTART, \
      "What all partitions of kind memory hold together; beyond it the oldest batches of the largest go.") \
    X(JOURNAL_PENDING_MAX, "journal.pending_max", BYTES, "64MiB", 64 * CONF_KIB, CONF_TIB, NULL, RESTART, \
      "Bytes taken and not yet durable, past which producers are not read.") \
    X(JOURNAL_COMMIT_DELAY_US, "journal.commit_delay_us", U64, "0", 0, 100000, NULL, RESTART, \
      "Microseconds from one commit's beginning to the next one's, at least: fewer, larger commits take less CPU, answers come later.") \
    X(JOURNAL_IDLE_CLOSE_MS, "journal.idle_close_ms", U64, "10", 1, 60000, NULL, RESTART, \
      "Milliseconds without appends after which a closing block is written.") \
    X(JOURNAL_DELETE_GRACE_MS, "journal.delete_grace_ms", U64, "10000", 1, 7 * CONF_DAY, NULL, RESTART, \
      "Milliseconds between a deletion and the reuse of its space.") \
    X(JOURNAL_WAL_AGE_MS, "journal.wal_age_ms", U64, "600000", 100, 7 * CONF_DAY, NULL, RESTART, \
      "Milliseconds after which write-ahead log moves to segments, however little it is, so that it can expire.") \
    X(JOURNAL_RETENTION_CHECK_MS, "journal.retention_check_ms", U64, "30000", 10, CONF_DAY, NULL, RESTART, \
      "Milliseconds between two looks for records that need not be kept any longer.") \
    X(JOURNAL_SCRUB_RATE, "journal.scrub_bytes_per_s", BYTES, "20MiB", 0, CONF_TIB, NULL, RESTART, \
      "Stored bytes read and checked in a second, in the background. 0: none are.") \
    X(JOURNAL_SCRUB_INTERVAL, "journal.scrub_interval", MS, "1h", 0, 30 * CONF_DAY, NULL, RESTART, \
      "Least time from the begin of one check of all that is stored to the next.") \
    X(JOURNAL_COMPACT_CHECK_MS, "journal.compact_check_ms", U64, "15000", 10, CONF_DAY, NULL, RESTART, \
      "Milliseconds between two looks for compacted topics with enough to compact.") \
    X(JOURNAL_COMPACT_MAP_BYTES, "journal.compact_map_bytes", BYTES, "64MiB", CONF_MIB, 64 * CONF_GIB, NULL, RESTART, \
      "Memory for the keys of one round of log compaction; what does not fit comes with the next round.") \
    X(JOURNAL_ACCEPT_LOSS, "journal.accept_loss", U64S, "", 0, UINT64_MAX, NULL, RESTART, \
      "Groups, as the log names them, that may be written again although records of theirs are damaged or lost.") \
    X(ROWS_CACHE, "rows.cache", BYTES, "32MiB", CONF_MIB, CONF_TIB, NULL, RESTART, \
      "Memory for the rows (RocksDB): cache and write buffers together.")
/* Keys of numbers: the first is never above the second. */
#define CONF_ORDER(X) \
    X(KAFKA_SESSION_MIN, KAFKA_SESSION_MAX) \
    X(KAFKA_BATCH_MAX, KAFKA_REQUEST_MAX) \
    X(KAFKA_DEFAULT_PARTITIONS, KAFKA_PARTITIONS_MAX) \
    X(JOURNAL_SPACE_URGENT, JOURNAL_SPACE_THROTTLE) \
    X(JOURNAL_SPACE_THROTTLE, JOURNAL_SPACE_REFUSE)
/* clang-format on */

#endif
