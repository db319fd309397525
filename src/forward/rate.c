/* rate.c - `rate-limits`: streams wait for their turn, datagrams pass or are dropped.
 *
 * How it works. A meter is two buckets (rate_bucket.h), up and down. Each client address that a limit names has a meter in this worker, and so has
 * each limit of a way out. A flow draws on up to three at once: its client's, its rule's target's, and that of the way out which a group
 * took. What a meter holds of a limit is this worker's part, which the main thread deals (share.c).
 *   TCP  reads from its socket, or takes from the client's window, only what the buckets hold, and then waits in the list of the one
 *        that was empty; the sender is held back by its own window. Each list has a timer for when it can be served, so that a
 *        thousand that wait cost nothing meanwhile.
 *   UDP  is dropped, with a counter, when a bucket has no room (rate_bucket.h says how the two get along).
 * A flow that no limit names has none of this but a bit that says so. */
#include "forward_impl.h"

#define SERVE_MIN_US 2000

static void on_line_timer(struct wheel_timer *timer, uint64_t now_us);

/* ---- meters ------------------------------------------------------------------------------------------------------- */

static void meter_open(const struct forward *f, struct meter *m, const struct rate_limit *limit)
{
    for (int dir = 0; dir < 2; dir++) {
        m->line[dir] = (struct rate_line){ .dir = (uint8_t)dir, .timer.fn = on_line_timer };
        rate_bucket_open(&m->line[dir].bucket, share_equal(f, limit->bytes_per_s[dir]), loop_now_us(f->loop));
    }
}

static const struct rate_limit *limit_of_source(const struct ways *w, const struct ip_addr *addr)
{
    for (uint32_t i = 0; i < w->rate_count; i++)
        if (w->rates[i].target == RATE_OF_SOURCE && ip_in_prefix(addr, &w->rates[i].source))
            return &w->rates[i];
    return NULL;
}

void rate_enter_source(struct forward *f, struct source *s)
{
    const struct rate_limit *limit = s->meter ? NULL : limit_of_source(f->ways, &s->addr);

    if (!limit || !(s->meter = slab_get(&f->meters)))
        return;
    s->limit = (uint8_t)(limit - f->ways->rates);
    meter_open(f, s->meter, limit);
}

bool rate_leave_source(struct forward *f, struct source *s)
{
    uint64_t now_us = loop_now_us(f->loop);

    for (int dir = 0; s->meter && dir < 2; dir++)
        if (!rate_bucket_is_full(&s->meter->line[dir].bucket, now_us))
            return false;
    slab_put(&f->meters, s->meter);
    s->meter = NULL;
    return true;
}

/* The limit of a way out, found by name: a flow may have taken it under an older configuration. 1 + its index; 0: none. */
static uint8_t limit_of_way(const struct forward *f, const struct upstream *up)
{
    const struct ways *w = f->ways;

    for (uint32_t i = 0; up && i < w->rate_count; i++) {
        const struct upstream *limited =
            w->rates[i].target == RATE_OF_SOURCE ? NULL : w->target[w->rates[i].target];

        if (limited && (limited == up || strcmp(upstream_name(limited), upstream_name(up)) == 0))
            return (uint8_t)(i + 1);
    }
    return 0;
}

struct rate_of rate_of(const struct forward *f, const struct upstream *target, const struct upstream *way)
{
    struct rate_of of = { limit_of_way(f, target), limit_of_way(f, way) };

    if (of.way == of.target)
        of.way = 0;
    return of;
}

/* What limits one direction of a flow. Return: how many lines */
static int lines_of(const struct forward *f, const struct source *s, struct rate_of of, int dir,
                    struct rate_line *out[3])
{
    struct meter *const m[] = { s->meter, of.target ? &f->ways->meters[of.target - 1] : NULL,
                                of.way ? &f->ways->meters[of.way - 1] : NULL };
    int n = 0;

    for (size_t i = 0; i < ARRAY_LEN(m); i++)
        if (m[i] && m[i]->line[dir].bucket.rate > 0)
            out[n++] = &m[i]->line[dir];
    return n;
}

static void missed(struct forward *f, struct rate_line *line)
{
    line->bucket.missed = true;
    share_want(f);
}

/* ---- datagrams ---------------------------------------------------------------------------------------------------- */

bool rate_pass(struct forward *f, const struct source *s, struct rate_of of, int dir, size_t bytes)
{
    struct rate_line *line[3];
    int n = lines_of(f, s, of, dir, line);

    for (int i = 0; i < n; i++) {
        rate_bucket_refill(&line[i]->bucket, loop_now_us(f->loop));
        if (rate_bucket_has_room(&line[i]->bucket))
            continue;
        missed(f, line[i]);
        return false;
    }
    for (int i = 0; i < n; i++)
        rate_bucket_pass(&line[i]->bucket, bytes);
    return true;
}

/* ---- streams: lists of those that wait ------------------------------------------------------------------------------- */

/* @dir of its waits is @w. */
static struct pace *pace_of(struct rate_wait *w, int dir)
{
    return CONTAINER_OF(w - dir, struct pace, wait[0]);
}

static void list_leave(struct forward *f, struct rate_wait *w)
{
    struct rate_line *line = w->line;

    if (!line)
        return;
    if (line->dir == RATE_UP)
        tcp_hold_back(pace_of(w, RATE_UP)->flow->conn, false);
    *(w->prev ? &w->prev->next : &line->first) = w->next;
    *(w->next ? &w->next->prev : &line->last) = w->prev;
    if (--line->bucket.waiting == 0)
        wheel_cancel(f->wheel, &line->timer);
    *w = (struct rate_wait){ 0 };
}

static void arm(struct forward *f, struct rate_line *line)
{
    uint64_t soon_us = loop_now_us(f->loop) + SERVE_MIN_US, due_us = rate_bucket_due_us(&line->bucket);

    if (due_us < soon_us)
        due_us = soon_us;
    wheel_set(f->wheel, &line->timer, due_us);
}

static void list_enter(struct forward *f, struct rate_line *line, struct rate_wait *w)
{
    *w = (struct rate_wait){ .line = line, .prev = line->last };
    *(line->last ? &line->last->next : &line->first) = w;
    line->last = w;
    line->bucket.waiting++;
    missed(f, line);
    if (line->dir == RATE_UP)
        tcp_hold_back(pace_of(w, RATE_UP)->flow->conn, true);
    if (!wheel_is_set(&line->timer))
        arm(f, line);
}

/* Each in turn takes a quantum, and goes to the end of the list if it wants more (deficit round robin with equal parts). */
static void serve(struct forward *f, struct rate_line *line)
{
    int dir = line->dir;

    rate_bucket_refill(&line->bucket, loop_now_us(f->loop));
    while (line->first && rate_bucket_has_turn(&line->bucket)) {
        struct pace *p = pace_of(line->first, dir);

        list_leave(f, &p->wait[dir]);
        f->serving = p;
        f->serving_line = line;
        f->turn_left = rate_bucket_quantum(&line->bucket);
        tcp_flow_resume(p->flow, dir);
        f->serving = NULL;
    }
}

static void on_line_timer(struct wheel_timer *timer, uint64_t now_us)
{
    struct rate_line *line = CONTAINER_OF(timer, struct rate_line, timer);
    struct forward *f = pace_of(line->first, line->dir)->flow->ways->f; /* or there would be no timer */

    (void)now_us;
    serve(f, line);
    if (line->first)
        arm(f, line);
}

void rate_line_set_rate(struct forward *f, struct rate_line *line, uint64_t rate)
{
    rate_bucket_set_rate(&line->bucket, rate, loop_now_us(f->loop));
    if (line->first)
        arm(f, line);
}

/* ---- streams: what they may move --------------------------------------------------------------------------------------- */

size_t rate_allow(struct tcp_flow *t, int dir)
{
    struct forward *f = t->ways->f;
    struct pace *p = t->pace;
    bool served = f->serving == p;
    struct rate_line *line[3], *scarce = NULL;
    int n = lines_of(f, p->source, p->of, dir, line);
    int64_t least = INT64_MAX;

    for (int i = 0; i < n; i++) {
        struct rate_bucket *b = &line[i]->bucket;
        int64_t has;

        rate_bucket_refill(b, loop_now_us(f->loop));
        has = b->waiting > 0 && !served ? 0 : b->tokens;
        /* Its turn has come: a second limit may be overdrawn, so that it does get on. */
        if (served && line[i] != f->serving_line)
            has += rate_bucket_depth(b);
        if (served && line[i] == f->serving_line && has > f->turn_left)
            has = f->turn_left;
        if (has < least) {
            least = has;
            scarce = line[i];
        }
    }
    if (least > 0)
        return least < UINT32_MAX ? (size_t)least : UINT32_MAX;
    list_enter(f, scarce, &p->wait[dir]);
    return 0;
}

void rate_took(struct tcp_flow *t, int dir, size_t bytes)
{
    struct forward *f = t->ways->f;
    struct rate_line *line[3];
    int n = lines_of(f, t->pace->source, t->pace->of, dir, line);

    for (int i = 0; i < n; i++)
        rate_bucket_take(&line[i]->bucket, bytes);
    if (f->serving == t->pace)
        f->turn_left -= (int64_t)bytes;
}

void rate_attach_tcp(struct tcp_flow *t)
{
    struct forward *f = t->ways->f;
    struct rate_of of = rate_of(f, t->ways->target[t->target], t->up ? up_stream_way(t->up) : NULL);
    struct pace *p;

    if ((!t->source->meter && !of.target && !of.way) || !(p = slab_get(&f->paces)))
        return;
    p->source = t->source;
    p->flow = t;
    p->of = of;
    t->pace = p;
    t->paced = true;
}

void rate_stop_tcp(struct tcp_flow *t)
{
    if (t->paced) {
        list_leave(t->ways->f, &t->pace->wait[RATE_UP]);
        list_leave(t->ways->f, &t->pace->wait[RATE_DOWN]);
    }
}

void rate_detach_tcp(struct tcp_flow *t)
{
    struct pace *p = t->pace;

    if (!t->paced)
        return;
    rate_stop_tcp(t);
    t->source = p->source;
    t->paced = false;
    slab_put(&t->ways->f->paces, p);
}

/* ---- another policy -------------------------------------------------------------------------------------------------------- */

static void sources_renew(struct forward *f)
{
    for (uint32_t i = 0; i < SOURCE_BUCKETS; i++)
        for (struct source *s = f->source_table[i]; s; s = s->next) {
            slab_put(&f->meters, s->meter);
            s->meter = NULL;
            rate_enter_source(f, s);
        }
}

/* What waited goes on at once, whatever limits it now. */
static void flow_renew(struct forward *f, struct tcp_flow *t)
{
    bool stalled[2] = { t->paced && t->pace->stalled[RATE_UP], t->paced && t->pace->stalled[RATE_DOWN] };

    rate_detach_tcp(t);
    if (t->state != TCP_FLOW_OPEN)
        return;
    if (rates_on(f))
        rate_attach_tcp(t);
    for (int dir = 0; dir < 2; dir++)
        if (stalled[dir])
            tcp_flow_resume(t, dir);
}

void rates_renew(struct forward *f)
{
    for (uint32_t i = 0; i < f->tcp_flows.touched; i++) {
        struct tcp_flow *t = slab_at(&f->tcp_flows, i);

        for (int dir = 0; t->state != TCP_FLOW_FREE && t->paced && dir < 2; dir++)
            t->pace->stalled[dir] = t->pace->wait[dir].line != NULL;
        if (t->state != TCP_FLOW_FREE)
            rate_stop_tcp(t);
    }
    sources_renew(f);
    for (uint32_t i = 0; i < f->tcp_flows.touched; i++) {
        struct tcp_flow *t = slab_at(&f->tcp_flows, i);

        if (t->state != TCP_FLOW_FREE)
            flow_renew(f, t);
    }
    for (uint32_t i = 0; i < f->udp_flows.touched; i++) {
        struct udp_flow *u = slab_at(&f->udp_flows, i);

        for (struct udp_assoc *a = u->state == UDP_FLOW_FREE ? NULL : u->assocs; a; a = a->next)
            a->rate = rate_of(f, u->ways->target[a->target], a->up ? up_udp_way(a->up) : NULL);
    }
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

void rates_open(struct forward *f)
{
    struct ways *w = f->ways;

    for (uint32_t i = 0; i < w->rate_count; i++)
        meter_open(f, &w->meters[i], &w->rates[i]);
}

bool rates_trim(struct forward *f)
{
    bool more = false;

    for (uint32_t i = 0; f->sources.in_use > 0 && i < SOURCE_BUCKETS; i++)
        for (struct source *s = f->source_table[i], *next; s; s = next) {
            next = s->next;
            more = more || s->flows == 0;
            if (s->flows == 0)
                source_forget(f, s);
        }
    return more;
}
