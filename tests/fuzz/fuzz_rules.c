/* fuzz_rules.c - a rule as text: understood or refused with a sentence, and what was understood can be loaded. */
#include "culvert/rules.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool holds)
{
    if (!holds)
        abort();
}

static void load(const struct rule_text *text)
{
    struct rule rule = { .conds = text->conds, .n_conds = text->n_conds, .target = 1, .name = "fuzz" };
    struct rule_flow flow = { .proto = IP_PROTO_TCP, .target.port = 443, .client.port = 1024 };
    struct rule_verdict verdict;
    struct rules *rules;

    for (size_t i = 0; i < text->n_conds; i++)
        if (text->conds[i].kind == RULE_SET || text->conds[i].kind == RULE_GEOIP ||
            text->conds[i].kind == RULE_IP_ASN)
            return; /* lists and databases are the caller's to attach */
    promise(rules_new(&rule, 1, 0, &rules) == 0);
    rules_match(rules, &flow, &verdict);
    promise(verdict.target == (verdict.rule == RULE_IMPLICIT ? 0u : 1u));
    rules_unref(rules);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    struct rule_cond conds[4];
    struct rule_text out;
    struct err err;
    size_t at, n;

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    err.text[0] = '\0';
    if (rules_parse(text, &out, &at, &err) == 0) {
        promise(out.target >= text && out.target_len > 0 &&
                out.target + out.target_len <= text + strlen(text));
        load(&out);
    } else {
        promise(at <= strlen(text) && err.text[0] != '\0');
    }
    for (int kind = 0; kind < RULE_KINDS; kind++) {
        if (rules_value_parse((enum rule_kind)kind, text, conds, ARRAY_LEN(conds), &n, &at, &err) == 0)
            promise(n >= 1 && n <= ARRAY_LEN(conds));
        else
            promise(at <= strlen(text));
    }
    free(text);
    return 0;
}
