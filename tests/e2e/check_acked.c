/* check_acked: reads a whole topic and holds it against the log of what was acked (acked.h).
 *
 *   check_acked -b BROKERS -t TOPIC -l LOG [-l LOG]... [-f]
 *
 * Claims: offsets are dense from 0; each acked record is at its offset with its bytes; nothing is
 * there that was not sent; an idempotent run's records are there once and in order; the others'
 * repeats are counted. -f: the values are not made ones, so that only what was acked can be
 * recognised. What is acked while it runs does not count. Prints one line of counts. Exit 0: all
 * true; 1: not; 2: could not be seen. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/e2e/acked.h"

enum { PARTITIONS_MAX = 20000, STUCK_S = 60, BATCH = 1000, LOGS_MAX = 16 };

struct ack {
    int64_t offset;
    uint64_t number, hash;
    uint32_t run;
    bool found; /* at its offset, with its bytes */
};

struct run {
    uint32_t id;
    bool idempotent;
    uint8_t *seen; /* by number: how often, at most 255 */
    uint64_t n_seen;
};

struct part {
    struct ack *acks; /* by offset */
    size_t n_acks, room, at;
    int64_t next, end; /* what is read next, and up to where */
    uint64_t *last;    /* by run: its highest number so far, plus one */
};

static struct {
    const char *brokers, *topic, *logs[LOGS_MAX];
    int n_logs;
    bool foreign;
    struct run *runs;
    uint32_t n_runs;
    struct part *parts;
    int n_parts;
} all;

static struct {
    uint64_t records, acked, lost, moved, changed, foreign, holes, repeats, repeats_idempotent;
    uint64_t disorder, unreadable;
} found;

static void *grow(void *mem, size_t n, size_t bytes)
{
    void *more = realloc(mem, n * bytes);

    if (!more)
        abort();
    return more;
}

/* ---- the log ---- */

static struct run *run_get(uint32_t id)
{
    for (uint32_t i = 0; i < all.n_runs; i++)
        if (all.runs[i].id == id)
            return &all.runs[i];
    all.runs = grow(all.runs, all.n_runs + 1, sizeof *all.runs);
    all.runs[all.n_runs] = (struct run){ .id = id };
    return &all.runs[all.n_runs++];
}

static bool ack_add(int partition, const struct ack *a)
{
    struct part *p;

    if (partition < 0 || partition >= PARTITIONS_MAX)
        return false;
    if (partition >= all.n_parts) {
        all.parts = grow(all.parts, (size_t)partition + 1, sizeof *all.parts);
        memset(all.parts + all.n_parts, 0,
               (size_t)(partition + 1 - all.n_parts) * sizeof *all.parts);
        all.n_parts = partition + 1;
    }
    p = &all.parts[partition];
    if (p->n_acks == p->room) {
        p->room = p->room ? p->room * 2 : 1024;
        p->acks = grow(p->acks, p->room, sizeof *p->acks);
    }
    p->acks[p->n_acks++] = *a;
    found.acked++;
    return true;
}

static bool log_line(const char *line)
{
    struct ack a = { 0 };
    int partition, idempotent;
    uint32_t run;

    switch (line[0]) {
    case 'R':
        if (sscanf(line, "R %" SCNu32 " %d", &run, &idempotent) != 2)
            return false;
        run_get(run)->idempotent = idempotent;
        return true;
    case 'A':
        return sscanf(line, "A %" SCNu32 " %d %" SCNd64 " %" SCNu64 " %" SCNx64, &a.run, &partition,
                      &a.offset, &a.number, &a.hash) == 5 &&
               ack_add(partition, &a);
    default:
        return line[0] == 'F' || line[0] == 'E';
    }
}

static int by_offset(const void *a, const void *b)
{
    const struct ack *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static bool log_read(const char *path)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t room = 0, lines = 0;
    ssize_t n;
    bool ok = f != NULL;

    while (ok && (n = getline(&line, &room, f)) > 0) {
        lines++;
        if (line[n - 1] == '\n')
            ok = log_line(line);
    }
    if (!ok)
        fprintf(stderr, "%s: cannot be read after line %zu\n", path, lines);
    free(line);
    if (f)
        fclose(f);
    return ok;
}

static bool logs_read(void)
{
    for (int i = 0; i < all.n_logs; i++)
        if (!log_read(all.logs[i]))
            return false;
    for (int i = 0; i < all.n_parts; i++)
        if (all.parts[i].n_acks)
            qsort(all.parts[i].acks, all.parts[i].n_acks, sizeof *all.parts[i].acks, by_offset);
    return true;
}

/* ---- one record ---- */

/* What number's place in its run says: a repeat, or out of order. */
static void note_number(struct part *p, const struct acked_value *v)
{
    struct run *r = run_get(v->run);
    size_t index = (size_t)(r - all.runs);

    if (v->number >= r->n_seen) {
        uint64_t n = (v->number + 1) * 2;

        r->seen = grow(r->seen, n, 1);
        memset(r->seen + r->n_seen, 0, n - r->n_seen);
        r->n_seen = n;
    }
    if (r->seen[v->number] < UINT8_MAX && r->seen[v->number]++ > 0) {
        found.repeats++;
        found.repeats_idempotent += r->idempotent;
    }
    if (r->idempotent && v->number + 1 <= p->last[index])
        found.disorder++;
    p->last[index] = v->number + 1;
}

static void note_ack(struct part *p, const rd_kafka_message_t *m)
{
    uint64_t hash = XXH3_64bits(m->payload, m->len);

    while (p->at < p->n_acks && p->acks[p->at].offset < m->offset)
        p->at++;
    for (size_t i = p->at; i < p->n_acks && p->acks[i].offset == m->offset; i++) {
        p->acks[i].found = p->acks[i].hash == hash;
        found.changed += !p->acks[i].found;
        if (i > p->at)
            found.moved++; /* one place was promised twice */
    }
}

static void note_record(const rd_kafka_message_t *m)
{
    struct part *p = &all.parts[m->partition];
    struct acked_value v;
    uint32_t runs = all.n_runs;

    if (m->offset != p->next)
        found.holes++;
    p->next = m->offset + 1;
    found.records++;
    note_ack(p, m);
    if (all.foreign)
        return;
    if (!acked_parse(m->payload, m->len, &v)) {
        found.foreign++;
        return;
    }
    run_get(v.run);
    if (all.n_runs !=
        runs) { /* a run whose log is elsewhere: cannot be judged, but must not be here */
        all.n_runs = runs;
        found.foreign++;
        return;
    }
    note_number(p, &v);
}

/* ---- reading ---- */

static rd_kafka_t *client_new(void)
{
    static const char *const settings[][2] = { { "check.crcs", "true" },
                                               { "enable.partition.eof", "true" },
                                               { "fetch.wait.max.ms", "50" },
                                               { "reconnect.backoff.ms", "20" },
                                               { "reconnect.backoff.max.ms", "200" },
                                               { "fetch.error.backoff.ms", "20" },
                                               { "auto.offset.reset", "error" },
                                               { "log_level", "2" } };
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char text[256];

    rd_kafka_conf_set(conf, "bootstrap.servers", all.brokers, NULL, 0);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (rd_kafka_conf_set(conf, settings[i][0], settings[i][1], text, sizeof text))
            return NULL;
    return rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
}

/* Finds out how many partitions there are and how far each reaches. */
static bool limits_get(rd_kafka_t *rk, rd_kafka_topic_t *topic)
{
    const struct rd_kafka_metadata *md;
    rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 0, topic, &md, 20000);
    int n = 0;

    if (err || md->topic_cnt != 1 || md->topics[0].err) {
        fprintf(stderr, "metadata: %s\n",
                rd_kafka_err2name(err             ? err
                                  : md->topic_cnt ? md->topics[0].err
                                                  : 0));
        return false;
    }
    n = md->topics[0].partition_cnt;
    rd_kafka_metadata_destroy(md);
    if (n < all.n_parts)
        found.lost++; /* a partition that acked something is gone: its acks are counted below too */
    if (n > all.n_parts) {
        all.parts = grow(all.parts, (size_t)n, sizeof *all.parts);
        memset(all.parts + all.n_parts, 0, (size_t)(n - all.n_parts) * sizeof *all.parts);
        all.n_parts = n;
    }
    for (int i = 0; i < n; i++) {
        int64_t low, high;

        all.parts[i].last = calloc(all.n_runs + 1, sizeof *all.parts[i].last);
        err = rd_kafka_query_watermark_offsets(rk, all.topic, i, &low, &high, 20000);
        if (err) {
            fprintf(stderr, "partition %d: %s\n", i, rd_kafka_err2name(err));
            return false;
        }
        found.holes += low != 0;
        all.parts[i].end = high;
    }
    return true;
}

static int n_unfinished(void)
{
    int n = 0;

    for (int i = 0; i < all.n_parts; i++)
        n += all.parts[i].next < all.parts[i].end;
    return n;
}

/* One message, or an event of its partition. */
static void take(const rd_kafka_message_t *m)
{
    if (!m->err) {
        note_record(m);
    } else if (m->err != RD_KAFKA_RESP_ERR__PARTITION_EOF &&
               m->err != RD_KAFKA_RESP_ERR__TRANSPORT) {
        fprintf(stderr, "partition %d offset %" PRId64 ": %s\n", m->partition, m->offset,
                rd_kafka_err2name(m->err));
        found.unreadable++;
        all.parts[m->partition].end = 0;
    }
}

static bool read_all(rd_kafka_topic_t *topic, rd_kafka_queue_t *queue)
{
    rd_kafka_message_t *batch[BATCH];
    time_t last = time(NULL);
    ssize_t n;

    for (int i = 0; i < all.n_parts; i++)
        if (all.parts[i].end > 0 && rd_kafka_consume_start_queue(topic, i, 0, queue) < 0)
            return false;
    while (n_unfinished() > 0) {
        n = rd_kafka_consume_batch_queue(queue, 200, batch, BATCH);
        for (ssize_t i = 0; i < n; i++) {
            take(batch[i]);
            rd_kafka_message_destroy(batch[i]);
        }
        if (n > 0)
            last = time(NULL);
        if (time(NULL) - last > STUCK_S) {
            fprintf(stderr, "nothing came for %d s, %d partitions are not read to their end\n",
                    STUCK_S, n_unfinished());
            return false;
        }
    }
    return true;
}

static bool look(void)
{
    rd_kafka_t *rk = client_new();
    rd_kafka_topic_t *topic;
    rd_kafka_queue_t *queue;
    bool ok;

    if (!rk)
        return false;
    topic = rd_kafka_topic_new(rk, all.topic, NULL);
    queue = rd_kafka_queue_new(rk);
    ok = limits_get(rk, topic) && read_all(topic, queue);
    rd_kafka_queue_destroy(queue);
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    return ok;
}

/* ---- the verdict ---- */

static bool seen_somewhere(const struct ack *a)
{
    const struct run *r = run_get(a->run);

    return a->number < r->n_seen && r->seen[a->number] > 0;
}

static void count_missing(void)
{
    for (int i = 0; i < all.n_parts; i++) {
        const struct part *p = &all.parts[i];

        for (size_t j = 0; j < p->n_acks; j++) {
            if (p->acks[j].found)
                continue;
            if (found.lost + found.moved < 5)
                fprintf(stderr,
                        "run %u number %" PRIu64 ": not at partition %d offset %" PRId64 "\n",
                        p->acks[j].run, p->acks[j].number, i, p->acks[j].offset);
            if (seen_somewhere(&p->acks[j]))
                found.moved++;
            else
                found.lost++;
        }
    }
}

static int verdict(void)
{
    uint64_t wrong = found.lost + found.moved + found.changed + found.foreign + found.holes +
                     found.repeats_idempotent + found.disorder + found.unreadable;

    printf("partitions %d records %" PRIu64 " acked %" PRIu64 " lost %" PRIu64 " moved %" PRIu64
           " changed %" PRIu64 " foreign %" PRIu64 " holes %" PRIu64 " repeats %" PRIu64
           " of_idempotent %" PRIu64 " disorder %" PRIu64 " unreadable %" PRIu64 "\n",
           all.n_parts, found.records, found.acked, found.lost, found.moved, found.changed,
           found.foreign, found.holes, found.repeats, found.repeats_idempotent, found.disorder,
           found.unreadable);
    return wrong ? 1 : 0;
}

int main(int argc, char **argv)
{
    int c;

    while ((c = getopt(argc, argv, "b:t:l:f")) != -1) {
        switch (c) {
        case 'b':
            all.brokers = optarg;
            break;
        case 't':
            all.topic = optarg;
            break;
        case 'l':
            if (all.n_logs < LOGS_MAX)
                all.logs[all.n_logs++] = optarg;
            break;
        case 'f':
            all.foreign = true;
            break;
        default:
            argc = 0;
        }
    }
    if (argc == 0 || !all.brokers || !all.topic || all.n_logs == 0) {
        fputs("usage: check_acked -b BROKERS -t TOPIC -l LOG [-l LOG]... [-f]\n", stderr);
        return 2;
    }
    if (!logs_read() || !look())
        return 2;
    count_missing();
    return verdict();
}
