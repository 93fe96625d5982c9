/* Committed offsets in memory: group -> topic -> partition -> row, and a list of all rows that
 * snapshots and expiry walk. */
#include "gateways/kafka/offsets_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* ---- rows in memory -------------------------------------------------------------------------- */

char *offsets_bytes_own(struct group_bytes b)
{
    char *mem = mem_new((size_t)(b.bytes > 0 ? b.bytes : 0) + 1);

    if (b.bytes > 0)
        memcpy(mem, b.mem, (size_t)b.bytes);
    return mem;
}

struct owner *offsets_owner_find(const struct offsets *o, struct group_bytes group)
{
    return group.bytes < 0 ? NULL : strmap_get(&o->owners, group.mem, (size_t)group.bytes);
}

struct row *offsets_row_find(const struct offsets *o, struct group_bytes group,
                             struct group_bytes topic, int32_t partition)
{
    struct owner *w = offsets_owner_find(o, group);
    struct owner_topic *t =
        w && topic.bytes >= 0 ? strmap_get(&w->topics, topic.mem, (size_t)topic.bytes) : NULL;

    return t ? hash_get(&t->rows, (uint32_t)partition) : NULL;
}

static struct owner_topic *topic_make(struct offsets *o, struct group_bytes group,
                                      struct group_bytes name)
{
    struct owner *w = offsets_owner_find(o, group);
    struct owner_topic *t;

    if (!w) {
        w = mem_new(sizeof *w);
        w->name = offsets_bytes_own(group);
        w->name_bytes = group.bytes;
        w->used_ms = loop_wall_ms(o->env.home);
        strmap_put(&o->owners, w->name, (size_t)w->name_bytes, w);
    }
    t = strmap_get(&w->topics, name.mem, (size_t)name.bytes);
    if (!t) {
        t = mem_new(sizeof *t);
        t->name = offsets_bytes_own(name);
        t->name_bytes = name.bytes;
        t->owner = w;
        strmap_put(&w->topics, t->name, (size_t)t->name_bytes, t);
    }
    return t;
}

void offsets_row_put(struct offsets *o, struct group_bytes group, const struct offset_entry *e,
                     int64_t time)
{
    struct owner_topic *t = topic_make(o, group, e->topic);
    struct row *r = hash_get(&t->rows, (uint32_t)e->partition);

    if (!r) {
        r = mem_new(sizeof *r);
        r->topic = t;
        r->partition = e->partition;
        hash_put(&t->rows, (uint32_t)e->partition, r);
        r->prev = o->last;
        *(o->last ? &o->last->next : &o->first) = r;
        o->last = r;
        o->n_rows++;
        t->owner->n_rows++;
    }
    free(r->metadata);
    r->metadata = e->metadata.bytes > 0 ? offsets_bytes_own(e->metadata) : NULL;
    r->metadata_bytes = e->metadata.bytes;
    r->offset = e->offset;
    r->time = time;
    r->leader_epoch = e->leader_epoch;
    memcpy(r->topic_id, e->topic_id, sizeof r->topic_id);
}

static void topic_drop_if_empty(struct offsets *o, struct owner_topic *t)
{
    struct owner *w = t->owner;

    if (t->rows.count)
        return;
    strmap_take(&w->topics, t->name, (size_t)t->name_bytes);
    hash_free(&t->rows);
    free(t->name);
    free(t);
    if (w->topics.count)
        return;
    strmap_take(&o->owners, w->name, (size_t)w->name_bytes);
    strmap_free(&w->topics);
    free(w->name);
    free(w);
}

void offsets_row_drop(struct offsets *o, struct row *r)
{
    struct owner_topic *t = r->topic;

    if (o->snapshot_at == r)
        o->snapshot_at = r->next;
    if (o->expire_at == r)
        o->expire_at = r->next;
    *(r->prev ? &r->prev->next : &o->first) = r->next;
    *(r->next ? &r->next->prev : &o->last) = r->prev;
    hash_take(&t->rows, (uint32_t)r->partition);
    t->owner->n_rows--;
    o->n_rows--;
    free(r->metadata);
    free(r);
    topic_drop_if_empty(o, t);
}

struct offset_row offsets_row_view(const struct row *r)
{
    return (struct offset_row){
        .topic = { r->topic->name, r->topic->name_bytes },
        .partition = r->partition,
        .topic_id = r->topic_id,
        .offset = r->offset,
        .leader_epoch = r->leader_epoch,
        .metadata = { r->metadata ? r->metadata : "", r->metadata_bytes },
        .commit_time = r->time,
    };
}

int offsets_state(const struct offsets *o)
{
    return o->state;
}

bool offsets_find(struct offsets *o, struct group_bytes group, struct group_bytes topic,
                  int32_t partition, struct offset_row *out)
{
    struct row *r = offsets_row_find(o, group, topic, partition);

    ASSERT_HOME(o->env.home);
    if (r)
        *out = offsets_row_view(r);
    return r != NULL;
}

bool offsets_has_group(struct offsets *o, struct group_bytes group)
{
    return offsets_owner_find(o, group) != NULL;
}

void offsets_each(struct offsets *o, struct group_bytes group,
                  void (*fn)(void *ctx, const struct offset_row *r), void *ctx)
{
    struct owner *w = offsets_owner_find(o, group);
    uint64_t pos = 0, row_pos;
    void *t, *r;

    ASSERT_HOME(o->env.home);
    while (w && strmap_next(&w->topics, &pos, NULL, NULL, &t))
        for (row_pos = 0; hash_next(&((struct owner_topic *)t)->rows, &row_pos, NULL, &r);) {
            struct offset_row view = offsets_row_view(r);

            fn(ctx, &view);
        }
}

void offsets_each_group(struct offsets *o, void (*fn)(void *ctx, struct group_bytes group),
                        void *ctx)
{
    uint64_t pos = 0;
    void *w;

    ASSERT_HOME(o->env.home);
    while (strmap_next(&o->owners, &pos, NULL, NULL, &w))
        fn(ctx, (struct group_bytes){ ((struct owner *)w)->name, ((struct owner *)w)->name_bytes });
}

struct offsets_stats offsets_stats(const struct offsets *o)
{
    struct offsets_stats s = o->stats;

    s.rows = o->n_rows;
    s.next_producer_id = o->next_id;
    return s;
}
