/* test_config_docs.c - docs/config.md and culvert.yaml(5) are what the schema says, and limits mean what the page says.
 * Run with UPDATE=1 in the environment, the first tests write docs/config.md and docs/culvert.yaml.5.scd anew. */
#include "config/config_impl.h"
#include "config_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define MIB    (1ull << 20)
#define PAGE   SOURCE_DIR "/docs/config.md"
#define MANUAL SOURCE_DIR "/docs/culvert.yaml.5.scd"

static char *printed(int (*print)(FILE *to))
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    assert_int_equal(print(f), 0);
    fclose(f);
    return text;
}

static void page_is(const char *path, int (*print)(FILE *to))
{
    char *wanted = printed(print), *page;
    unsigned mode;
    struct err err;
    size_t len;

    if (getenv("UPDATE") != NULL) {
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        fputs(wanted, f);
        assert_int_equal(fclose(f), 0);
    }
    assert_int_equal(cfg_read_file(path, 1 << 20, &page, &len, &mode, &err), 0);
    if (strcmp(page, wanted) != 0)
        print_error("%s is not what the schema says; run this test with UPDATE=1 to write it anew\n", path);
    assert_string_equal(page, wanted);
    free(page);
    free(wanted);
}

static void the_page_in_docs_is_the_one_that_the_schema_prints(void **state)
{
    (void)state;
    page_is(PAGE, config_print_reference);
}

static void the_manual_page_is_the_one_that_the_schema_prints(void **state)
{
    (void)state;
    page_is(MANUAL, config_print_manual);
}

static int keys_without_a_word(const struct cfg_section *s, const char *page)
{
    int missing = 0;

    for (const struct cfg_key *k = s->keys; k->name != NULL; k++) {
        char row[64];

        snprintf(row, sizeof(row), "| `%s` |", k->name);
        if (strstr(page, row) == NULL || (k->state != CFG_ALIAS && k->help == NULL && k->section == NULL)) {
            print_error("%s.%s is not explained\n", s->where, k->name);
            missing++;
        }
        if (k->section != NULL)
            missing += keys_without_a_word(k->section, page);
    }
    return missing;
}

static void every_key_has_a_row_and_a_line_of_description(void **state)
{
    char *page = printed(config_print_reference);

    (void)state;
    assert_int_equal(keys_without_a_word(&cfg_schema, page), 0);
    free(page);
}

/* ---- shares (config.md section 4) ------------------------------------------------------------------------------------ */

static void memory_auto_is_a_quarter_and_at_least_16_mib(void **state)
{
    static const struct {
        uint64_t ram, cgroup, set, budget;
    } rows[] = {
        { 64 * MIB, 0, 0, 16 * MIB },
        { 48 * MIB, 0, 0, 16 * MIB },
        { 256 * MIB, 0, 0, 64 * MIB },
        { 8192 * MIB, 0, 0, 2048 * MIB },
        { 8192 * MIB, 512 * MIB, 0, 128 * MIB },
        { 256 * MIB, 8192 * MIB, 0, 64 * MIB },
        { 0, 512 * MIB, 0, 128 * MIB },
        { 0, 0, 0, 16 * MIB },
        { 8192 * MIB, 0, 20 * MIB, 20 * MIB },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct config_limits limits = { .memory_bytes = rows[i].set };
        struct config_machine m = { rows[i].ram, rows[i].cgroup, 65536, 2 };
        struct config_shares s;

        config_shares(&limits, &m, &s);
        assert_int_equal(s.memory_bytes, rows[i].budget);
    }
}

static void the_shares_of_all_workers_stay_within_the_budget(void **state)
{
    static const uint64_t budgets[] = { 16 * MIB, 32 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB, 65536 * MIB };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(budgets); i++) {
        for (uint32_t workers = 1; workers <= 4; workers++) {
            struct config_limits limits = { .memory_bytes = budgets[i] };
            struct config_machine m = { 1u << 30, 0, 1 << 20, workers };
            struct config_shares s;

            config_shares(&limits, &m, &s);
            assert_true(s.buffer_cap_bytes * workers < budgets[i]);
            assert_true(s.buffer_cap_bytes <= 256 * MIB);
            assert_true(s.rx_slots >= 8 && s.rx_slots <= 512);
            assert_true((uint64_t)s.rx_slots * 65536 <= s.buffer_cap_bytes / 4);
            assert_int_equal(s.per_source, 0);
        }
    }
}

static void packets_give_way_to_what_else_is_of_the_budget(void **state)
{
    struct config_limits limits = { .memory_bytes = 64 * MIB };
    struct config_machine m = { 1u << 30, 0, 1 << 20, 2 };
    struct config_shares s;

    (void)state;
    config_shares(&limits, &m, &s);
    assert_int_equal(config_buffer_cap(&s, 0), s.buffer_cap_bytes);
    for (uint64_t others = 0; others < 80 * MIB; others += MIB) {
        uint64_t cap = config_buffer_cap(&s, others);

        assert_true(cap >= 2 * MIB && cap <= s.buffer_cap_bytes);
        assert_true(cap == 2 * MIB || cap / 4 * 5 + others <= s.worker_bytes);
    }
    assert_int_equal(config_buffer_cap(&s, s.worker_bytes), 2 * MIB);
}

static void limits_of_flows_are_those_of_the_process(void **state)
{
    struct config_limits limits = { .tcp = 1001, .udp = 10, .per_source = 3 };
    struct config_machine m = { 4096 * MIB, 0, 1024, 4 };
    struct config_shares s;

    (void)state;
    config_shares(&limits, &m, &s);
    assert_int_equal(s.max_tcp, 1001);
    assert_int_equal(s.max_udp, 10);
    assert_int_equal(s.per_source, 3);
}

static void flows_auto_are_what_memory_and_descriptors_carry(void **state)
{
    struct config_limits limits = { 0 };
    struct config_machine few = { 65536 * MIB, 0, 1024, 2 }, poor = { 64 * MIB, 0, 1 << 20, 1 },
                          rich = { 65536 * MIB, 0, 1 << 20, 2 };
    struct config_shares s;

    (void)state;
    config_shares(&limits, &few, &s);
    assert_true(s.max_tcp + 2 * s.max_udp <= 1024 - 64);
    assert_true(s.max_tcp >= 500);
    config_shares(&limits, &poor, &s);
    assert_true(s.max_tcp >= 2000);
    assert_true((uint64_t)(s.max_tcp + s.max_udp) * 1024 <= 8 * MIB);
    config_shares(&limits, &rich, &s);
    assert_int_equal(s.max_tcp, 2 * 131072);
    assert_int_equal(s.max_udp, 2 * 65536);
    few.descriptor_limit = 10; /* less than we need for ourselves: still a few */
    few.workers = 0;
    config_shares(&limits, &few, &s);
    assert_int_equal(s.max_tcp, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_in_docs_is_the_one_that_the_schema_prints),
        cmocka_unit_test(the_manual_page_is_the_one_that_the_schema_prints),
        cmocka_unit_test(every_key_has_a_row_and_a_line_of_description),
        cmocka_unit_test(memory_auto_is_a_quarter_and_at_least_16_mib),
        cmocka_unit_test(the_shares_of_all_workers_stay_within_the_budget),
        cmocka_unit_test(packets_give_way_to_what_else_is_of_the_budget),
        cmocka_unit_test(limits_of_flows_are_those_of_the_process),
        cmocka_unit_test(flows_auto_are_what_memory_and_descriptors_carry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
