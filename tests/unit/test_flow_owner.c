/* test_flow_owner.c - faces src/forward/owner.c: what a flow's rules ask for, and which addresses its verdict leaves to be dialled. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "../../src/forward/forward_impl.h"
#include "up_rig.h"

struct table {
    struct up_rig rig;
    struct forward *f;
    struct forward_policy *policy;
    unsigned asked;
    bool wants_program;
};

static struct forward_policy *policy_of(const char *const *entries, size_t n)
{
    struct rule_text *t = calloc(n, sizeof(*t));
    struct rule list[4] = { 0 };
    struct forward_options options = { .max_tcp = 4, .max_udp = 4 };
    struct forward_policy_setup setup = { .options = &options, .workers = 1 };
    struct forward_policy *p;
    struct err err;
    size_t at;

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(rules_parse_entry(entries[i], &t[i], &at, &err), 0);
        list[i] = (struct rule){ .conds = t[i].conds, .n_conds = t[i].n_conds, .target = (uint32_t)i + 1 };
    }
    assert_int_equal(rules_new(list, n, 0, &setup.rules), 0);
    assert_int_equal(forward_policy_new(&setup, &p), 0);
    rules_unref(setup.rules);
    free(t);
    return p;
}

static void on_ask(void *arg, struct flow_owner_ask *ask)
{
    struct table *t = arg;

    t->asked++;
    t->wants_program = ask->wants_program;
}

static void setup(struct table *t, const char *const *entries, size_t n)
{
    struct forward_setup fs = { 0 };

    *t = (struct table){ .asked = 0 };
    rig_init(&t->rig);
    t->policy = fs.policy = policy_of(entries, n);
    fs.loop = t->rig.loop;
    assert_int_equal(forward_new(&fs, &t->f), 0);
    t->f->env = t->rig.env;
    forward_attach_owners(t->f, on_ask, t);
}

static void teardown(struct table *t)
{
    forward_free(t->f);
    forward_policy_unref(t->policy);
    rig_fini(&t->rig);
}

static void a_flow_asks_for_what_its_own_rules_want_after_a_reload(void **state)
{
    static const char *const old[] = { "PROCESS-NAME,curl" }, *const fresh[] = { "DOMAIN,a.example" };
    struct flow_key key = { .proto = IP_PROTO_TCP };
    struct forward_policy *next;
    struct owner *owner = NULL;
    struct table t;
    struct ways *its;

    (void)state;
    setup(&t, old, ARRAY_LEN(old));
    its = ways_ref(t.f->ways);
    next = policy_of(fresh, ARRAY_LEN(fresh));
    forward_set_policy(t.f, next);
    assert_true(owner_ask(its, &owner, &key, NULL, RULE_NEEDS_PROCESS, &t));
    assert_int_equal(t.asked, 1);
    assert_true(t.wants_program);
    owner->waiting = false;
    owner_leave(owner);
    ways_unref(its);
    forward_policy_unref(next);
    teardown(&t);
}

static void memory_of_questions_goes_back_when_they_are_over(void **state)
{
    static const char *const list[] = { "PROCESS-NAME,curl" };
    struct flow_key key = { .proto = IP_PROTO_TCP };
    struct owner *owner = NULL;
    struct table t;

    (void)state;
    setup(&t, list, ARRAY_LEN(list));
    assert_true(owner_ask(t.f->ways, &owner, &key, NULL, RULE_NEEDS_PROCESS, &t));
    owner->waiting = false;
    owner_leave(owner);
    assert_true(slab_resident_bytes(&t.f->owners) > 0);
    assert_true(forward_trim(t.f));
    assert_false(forward_trim(t.f));
    assert_int_equal(slab_resident_bytes(&t.f->owners), 0);
    teardown(&t);
}

static void on_name(struct name_ask *a)
{
    (void)a;
}

/* A name with an address that a rule has a way for, and another that goes elsewhere. */
static void a_verdict_leaves_the_addresses_that_it_holds_for(void **state)
{
    static const char *const list[] = { "IP-CIDR,10.0.0.0/8", "IP-CIDR,8.0.0.0/8" };
    struct rule_flow asked = { .target.name = "split.example", .proto = IP_PROTO_TCP };
    struct name_ask name = { .asked = false };
    struct rule_verdict v;
    struct rig_name *known;
    struct table t;

    (void)state;
    setup(&t, list, ARRAY_LEN(list));
    known = rig_name(&t.rig, "split.example", RIG_NOW);
    known->addrs[known->n++] = rig_addr("8.8.8.8");
    known->addrs[known->n++] = rig_addr("10.0.0.1");
    known->addrs[known->n++] = rig_addr("2001:db8::1");
    assert_true(flow_match(t.f, t.f->ways, &asked, NULL, &name, &v));
    assert_int_equal(v.needs, RULE_NEEDS_ADDRESS);
    assert_false(name_ask(t.f, &name, "split.example", on_name));
    assert_int_equal(name.n, 3);
    assert_false(flow_match(t.f, t.f->ways, &asked, NULL, &name, &v));
    assert_int_equal(v.target, 1);
    assert_int_equal(name.n, 1);
    assert_true(ip_equal(&name.addrs[0], &known->addrs[1]));
    assert_int_equal(counter_read(&t.f->ways->hits[0]), 1);
    teardown(&t);
}

static void a_name_without_an_address_leaves_none(void **state)
{
    static const char *const list[] = { "IP-CIDR,10.0.0.0/8" };
    struct rule_flow asked = { .target.name = "missing.example", .proto = IP_PROTO_TCP };
    struct name_ask name = { .asked = false };
    struct rule_verdict v;
    struct table t;

    (void)state;
    setup(&t, list, ARRAY_LEN(list));
    assert_false(name_ask(t.f, &name, "missing.example", on_name));
    assert_false(flow_match(t.f, t.f->ways, &asked, NULL, &name, &v));
    assert_int_equal(v.rule, RULE_IMPLICIT);
    assert_true(name.asked && name.n == 0 && name.err < 0);
    assert_int_equal(t.rig.asked, 1);
    teardown(&t);
}

/* Targets that the rules decided by a name they told: each is kept, and the table is shared. */
static void one_clients_decided_targets_leave_room_for_anothers(void **state)
{
    static const char *const list[] = { "DOMAIN,a.example" };
    struct ip_port target = { .port = 443 };
    struct source greedy = { .flows = 2 }, other = { .flows = 1 };
    struct udp_flow many, more, one;
    struct table t;

    (void)state;
    setup(&t, list, ARRAY_LEN(list));
    many = (struct udp_flow){ .f = t.f, .source = &greedy };
    more = (struct udp_flow){ .f = t.f, .source = &greedy };
    one = (struct udp_flow){ .f = t.f, .source = &other };
    for (unsigned i = 0; i < 100; i++) {
        target.port++;
        assert_non_null(udp_look_keep(&many, &target, 1));
    }
    assert_int_equal(greedy.looks, t.f->opt.max_udp); /* its older ones went */
    assert_null(udp_look_keep(&more, &target, 1));
    for (unsigned i = 0; i < t.f->opt.max_udp; i++) {
        target.port++;
        assert_non_null(udp_look_keep(&one, &target, 1));
    }
    udp_looks_free(&many);
    udp_looks_free(&one);
    assert_int_equal(greedy.looks + other.looks, 0);
    assert_int_equal(t.f->looks.in_use, 0);
    teardown(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flow_asks_for_what_its_own_rules_want_after_a_reload),
        cmocka_unit_test(memory_of_questions_goes_back_when_they_are_over),
        cmocka_unit_test(a_verdict_leaves_the_addresses_that_it_holds_for),
        cmocka_unit_test(a_name_without_an_address_leaves_none),
        cmocka_unit_test(one_clients_decided_targets_leave_room_for_anothers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
