#include "gateways/kafka/recode.h"

enum { TURN_BYTES = 1 << 20 /* opened in one piece of work */ };

void kafka_recodes_begin(struct kafka_recodes *all, struct kafka_open *o)
{
    *all = (struct kafka_recodes){ .open = o, .loop_room = o->r->kafka->conf.recode_here };
    all->end = &all->head;
}

/* No client could have sent more without packing it: what opens to more is a bomb. And hundreds of
 * small ones must not become much more together than one request can bring. */
static uint32_t largest(const struct kafka_recodes *all)
{
    return all->open->r->kafka->conf.request_max;
}

static void recode(struct kafka_recodes *all, struct kafka_recode *c, size_t *room)
{
    c->rc = batch_recode(c->mem, c->bytes, c->codec, room, &c->out);
    if (c->rc < 0)
        return;
    if (c->out->len <= c->max && all->made + c->out->len <= largest(all)) {
        all->made += c->out->len;
        return;
    }
    buf_unref(c->out);
    c->out = NULL;
    c->rc = E_TOOBIG;
}

/* True: it is done, one way or the other. */
static bool recode_here(struct kafka_recodes *all, struct kafka_recode *c)
{
    size_t room = all->loop_room;
    bool opened;

    if (c->bytes > room)
        return false;
    recode(all, c, &all->loop_room);
    if (c->rc == 0)
        return true;
    /* What failed was work too, and a request may hold thousands of such. */
    opened = c->rc != E_TOOBIG || all->loop_room < room;
    all->loop_room = 0;
    return opened;
}

void kafka_recode(struct kafka_recodes *all, struct kafka_recode *c, const void *mem, size_t bytes,
                  enum batch_codec codec, uint32_t max)
{
    *c = (struct kafka_recode){ .mem = mem, .bytes = bytes, .codec = codec, .max = max };
    if (recode_here(all, c))
        return;
    *all->end = c;
    all->end = &c->next;
}

/* --- on the pool --- */

static void pool_turn(struct work *w)
{
    struct kafka_recodes *all = (struct kafka_recodes *)w;
    uint64_t opened = 0;

    while (all->head && opened < TURN_BYTES) {
        struct kafka_recode *c = all->head;
        size_t room = largest(all);

        recode(all, c, &room);
        /* A failure may have cost as much as it was allowed to. */
        opened += c->rc == 0 ? largest(all) - room : TURN_BYTES;
        all->head = c->next;
    }
}

static void pool_turned(struct work *w)
{
    struct kafka_recodes *all = (struct kafka_recodes *)w;

    if (all->head)
        pool_submit(all->open->r->kafka->env.pool, w);
    else
        kafka_open_less(all->open);
}

void kafka_recodes_end(struct kafka_recodes *all)
{
    if (!all->head)
        return;
    all->work = (struct work){ .run = pool_turn, .done = pool_turned, .loop = all->open->r->loop };
    kafka_open_more(all->open);
    pool_submit(all->open->r->kafka->env.pool, &all->work);
}
