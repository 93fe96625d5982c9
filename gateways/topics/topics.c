#include "gateways/topics/topics.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/logger.h"
#include "base/rd.h"
#include "base/rng.h"
#include "base/strmap.h"
#include "gateways/topics/topics_int.h"
#include "journal/journal.h"

struct topics {
    struct topics_env env;
    pthread_rwlock_t lock;
    struct strmap by_name; /* under lock */
    struct strmap by_id;   /* under lock; the map's reference is by_name's */
    struct strmap busy;    /* home: name -> the change under way, others queued behind it */
    struct strmap internal;
    struct rng rng; /* home */
    uint8_t store_id[TOPIC_ID_BYTES];
    bool has_store_id;
    void (*on_delete)(void *ctx, const struct topic *t); /* home */
    void *on_delete_ctx;
    struct topics_start *start;
    struct work load;
    struct jrn_update id_update;
    int load_rc;
};

bool topic_name_ok(const char *name, size_t bytes)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    if (bytes < 1 || bytes > TOPIC_NAME_MAX || (bytes <= 2 && !memcmp(name, "..", bytes)))
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (!name[i] || !strchr(allowed, name[i]))
            return false;
    return true;
}

/* --- a topic --- */

struct topic *topic_ref(struct topic *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

static void free_settings(struct topic_setting *list, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        free(list[i].name);
        free(list[i].value);
    }
    free(list);
}

void topic_unref(struct topic *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    free_settings(t->settings, t->n_settings);
    free_settings(t->defaults, t->n_defaults);
    free(t->shards);
    free(t);
}

const char *topic_setting_in(const struct topic_setting *list, unsigned n, const char *name)
{
    for (unsigned i = 0; i < n; i++)
        if (!strcmp(list[i].name, name))
            return list[i].value;
    return NULL;
}

const char *topic_setting(const struct topic *t, const char *name)
{
    return topic_setting_in(t->settings, t->n_settings, name);
}

static struct topic_setting *copy_list(const struct topic_setting *from, unsigned n)
{
    struct topic_setting *list = mem_new((n + 1) * sizeof *list);

    for (unsigned i = 0; i < n; i++)
        list[i] = (struct topic_setting){ .name = mem_str(from[i].name),
                                          .value = mem_str(from[i].value) };
    return list;
}

static void copy_settings(struct topic *t, const struct topic_setting *settings, unsigned n,
                          const struct topic_setting *defaults, unsigned n_defaults)
{
    t->settings = copy_list(settings, n);
    t->n_settings = n;
    t->defaults = copy_list(defaults, n_defaults);
    t->n_defaults = n_defaults;
    topics_settle(t);
}

/* --- the map --- */

static void map_put(struct topics *ts, struct topic *t)
{
    struct topic *old;

    pthread_rwlock_wrlock(&ts->lock);
    old = strmap_put(&ts->by_name, t->name, t->name_bytes, t);
    strmap_put(&ts->by_id, (const char *)t->id, TOPIC_ID_BYTES, t);
    pthread_rwlock_unlock(&ts->lock);
    topic_unref(old);
}

static void map_take(struct topics *ts, struct topic *t)
{
    pthread_rwlock_wrlock(&ts->lock);
    strmap_take(&ts->by_name, t->name, t->name_bytes);
    strmap_take(&ts->by_id, (const char *)t->id, TOPIC_ID_BYTES);
    pthread_rwlock_unlock(&ts->lock);
    topic_unref(t);
}

static struct topic *map_get(struct topics *ts, struct strmap *m, const void *key, size_t bytes)
{
    struct topic *t;

    pthread_rwlock_rdlock(&ts->lock);
    t = strmap_get(m, key, bytes);
    if (t)
        topic_ref(t);
    pthread_rwlock_unlock(&ts->lock);
    return t;
}

struct topic *topics_find(struct topics *ts, const char *name, size_t bytes)
{
    return map_get(ts, &ts->by_name, name, bytes);
}

struct topic *topics_find_id(struct topics *ts, const uint8_t *id)
{
    return map_get(ts, &ts->by_id, id, TOPIC_ID_BYTES);
}

static int by_name_order(const void *a, const void *b)
{
    const struct topic *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

struct topic **topics_list(struct topics *ts, size_t *n)
{
    struct topic **all;
    uint64_t pos = 0;
    void *value;
    size_t i = 0;

    pthread_rwlock_rdlock(&ts->lock);
    all = mem_new((ts->by_name.count + 1) * sizeof *all);
    while (strmap_next(&ts->by_name, &pos, NULL, NULL, &value))
        all[i++] = topic_ref(value);
    pthread_rwlock_unlock(&ts->lock);
    qsort(all, i, sizeof *all, by_name_order);
    *n = i;
    return all;
}

/* --- handles --- */

struct opening {
    struct shard_open open;
    struct topic_open *asked;
};

static void shard_opened(struct shard_open *s)
{
    struct opening *op = (struct opening *)s;
    struct topic_open *o = op->asked;
    struct topic *t = o->topic;

    o->rc = s->rc;
    o->shard = s->rc == 0 ? s->shard : NULL;
    free(op);
    o->fn(o);
    topic_unref(t);
}

struct shard *topic_shard(struct topics *ts, const struct topic *t, uint32_t partition)
{
    ASSERT(partition < t->n_partitions);
    return shard_in_memory(ts->env.journal, t->shards[partition]);
}

int32_t topic_epoch(struct topics *ts, const struct topic *t, uint32_t partition)
{
    struct shard *s = topic_shard(ts, t, partition);
    int32_t epoch = s ? shard_epoch(s) : journal_epoch(ts->env.journal, t->shards[partition]);

    shard_unref(s);
    return epoch;
}

void topic_open(struct topics *ts, struct topic_open *o)
{
    struct opening *op = mem_new(sizeof *op);

    ASSERT(o->partition < o->topic->n_partitions);
    topic_ref(o->topic);
    op->asked = o;
    op->open.fn = shard_opened;
    op->open.loop = o->loop;
    shard_open(ts->env.journal, o->topic->shards[o->partition], &op->open);
}

/* --- changes: one under way per name, on the home loop --- */

/* What a change needs while its update is under way. */
struct update {
    struct jrn_update jrn;
    struct topics_change *change;
    struct topic *topic; /* the new one; for a deletion the old one */
};

static void change_answer(struct task *task)
{
    struct topics_change *c = (struct topics_change *)task;

    c->fn(c);
}

static void change_done(struct topics_change *c, int rc)
{
    struct topics *ts = c->topics;
    struct topics_change *next = c->next;

    strmap_take(&ts->busy, c->name, c->name_bytes);
    c->rc = rc;
    c->task.run = change_answer;
    loop_post(c->loop, &c->task);
    /* The next of this name takes the place with what is queued behind it. */
    if (next) {
        strmap_put(&ts->busy, next->name, next->name_bytes, next);
        next->run(next);
    }
}

static void change_home(struct task *task)
{
    struct topics_change *c = (struct topics_change *)task;
    struct topics_change *first;

    ASSERT_HOME(c->topics->env.home);
    first = strmap_get(&c->topics->busy, c->name, c->name_bytes);
    if (!first) {
        strmap_put(&c->topics->busy, c->name, c->name_bytes, c);
        c->run(c);
        return;
    }
    while (first->next)
        first = first->next;
    first->next = c;
}

static void change_post(struct topics *ts, struct topics_change *c,
                        void (*run)(struct topics_change *c))
{
    c->topics = ts;
    c->next = NULL;
    c->topic = NULL;
    c->run = run;
    c->task.run = change_home;
    loop_post(ts->env.home, &c->task);
}

static void topic_key(uint8_t *key, const struct topic *t)
{
    key[0] = 'T';
    memcpy(key + 1, t->id, TOPIC_ID_BYTES);
}

/* Writes t's row, creates its shards from the from'th on and gives those before the policy (where
 * from is all of them: an alteration), as one update. */
static void update_topic(struct topics_change *c, struct topic *t, uint32_t from,
                         void (*fn)(struct jrn_update *u))
{
    struct topics *ts = c->topics;
    struct update *u = mem_new(sizeof *u);
    struct jrn_change *changes = mem_new((t->n_partitions + 1) * sizeof *changes);
    size_t bytes = topics_row_bytes(t);
    uint8_t *row = mem_new(bytes);
    struct wr w = wr_of(row, bytes);
    uint8_t key[1 + TOPIC_ID_BYTES];
    unsigned n = 0;

    for (uint32_t i = from; i < t->n_partitions; i++)
        changes[n++] = (struct jrn_change){ .op = JRN_SHARD_CREATE,
                                            .shard = t->shards[i],
                                            .kind = c->kind,
                                            .class = SHARD_CLASS_DATA,
                                            .policy = c->policy };
    for (uint32_t i = 0; from == t->n_partitions && i < from; i++)
        changes[n++] = (struct jrn_change){ .op = JRN_SHARD_POLICY,
                                            .shard = t->shards[i],
                                            .policy = c->policy };
    topic_key(key, t);
    topics_row_write(&w, t);
    ASSERT(wr_ok(&w) && wr_used(&w) == bytes);
    changes[n++] = (struct jrn_change){ .op = JRN_ROW_PUT,
                                        .key = key,
                                        .key_bytes = sizeof key,
                                        .value = row,
                                        .value_bytes = (uint32_t)bytes };
    u->change = c;
    u->topic = t;
    u->jrn.fn = fn;
    u->jrn.loop = ts->env.home;
    journal_update(ts->env.journal, changes, n, &u->jrn);
    free(row);
    free(changes);
}

/* A new or grown topic is there. */
static void topic_written(struct jrn_update *j)
{
    struct update *u = (struct update *)j;
    struct topics_change *c = u->change;
    struct topic *t = u->topic;
    int rc = j->rc;

    free(u);
    if (rc < 0) {
        topic_unref(t);
        change_done(c, rc);
        return;
    }
    c->topic = topic_ref(t);
    map_put(c->topics, t);
    change_done(c, 0);
}

/* Names that differ only in '.' and '_' would share a metric's name. */
static bool names_collide(const struct topic *t, const char *name, size_t bytes)
{
    if (t->name_bytes != bytes || !memcmp(t->name, name, bytes))
        return false;
    for (size_t i = 0; i < bytes; i++) {
        char a = t->name[i] == '.' ? '_' : t->name[i];
        char b = name[i] == '.' ? '_' : name[i];

        if (a != b)
            return false;
    }
    return true;
}

static void warn_of_collision(struct topics *ts, const char *name, size_t bytes)
{
    uint64_t pos = 0;
    void *value;

    if (!memchr(name, '.', bytes) && !memchr(name, '_', bytes))
        return;
    pthread_rwlock_rdlock(&ts->lock);
    while (strmap_next(&ts->by_name, &pos, NULL, NULL, &value))
        if (names_collide(value, name, bytes))
            LOG_WARN("topic.name_collides", F_STR("with", ((struct topic *)value)->name));
    pthread_rwlock_unlock(&ts->lock);
}

static void new_id(struct topics *ts, uint8_t *id)
{
    struct topic *t;
    bool taken;

    do {
        struct wr w = wr_of(id, TOPIC_ID_BYTES);

        wr_u64le(&w, rng_u64(&ts->rng));
        wr_u64le(&w, rng_u64(&ts->rng));
        id[6] = (uint8_t)((id[6] & 0x0f) | 0x40); /* a random UUID, RFC 9562 version 4 */
        id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
        t = topics_find_id(ts, id);
        taken = t != NULL;
        topic_unref(t);
    } while (taken);
}

static int settings_check(const struct topics_change *c)
{
    if (c->n_settings > TOPIC_SETTINGS_MAX)
        return E_TOOBIG;
    for (unsigned i = 0; i < c->n_settings; i++)
        if (strlen(c->settings[i].name) > TOPICS_SETTING_NAME_MAX ||
            strlen(c->settings[i].value) > TOPICS_SETTING_VALUE_MAX)
            return E_TOOBIG;
    return 0;
}

static int create_check(const struct topics_change *c)
{
    if (!topic_name_ok(c->name, c->name_bytes) || !c->n_partitions)
        return E_INVALID;
    return c->n_partitions > TOPIC_PARTITIONS_MAX ? E_TOOBIG : settings_check(c);
}

static void run_create(struct topics_change *c)
{
    struct topics *ts = c->topics;
    struct topic *t;
    int rc = create_check(c);

    if (rc < 0) {
        change_done(c, rc);
        return;
    }
    c->topic = topics_find(ts, c->name, c->name_bytes);
    if (c->topic) {
        change_done(c, E_EXISTS);
        return;
    }
    t = topics_topic_new(c->name, c->name_bytes, c->n_partitions);
    new_id(ts, t->id);
    t->created_ms = loop_wall_ms(ts->env.home);
    copy_settings(t, c->settings, c->n_settings, c->defaults, c->n_defaults);
    if (topics_row_bytes(t) > TOPICS_ROW_MAX) {
        topic_unref(t);
        change_done(c, E_TOOBIG);
        return;
    }
    /* Ids are never used twice, not even those of a creation that fails. */
    for (uint32_t i = 0; i < t->n_partitions; i++)
        t->shards[i] = journal_shard_new(ts->env.journal, SHARD_CLASS_DATA);
    warn_of_collision(ts, t->name, t->name_bytes);
    update_topic(c, t, 0, topic_written);
}

void topics_create(struct topics *ts, struct topics_change *c)
{
    change_post(ts, c, run_create);
}

/* With n partitions, those of the old one first; and other settings. */
static struct topic *topic_like(const struct topic *old, uint32_t n,
                                const struct topic_setting *settings, unsigned n_settings)
{
    struct topic *t = topics_topic_new(old->name, old->name_bytes, n);

    memcpy(t->id, old->id, TOPIC_ID_BYTES);
    t->created_ms = old->created_ms;
    copy_settings(t, settings, n_settings, old->defaults, old->n_defaults);
    memcpy(t->shards, old->shards, old->n_partitions * sizeof *t->shards);
    return t;
}

static void run_grow(struct topics_change *c)
{
    struct topics *ts = c->topics;
    struct topic *old = topics_find(ts, c->name, c->name_bytes);
    struct topic *t;
    uint32_t from;

    if (!old || c->n_partitions <= old->n_partitions || c->n_partitions > TOPIC_PARTITIONS_MAX) {
        int rc = !old ? E_NOTFOUND : c->n_partitions > TOPIC_PARTITIONS_MAX ? E_TOOBIG : E_INVALID;

        topic_unref(old);
        change_done(c, rc);
        return;
    }
    if (c->edit) {
        int rc = c->edit(c, old);

        if (rc < 0) {
            topic_unref(old);
            change_done(c, rc);
            return;
        }
    }
    from = old->n_partitions;
    t = topic_like(old, c->n_partitions, old->settings, old->n_settings);
    topic_unref(old);
    for (uint32_t i = from; i < t->n_partitions; i++)
        t->shards[i] = journal_shard_new(ts->env.journal, SHARD_CLASS_DATA);
    update_topic(c, t, from, topic_written);
}

void topics_grow(struct topics *ts, struct topics_change *c)
{
    change_post(ts, c, run_grow);
}

static void run_alter(struct topics_change *c)
{
    struct topic *old = topics_find(c->topics, c->name, c->name_bytes), *t;
    int rc = old ? c->edit(c, old) : E_NOTFOUND;

    if (rc >= 0)
        rc = settings_check(c);
    if (rc < 0) {
        topic_unref(old);
        change_done(c, rc);
        return;
    }
    t = topic_like(old, old->n_partitions, c->settings, c->n_settings);
    topic_unref(old);
    if (topics_row_bytes(t) > TOPICS_ROW_MAX) {
        topic_unref(t);
        change_done(c, E_TOOBIG);
        return;
    }
    update_topic(c, t, t->n_partitions, topic_written);
}

void topics_alter(struct topics *ts, struct topics_change *c)
{
    change_post(ts, c, run_alter);
}

static void topic_deleted(struct jrn_update *j)
{
    struct update *u = (struct update *)j;
    struct topics_change *c = u->change;
    struct topics *ts = c->topics;
    struct topic *t = u->topic;
    int rc = j->rc;

    free(u);
    if (rc == 0) {
        map_take(ts, t);
        if (ts->on_delete)
            ts->on_delete(ts->on_delete_ctx, t);
    }
    topic_unref(t);
    change_done(c, rc);
}

static void run_delete(struct topics_change *c)
{
    struct topics *ts = c->topics;
    struct topic *t = topics_find(ts, c->name, c->name_bytes);
    uint8_t key[1 + TOPIC_ID_BYTES];
    struct jrn_change *changes;
    struct update *u;
    unsigned n = 0;

    if (!t) {
        change_done(c, E_NOTFOUND);
        return;
    }
    changes = mem_new((t->n_partitions + 1) * sizeof *changes);
    for (uint32_t i = 0; i < t->n_partitions; i++)
        changes[n++] = (struct jrn_change){ .op = JRN_SHARD_DELETE, .shard = t->shards[i] };
    topic_key(key, t);
    changes[n++] = (struct jrn_change){ .op = JRN_ROW_DELETE, .key = key, .key_bytes = sizeof key };
    u = mem_new(sizeof *u);
    u->change = c;
    u->topic = t;
    u->jrn.fn = topic_deleted;
    u->jrn.loop = ts->env.home;
    journal_update(ts->env.journal, changes, n, &u->jrn);
    free(changes);
}

void topics_delete(struct topics *ts, struct topics_change *c)
{
    change_post(ts, c, run_delete);
}

void topics_on_delete(struct topics *ts, void (*fn)(void *ctx, const struct topic *t), void *ctx)
{
    ts->on_delete = fn;
    ts->on_delete_ctx = ctx;
}

/* --- internal shards --- */

struct internal {
    uint64_t shard;
};

static void internal_answer(struct task *task)
{
    struct topics_internal *q = (struct topics_internal *)task;

    q->fn(q);
}

static void internal_put(struct topics *ts, const char *name, size_t bytes, uint64_t shard)
{
    struct internal *in = mem_new(sizeof *in);

    in->shard = shard;
    free(strmap_put(&ts->internal, name, bytes, in));
}

struct internal_update {
    struct jrn_update jrn;
    struct topics_internal *asked;
};

static void internal_made(struct jrn_update *j)
{
    struct internal_update *u = (struct internal_update *)j;
    struct topics_internal *q = u->asked;

    q->rc = j->rc;
    free(u);
    if (q->rc == 0)
        internal_put(q->topics, q->name, strlen(q->name), q->shard);
    q->task.run = internal_answer;
    loop_post(q->loop, &q->task);
}

static void internal_make(struct topics_internal *q)
{
    struct topics *ts = q->topics;
    struct internal_update *u = mem_new(sizeof *u);
    size_t name_bytes = strlen(q->name);
    uint8_t key[1 + TOPIC_NAME_MAX], value[9];
    struct wr w = wr_of(value, sizeof value);
    struct jrn_change changes[2] = { 0 };

    q->shard = journal_shard_new(ts->env.journal, SHARD_CLASS_INTERNAL);
    ASSERT(name_bytes >= 1 && name_bytes <= TOPIC_NAME_MAX);
    key[0] = 'I';
    memcpy(key + 1, q->name, name_bytes);
    wr_u8(&w, TOPICS_ROW_VERSION);
    wr_u64le(&w, q->shard);
    changes[0] = (struct jrn_change){ .op = JRN_SHARD_CREATE,
                                      .shard = q->shard,
                                      .kind = SHARD_SEGMENT,
                                      .class = SHARD_CLASS_INTERNAL };
    changes[1] = (struct jrn_change){ .op = JRN_ROW_PUT,
                                      .key = key,
                                      .key_bytes = (uint32_t)(1 + name_bytes),
                                      .value = value,
                                      .value_bytes = sizeof value };
    u->asked = q;
    u->jrn.fn = internal_made;
    u->jrn.loop = ts->env.home;
    journal_update(ts->env.journal, changes, 2, &u->jrn);
}

static void internal_home(struct task *task)
{
    struct topics_internal *q = (struct topics_internal *)task;
    struct internal *in = strmap_get(&q->topics->internal, q->name, strlen(q->name));

    if (!in) {
        internal_make(q);
        return;
    }
    q->rc = 0;
    q->shard = in->shard;
    q->task.run = internal_answer;
    loop_post(q->loop, &q->task);
}

void topics_internal_shard(struct topics *ts, struct topics_internal *q)
{
    q->topics = ts;
    q->task.run = internal_home;
    loop_post(ts->env.home, &q->task);
}

/* --- start --- */

static int load_topic(struct topics *ts, const uint8_t *key, size_t key_bytes, const void *value,
                      size_t value_bytes)
{
    struct topic *t =
        key_bytes == 1 + TOPIC_ID_BYTES ? topics_row_read(key + 1, value, value_bytes) : NULL;

    if (!t)
        return err_set(&ts->start->err, E_CORRUPT, "a topic's row cannot be read");
    map_put(ts, t);
    return 0;
}

static int load_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct topics *ts = ctx;
    const uint8_t *k = key;
    struct rd r = rd_of(value, value_bytes);
    uint8_t version = rd_u8(&r);
    const uint8_t *id;

    if (version != TOPICS_ROW_VERSION && (k[0] != 'T' || version != TOPIC_ROW_VERSION))
        return err_set(&ts->start->err, version ? E_VERSION : E_CORRUPT,
                       "a row of version %u: written by a newer server", version);
    if (k[0] == 'T')
        return load_topic(ts, k, key_bytes, value, value_bytes);
    if (k[0] == 'I') {
        uint64_t shard = rd_u64le(&r);

        if (!rd_ok(&r) || key_bytes < 2)
            return err_set(&ts->start->err, E_CORRUPT, "an internal shard's row cannot be read");
        internal_put(ts, (const char *)k + 1, key_bytes - 1, shard);
        return 0;
    }
    id = rd_bytes(&r, TOPIC_ID_BYTES);
    if (!id)
        return err_set(&ts->start->err, E_CORRUPT, "the store's id cannot be read");
    memcpy(ts->store_id, id, TOPIC_ID_BYTES);
    ts->has_store_id = true;
    return 0;
}

static void load_run(struct work *w)
{
    struct topics *ts = (struct topics *)((char *)w - offsetof(struct topics, load));
    static const char owners[] = "TIS";

    ts->load_rc = 0;
    for (const char *o = owners; *o && ts->load_rc == 0; o++)
        ts->load_rc = journal_rows_scan(ts->env.journal, o, 1, load_row, ts);
}

static void start_answer(struct task *task)
{
    struct topics_start *s = (struct topics_start *)task;

    s->fn(s);
}

static void start_done(struct topics *ts, int rc)
{
    struct topics_start *s = ts->start;

    ts->start = NULL;
    s->rc = rc;
    if (rc < 0 && !s->err.text[0])
        err_set(&s->err, rc, "topics cannot be read: %s", err_text(rc));
    s->task.run = start_answer;
    loop_post(s->loop, &s->task);
}

static void store_id_made(struct jrn_update *u)
{
    struct topics *ts = (struct topics *)((char *)u - offsetof(struct topics, id_update));

    start_done(ts, u->rc);
}

static void make_store_id(struct topics *ts)
{
    uint8_t value[1 + TOPIC_ID_BYTES] = { TOPICS_ROW_VERSION };
    struct jrn_change change = {
        .op = JRN_ROW_PUT, .key = "Sid", .key_bytes = 3, .value = value, .value_bytes = sizeof value
    };

    new_id(ts, ts->store_id);
    memcpy(value + 1, ts->store_id, TOPIC_ID_BYTES);
    ts->id_update.fn = store_id_made;
    ts->id_update.loop = ts->env.home;
    journal_update(ts->env.journal, &change, 1, &ts->id_update);
}

static void load_done(struct work *w)
{
    struct topics *ts = (struct topics *)((char *)w - offsetof(struct topics, load));

    if (ts->load_rc < 0 || ts->has_store_id)
        start_done(ts, ts->load_rc);
    else
        make_store_id(ts);
}

void topics_start(struct topics *ts, struct topics_start *done)
{
    ts->start = done;
    ts->load = (struct work){ .run = load_run, .done = load_done, .loop = ts->env.home };
    pool_submit(ts->env.pool, &ts->load);
}

const uint8_t *topics_store_id(const struct topics *ts)
{
    return ts->store_id;
}

struct topics *topics_new(const struct topics_env *env)
{
    struct topics *ts = mem_new(sizeof *ts);

    ts->env = *env;
    pthread_rwlock_init(&ts->lock, NULL);
    rng_seed(&ts->rng, env->seed ^ hash_mix(journal_start(env->journal)));
    return ts;
}

void topics_free(struct topics *ts)
{
    uint64_t pos = 0;
    void *value;

    if (!ts)
        return;
    ASSERT(!ts->busy.count);
    while (strmap_next(&ts->by_name, &pos, NULL, NULL, &value))
        topic_unref(value);
    pos = 0;
    while (strmap_next(&ts->internal, &pos, NULL, NULL, &value))
        free(value);
    strmap_free(&ts->by_name);
    strmap_free(&ts->by_id);
    strmap_free(&ts->busy);
    strmap_free(&ts->internal);
    pthread_rwlock_destroy(&ts->lock);
    free(ts);
}
