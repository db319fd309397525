/* share.c - a worker's part of what the process may have (design.md section 6, "Limits without sharing").
 *
 * How it works. Each worker begins with an equal part of every limit. One that comes near its part says so; then the main thread asks all
 * workers, once a second as long as it matters, what they use of this limit, and deals it anew. A worker that is asked gives back at once
 * what it does not use of a number of flows, so the parts never add up to more than the whole; of a rate, a second's worth may. What was dealt
 * of a client's limits is remembered in every worker, its flows or not, until the main thread deals equal parts again. */
#include "forward_impl.h"

/* ---- arithmetic ------------------------------------------------------------------------------------------------------ */

bool share_same(const struct share *a, const struct share *b)
{
    return a->kind == b->kind && a->dir == b->dir && a->limit == b->limit && ip_equal(&a->source, &b->source);
}

static bool is_rate(const struct share *s)
{
    return s->kind == SHARE_RATE;
}

/* What a worker keeps in any case: the flows that it has and may get before it hears of us; of a rate, enough to begin with. */
static uint64_t least_of(const struct share *s, uint64_t whole, uint32_t n)
{
    uint64_t least = whole / 16 / n;

    if (!is_rate(s))
        return s->part;
    return least == 0 && whole >= n ? 1 : least; /* 0 would be no limit */
}

static uint64_t need_of(const struct share *s, uint64_t whole, uint32_t n)
{
    uint64_t need = s->more      ? whole
                    : is_rate(s) ? s->used + s->used / 4
                                 : s->part,
             least = least_of(s, whole, n);

    return need < whole ? (need > least ? need - least : 0) : whole;
}

/* @rest goes to whoever needs it, equal parts first; what nobody needs is everybody's. */
static void pour(struct share *const *each, uint32_t n, uint64_t whole, uint64_t rest)
{
    bool done[SHARE_WORKERS_MAX] = { false };
    uint32_t left = n;

    for (bool again = true; again && left > 0;) {
        uint64_t level = rest / left;

        again = false;
        for (uint32_t i = 0; i < n; i++) {
            uint64_t need = need_of(each[i], whole, n);

            if (done[i] || need > level)
                continue;
            done[i] = again = true;
            left--;
            each[i]->part = least_of(each[i], whole, n) + need;
            rest -= need;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t one = left > 0 ? (done[i] ? 0 : rest / left) : rest / (n - i);

        if (left > 0 && !done[i]) {
            left--;
            each[i]->part = least_of(each[i], whole, n);
        }
        each[i]->part += one;
        rest -= one;
    }
}

bool share_deal(struct share *const *each, uint32_t n, uint64_t whole)
{
    uint64_t least = 0, equal = n > 0 ? whole / n : 0;
    bool calm = true, wanted = false, scarce = true;

    assert(n <= SHARE_WORKERS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        least += least_of(each[i], whole, n);
        calm = calm && !each[i]->more && (is_rate(each[i]) ? each[i]->used : each[i]->part) <= equal;
    }
    if (calm)
        for (uint32_t i = 0; i < n; i++)
            each[i]->part = equal + (i < whole % n);
    else if (least <= whole)
        pour(each, n, whole, whole - least);
    for (uint32_t i = 0; i < n; i++) {
        wanted = wanted || each[i]->more;
        scarce = scarce && (!each[i]->more || each[i]->part <= each[i]->used);
    }
    for (uint32_t i = 0; i < n; i++)
        each[i]->more = wanted && scarce; /* from now on: there is no more to have */
    return !calm;
}

/* ---- a worker's side ---------------------------------------------------------------------------------------------------- */

uint64_t share_equal(const struct forward *f, uint64_t whole)
{
    return whole > 0 && whole < f->ways->workers ? 1 : whole / f->ways->workers;
}

void share_want(struct forward *f)
{
    if (f->wants || !f->want_share)
        return;
    f->wants = true;
    f->want_share(f->want_arg);
}

bool share_near(struct forward *f, struct part *p, uint32_t in_use)
{
    if (in_use >= p->part - p->part / 4 && !p->met) {
        p->met = true;
        share_want(f);
    }
    return in_use >= p->part;
}

void share_begin(struct forward *f, struct part *p, uint32_t whole)
{
    *p = (struct part){ .part = (uint32_t)share_equal(f, whole), .scarce = f->ways->workers == 1 };
}

static struct part *part_of(struct forward *f, const struct share *s, struct source *source)
{
    return s->kind == SHARE_TCP   ? &f->tcp_part
           : s->kind == SHARE_UDP ? &f->udp_part
           : source != NULL       ? &source->part
                                  : NULL;
}

static uint32_t flows_of(const struct forward *f, const struct share *s, const struct source *source)
{
    return s->kind == SHARE_TCP   ? f->tcp_flows.in_use
           : s->kind == SHARE_UDP ? f->udp_flows.in_use
                                  : source->flows;
}

static struct rate_line *line_of(struct forward *f, const struct share *s, struct source *source)
{
    struct meter *m = ip_is_none(&s->source) ? &f->ways->meters[s->limit] : source ? source->meter : NULL;

    return m ? &m->line[s->dir] : NULL;
}

static void answer(struct forward *f, struct share *s, uint64_t whole)
{
    struct source *source = ip_is_none(&s->source) ? NULL : source_find(f, &s->source);
    struct rate_line *line = is_rate(s) ? line_of(f, s, source) : NULL;
    struct rate_bucket *b = line ? &line->bucket : NULL;
    struct part *p = is_rate(s) ? NULL : part_of(f, s, source);

    if (b) {
        s->used = b->used;
        s->part = b->rate;
        s->more = b->missed;
        b->used = 0;
        b->missed = false;
    } else if (p) {
        uint64_t keep = flows_of(f, s, source) + whole / 8 / f->ways->workers + 1;

        s->used = flows_of(f, s, source);
        if (p->part > keep)
            p->part = (uint32_t)keep;
        s->part = p->part;
        s->more = p->met;
        p->met = false;
    }
}

struct report {
    struct forward *f;
    struct share *list;
    size_t asked, n;
};

static void append(struct report *r, enum share_kind kind, int dir, size_t limit,
                   const struct ip_addr *source)
{
    struct share s = { .kind = (uint8_t)kind, .dir = (uint8_t)dir, .limit = (uint8_t)limit };

    if (r->n == SHARES_MAX)
        return;
    if (source)
        s.source = *source;
    for (size_t i = 0; i < r->asked; i++)
        if (share_same(&r->list[i], &s))
            return;
    r->list[r->n++] = s;
}

static void append_meter(struct report *r, const struct meter *m, size_t limit, const struct ip_addr *source)
{
    for (int dir = 0; dir < 2; dir++)
        if (m->line[dir].bucket.missed)
            append(r, SHARE_RATE, dir, limit, source);
}

/* What was met and nobody has asked for yet. It stays met, so that the next question is told. */
static void append_met(struct report *r)
{
    struct forward *f = r->f;

    if (f->tcp_part.met)
        append(r, SHARE_TCP, 0, 0, NULL);
    if (f->udp_part.met)
        append(r, SHARE_UDP, 0, 0, NULL);
    for (uint32_t i = 0; i < f->ways->rate_count; i++)
        if (f->ways->rates[i].target != RATE_OF_SOURCE)
            append_meter(r, &f->ways->meters[i], i, NULL);
    for (uint32_t i = 0; (f->opt.per_source > 0 || rates_on(f)) && i < SOURCE_BUCKETS; i++)
        for (const struct source *s = f->source_table[i]; s; s = s->next) {
            if (s->part.met)
                append(r, SHARE_SOURCE, 0, 0, &s->addr);
            if (s->meter)
                append_meter(r, s->meter, s->limit, &s->addr);
        }
}

/* Limits of clients and of ways are another policy's after a reload; those of the process stay. */
static bool holds(const struct forward *f, const struct forward_policy *p, const struct share *s)
{
    return f->ways->policy == p || s->kind == SHARE_TCP || s->kind == SHARE_UDP;
}

size_t forward_shares_report(struct forward *f, struct forward_policy *asked_by, struct share *list, size_t n)
{
    struct report r = { .f = f, .list = list, .asked = n, .n = n };

    f->wants = false;
    for (size_t i = 0; i < n; i++) {
        list[i].used = list[i].part = 0;
        list[i].more = false;
        if (holds(f, asked_by, &list[i]))
            answer(f, &list[i], forward_policy_whole(asked_by, &list[i]));
    }
    if (f->ways->policy == asked_by)
        append_met(&r);
    return r.n;
}

/* A client's part is kept for it, flows or not, as long as parts are not equal. */
static void set_source(struct forward *f, const struct share *s, bool dealt)
{
    struct source *source = dealt ? source_get(f, &s->source) : source_find(f, &s->source);
    struct rate_line *line;

    if (!source)
        return;
    if (is_rate(s)) {
        rate_enter_source(f, source);
        source->dealt_rate = dealt;
        line = line_of(f, s, source);
        if (line)
            rate_line_set_rate(f, line, s->part);
    } else {
        source->dealt_flows = dealt;
        source->part.part = (uint32_t)s->part;
    }
    if (source->flows == 0)
        source_forget(f, source);
}

void forward_shares_set(struct forward *f, struct forward_policy *dealt_by, const struct share *s, bool dealt)
{
    struct part *p;

    if (!holds(f, dealt_by, s))
        return;
    if (!ip_is_none(&s->source)) {
        set_source(f, s, dealt);
    } else if (is_rate(s)) {
        rate_line_set_rate(f, line_of(f, s, NULL), s->part);
    } else {
        p = part_of(f, s, NULL);
        p->part = (uint32_t)s->part;
        p->scarce = s->more;
    }
}

void forward_attach_shares(struct forward *f, forward_want_fn *want, void *arg)
{
    f->want_share = want;
    f->want_arg = arg;
}
