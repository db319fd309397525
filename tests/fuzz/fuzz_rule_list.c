/* fuzz_rule_list.c - a provider's file: the first byte says how it is read. Every line is an entry, empty, or named as bad. */
#include "culvert/rules.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rule_list_report report;
    struct rule_set *s = NULL;
    struct ip_addr addr = { .b = { [10] = 0xff, 0xff, 10, 1, 2, 3 } };
    enum rule_format format;

    if (size == 0)
        return 0;
    format = data[0] & 4 ? RULE_LIST_YAML : RULE_LIST_TEXT;
    promise(rule_set_parse((enum rule_behavior)(data[0] % 3), format, (const char *)data + 1, size - 1, &s,
                           &report) == 0);
    promise(report.entries + report.bad <= report.lines && report.entries == rule_set_count(s));
    promise(report.bad == 0 || report.first_bad[0].why.text[0] != '\0');
    rule_set_has_name(s, "www.a.example", NULL);
    rule_set_has_addr(s, &addr, NULL);
    rule_set_unref(s);
    return 0;
}
