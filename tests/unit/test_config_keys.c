/* test_config_keys.c - every key of the schema: right and wrong (tests/support/key_rows.c), misspelt, not built yet, another program's. */
#include "config/config_impl.h"
#include "config_lab.h"
#include "key_rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DATA        SOURCE_DIR "/tests/unit/data"
#define PROXY(more) "proxies: [{name: a, type: socks5, server: h, port: 1" more "}]\nrules: ['MATCH,a']\n"
#define MATCH       "rules: ['MATCH,DIRECT']\n"
static void free_text(char **text)
{
    free(*text);
}
#define AUTO_TEXT __attribute__((cleanup(free_text))) char *

/* ---- each key once right and once wrong ------------------------------------------------------------------------------ */

/* What is said without the file's name, which is the same in every line. */
static void strip_file(char *text)
{
    char *to = text;

    for (const char *s = text; *s != '\0';) {
        if ((s == text || s[-1] == '\n') && strncmp(s, "t.yaml:", 7) == 0)
            s += 7;
        *to++ = *s++;
    }
    *to = '\0';
}

static bool says_so(const char *said, const char *expected)
{
    size_t len = strlen(expected);

    /* A row that ends in ": " leaves the sentence to src/rules, whose own test has it. */
    return len > 2 && strcmp(expected + len - 2, ": ") == 0
               ? strncmp(said, expected, len) == 0 && strchr(said, '\n') == NULL
               : strcmp(said, expected) == 0;
}

static void every_key_loads_when_right_and_says_so_when_wrong(void **state) /* faults.md C1, C3 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < key_row_count; i++) {
        AUTO_TEXT good = lab_says(key_rows[i].right);
        AUTO_TEXT bad = lab_says(key_rows[i].wrong);

        strip_file(bad);
        if (strcmp(good, "") == 0 && says_so(bad, key_rows[i].says))
            continue;
        print_error("%s\n  right: %s\n  wrong: %s\n    not: %s\n", key_rows[i].path, good, bad,
                    key_rows[i].says);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* ---- the schema, walked -------------------------------------------------------------------------------------------------- */

static bool has_row(const char *path)
{
    for (size_t i = 0; i < key_row_count; i++) {
        if (strcmp(key_rows[i].path, path) == 0)
            return true;
    }
    return false;
}

static void path_of(const struct cfg_section *s, const struct cfg_key *k, char out[128])
{
    snprintf(out, 128, "%s%s%s", s->where, s->where[0] != '\0' ? "." : "", k->name);
}

static int untested_keys(const struct cfg_section *s)
{
    int missing = 0;
    char path[128];

    for (const struct cfg_key *k = s->keys; k->name != NULL; k++) {
        path_of(s, k, path);
        if (k->state != CFG_HERE)
            continue;
        if (k->type != &cfg_section_type && !has_row(path)) {
            print_error("no row for the key %s\n", path);
            missing++;
        }
        if (k->section != NULL)
            missing += untested_keys(k->section);
    }
    return missing;
}

static void every_key_of_the_schema_has_a_row_above(void **state)
{
    (void)state;
    assert_int_equal(untested_keys(&cfg_schema), 0);
}

/* "stack.icmp.ttl" as YAML: maps in maps; an entry of a list stands in one. The place of the key comes out, too. */
static void yaml_of(const struct cfg_section *s, const char *key, char out[256], unsigned *column)
{
    char path[128];
    size_t n = 0, open = 0;
    char *rest = path, *word;

    snprintf(path, sizeof(path), "%s", s->where);
    while ((word = strsep(&rest, ".")) != NULL && word[0] != '\0') {
        char *list = strstr(word, "[]");

        if (list != NULL)
            *list = '\0';
        n += (size_t)snprintf(out + n, 256 - n, "%s: {", word);
        open++;
    }
    *column = (unsigned)n + 1;
    n += (size_t)snprintf(out + n, 256 - n, "%s: x", key);
    while (open-- > 0)
        n += (size_t)snprintf(out + n, 256 - n, "}");
    snprintf(out + n, 256 - n, "\n");
}

static int later_keys_not_refused(const struct cfg_section *s)
{
    char yaml[256], says[256];
    unsigned column;
    int wrong = 0;

    for (const struct cfg_key *k = s->keys; k->name != NULL; k++) {
        if (k->state == CFG_HERE && k->section != NULL)
            wrong += later_keys_not_refused(k->section);
        if (k->state != CFG_LATER)
            continue;
        AUTO_TEXT said = NULL;

        yaml_of(s, k->name, yaml, &column);
        said = lab_says(yaml);
        snprintf(says, sizeof(says), "t.yaml:1:%u: ", column);
        if (strstr(said, says) != NULL && strstr(said, "not supported yet") != NULL)
            continue;
        print_error("%s  said: %s\n", yaml, said);
        wrong++;
    }
    return wrong;
}

static void what_is_not_built_yet_says_so_with_its_position(void **state) /* faults.md C1 */
{
    (void)state;
    assert_int_equal(later_keys_not_refused(&cfg_schema), 0);
}

static void a_key_of_mihomo_that_we_lack_names_the_nearest_thing(void **state) /* faults.md C1 */
{
    static const char *const known[] = { "", "tun", "dns", "proxies[]", "proxy-groups[]" };
    const struct cfg_foreign *list;
    char yaml[256], says[256];
    unsigned column;
    int wrong = 0;
    size_t n;

    (void)state;
    list = cfg_foreign_list(&n);
    for (size_t i = 0; i < n; i++) {
        struct cfg_section s = { .where = list[i].where };
        AUTO_TEXT said = NULL;
        size_t place = 0;

        while (place < ARRAY_LEN(known) && strcmp(known[place], list[i].where) != 0)
            place++;
        yaml_of(&s, list[i].name, yaml, &column);
        said = lab_says(yaml);
        snprintf(says, sizeof(says), "the key \"%s\" of mihomo is not supported; %s", list[i].name,
                 list[i].instead);
        if (place < ARRAY_LEN(known) && strstr(said, says) != NULL)
            continue;
        print_error("%s  said: %s\n", yaml, said);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* Keys that config.md names (sections 3, 4 and 6): each is known, built or not. */
static void every_key_that_the_specification_names_is_known(void **state)
{
    static const char *const paths[] = {
        "proxies.fingerprint: x",
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        char where[128], yaml[256];
        struct cfg_section s = { .where = where };
        char *key;
        unsigned column;

        snprintf(where, sizeof(where), "%.*s", (int)strcspn(paths[i], ":"), paths[i]);
        key = strrchr(where, '.');
        if (key == NULL)
            s.where = "";
        else
            *key++ = '\0';
        yaml_of(&s, key == NULL ? where : key, yaml, &column);
        AUTO_TEXT said = lab_says(yaml);

        if (strstr(said, "not supported yet") != NULL)
            continue;
        print_error("%s  said: %s\n", yaml, said);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* ---- faults.md C1 to C3: tables ------------------------------------------------------------------------------------------ */

static void a_misspelt_key_earns_a_suggestion(void **state) /* faults.md C1 */
{
    static const struct lab_row rows[] = {
        { "tun: {adress: 10.0.0.1/8}\n" MATCH,
          "t.yaml:1:7: tun: unknown key \"adress\"; did you mean \"address\"?" },
        { "tun: {auto_route: true}\n" MATCH,
          "t.yaml:1:7: tun: unknown key \"auto_route\"; did you mean \"auto-route\"?" },
        { "proxys: []\n", "t.yaml:1:1: unknown key \"proxys\"; did you mean \"proxies\"?" },
        { "Rules: []\n", "t.yaml:1:1: unknown key \"Rules\"; did you mean \"rules\"?" },
        { "socks5://bob:pw@192.0.2.1:1080: up\n" MATCH,
          "t.yaml:1:1: unknown key \"socks5://***@192.0.2.1:1080\"; docs/config.md lists the keys that would "
          "work" },
        { "mtu: 1500\n", "t.yaml:1:1: unknown key \"mtu\"; there is \"tun.mtu\"" },
        { "outbounds: []\n" MATCH,
          "t.yaml:1:1: the key \"outbounds\" of sing-box is not supported; proxies and proxy-groups "
          "are that; docs/recipes.md has a table" },
        { "proxy: []\n" MATCH, "t.yaml:1:1: unknown key \"proxy\"; did you mean \"proxies\"?" },
        { "rule: []\n", "t.yaml:1:1: unknown key \"rule\"; did you mean \"rules\"?" },
        { "tun: {auto-route:true}\n" MATCH,
          "t.yaml:1:7: tun: unknown key \"auto-route:...\"; a space is missing after the colon" },
        { "serve: {socks5: {listen: '127.0.0.1:1080', users: {}, password:hunter2}}\n",
          "t.yaml:1:55: serve.socks5: unknown key \"password:...\"; a space is missing after the colon" },
        { "tun:\n  auto-route:true\n" MATCH,
          "t.yaml:2:3: tun: is a single value; a space is missing after the colon" },
        { "tun:\nauto-route: true\n" MATCH,
          "t.yaml:1:5: tun: has no value; a map (key: value) would work, each key on a line of its own that "
          "is "
          "indented\nt.yaml:2:1: unknown key \"auto-route\"; there is \"tun.auto-route\"" },
        { "proxies: [{name: a, type: http, server: '192.0.2.1:80', port: 80}]\n" MATCH,
          "t.yaml:1:41: proxies[0].server: \"192.0.2.1:80\": the port is a key of its own; server: 192.0.2.1 "
          "and port: "
          "80 would work" },
        { "proxies: [{name: a, type: http, server: 'proxy.test:80', port: 80}]\n" MATCH,
          "t.yaml:1:41: proxies[0].server: \"proxy.test:80\": the port is a key of its own; server: "
          "proxy.test and port: "
          "80 would work" },
        { "proxies: [{name: a, type: http, server: '[2001:db8::1]:80', port: 80}]\n" MATCH,
          "t.yaml:1:41: proxies[0].server: \"[2001:db8::1]:80\": the port is a key of its own; server: "
          "2001:db8::1 and port: 80 would work" }, /* in brackets it would be a list of YAML */
        { "connect-timeout: 1s\n",
          "t.yaml:1:1: unknown key \"connect-timeout\"; there is \"stack.tcp.connect-timeout\"" },
        { "zebra: 1\n", "t.yaml:1:1: unknown key \"zebra\"; docs/config.md lists the keys that would work" },
        { "rules: [{via: DIRECT, dst-prt: 80}]\n",
          "t.yaml:1:23: rules[0]: unknown key \"dst-prt\"; did you mean \"dst-port\"?" },
        { "tun: {tcp: {}}\n" MATCH, "t.yaml:1:7: tun: unknown key \"tcp\"; there is \"limits.tcp\"" },
        { "\"a\\nb\\e[31m\": 1\n",
          "t.yaml:1:1: unknown key \"a\\x0ab\\x1b[31m\"; docs/config.md lists the keys that would work" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

static void a_value_of_the_wrong_type_is_an_error_of_its_own(void **state) /* faults.md C3 */
{
#define NUMBER(value, says)                                                                                  \
    {                                                                                                        \
        "tun: {mtu: " value "}\n" MATCH, "t.yaml:1:12: tun.mtu: " says                                       \
    }
    static const struct lab_row rows[] = {
        NUMBER("[1500]", "is a list; a number would work"),
        NUMBER("{a: 1}", "is a map; a number would work"),
        NUMBER("yes", "\"yes\" is no whole number; 576 to 65535 would work"),
        NUMBER("true", "\"true\" is no whole number; 576 to 65535 would work"),
        NUMBER("01500", "\"01500\" has a leading zero; 576 to 65535 would work"),
        NUMBER("1e3", "\"1e3\" is no whole number; 576 to 65535 would work"),
        NUMBER("1500.0", "\"1500.0\" is no whole number; 576 to 65535 would work"),
        NUMBER("1_500", "\"1_500\" is no whole number; 576 to 65535 would work"),
        NUMBER("0x5dc", "\"0x5dc\" is no whole number; 576 to 65535 would work"),
        NUMBER("+1500", "\"+1500\" is no whole number; 576 to 65535 would work"),
        NUMBER("-1", "\"-1\" is out of range; 576 to 65535 would work"),
        NUMBER("18446744073709551616", "\"18446744073709551616\" is out of range; 576 to 65535 would work"),
        NUMBER("18446744073709553116", "\"18446744073709553116\" is out of range; 576 to 65535 would work"),
        NUMBER("''", "\"\" is no whole number; 576 to 65535 would work"),
        NUMBER("", "has no value; a number would work"),
        NUMBER("null", "has no value; a number would work"),
        NUMBER("~", "has no value; a number would work"),
        NUMBER("'~'", "\"~\" is no whole number; 576 to 65535 would work"),
        { "tun:\n" MATCH, "t.yaml:1:5: tun: has no value; a map (key: value) would work, each key on a line "
                          "of its own that is indented" },
        { "tun: []\n" MATCH, "t.yaml:1:6: tun: is a list; a map (key: value) would work" },
        { "tun: on\n" MATCH, "t.yaml:1:6: tun: is a single value; a map (key: value) would work" },
        { "tun: {auto-route: True}\n" MATCH,
          "t.yaml:1:19: tun.auto-route: \"True\" is neither true nor false; write one of these" },
        { "tun: {auto-route: 1}\n" MATCH,
          "t.yaml:1:19: tun.auto-route: \"1\" is neither true nor false; write one of these" },
        { "log: {level: [info]}\n",
          "t.yaml:1:14: log.level: is a list; info, debug, warning or error would work" },
        { "rules:\n", "t.yaml:1:7: rules: has no value; a rule such as MATCH,DIRECT would work" },
        { "rules: [[MATCH]]\n", "t.yaml:1:9: rules[0]: is a list; a rule such as MATCH,DIRECT would work" },
        { "rules: [~]\n", "t.yaml:1:9: rules[0]: has no value; a rule such as MATCH,DIRECT would work" },
        { "tun: {address: [10.0.0.1/8, ~]}\n" MATCH,
          "t.yaml:1:29: tun.address[1]: has no value; an address such as 198.18.0.1/30 would work" },
        { "tun: {address: {a: b}}\n" MATCH,
          "t.yaml:1:16: tun.address: is a map; an address such as 198.18.0.1/30 would work" },
        { "limits: {memory: 0x10}\n",
          "t.yaml:1:19: limits.memory: \"0x10\" has no known unit; write KiB, MiB or GiB, as in \"64MiB\"" },
        { "tun: {routing-mark: 0x1ffffffff}\n" MATCH, "t.yaml:1:21: tun.routing-mark: \"0x1ffffffff\" is no "
                                                      "mark; a number from 1 to 0xffffffff would work, as in "
                                                      "0x1b6" },
        { "tun: {routing-mark: 0}\n" MATCH, "t.yaml:1:21: tun.routing-mark: \"0\" is no mark; a number from "
                                            "1 to 0xffffffff would work, as in 0x1b6" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

static void all_mistakes_of_a_file_are_named_in_one_run_in_their_order(void **state) /* faults.md C3 */
{
    static const struct lab_row rows[] = {
        { "tun:\n"
          "  adress: x\n"
          "  mtu: 70000\n"
          "  address: nonsense\n"
          "proxies:\n"
          "  - {name: a, type: socks5, server: h, port: 0}\n"
          "  - {name: a, type: ss, server: h, port: 1, cipher: x}\n"
          "rules:\n"
          "  - IP-CIDR,10.0.0.0/8,b\n"
          "  - MATCH,a\n"
          "log: {levle: info}\n",
          "t.yaml:2:3: tun: unknown key \"adress\"; did you mean \"address\"?\n"
          "t.yaml:3:8: tun.mtu: \"70000\" is out of range; 576 to 65535 would work\n"
          "t.yaml:4:12: tun.address: \"nonsense\" is no address with a prefix length; 198.18.0.1/30 would "
          "work\n"
          "t.yaml:6:46: proxies[0].port: \"0\" is out of range; 1 to 65535 would work\n"
          "t.yaml:7:12: proxies[1]: the name \"a\" is there twice; the first is on line 6, column 12\n"
          "t.yaml:7:21: proxies[1].type: \"ss\" is not supported yet; socks5, socks4, socks4a, http or "
          "masque would "
          "work\n"
          "t.yaml:7:45: proxies[1]: the key \"cipher\" of mihomo is not supported; type socks5 has none\n"
          "t.yaml:9:24: rules[0]: no proxy is called \"b\"; a name from proxies, DIRECT, REJECT or "
          "REJECT-DROP would work\n"
          "t.yaml:11:7: log: unknown key \"levle\"; did you mean \"level\"?" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

static void other_spellings_of_mihomo_are_understood(void **state) /* config.md section 6 */
{
    static const struct lab_row rows[] = {
        { "tun: {device: x}\n" MATCH, "" },
        { "tun: {device: a/b}\n" MATCH, "t.yaml:1:15: tun.device: \"a/b\" is no interface name; 1 to 15 "
                                        "bytes without space, /, : or % would work" },
        { "tun: {enable: true, stack: mixed}\n" MATCH,
          "t.yaml:1:15: warning: tun.enable: has no effect; a section that is there is in force\n"
          "t.yaml:1:28: warning: tun.stack: has no effect here; remove it" },
        { "tun: {enable: false}\n" MATCH,
          "t.yaml:1:15: tun.enable: only true would work; to be without it, remove the section" },
        { "tun: {auto-detect-interface: true, interface-name: auto}\n" MATCH, "" },
        { "tun: {interface-name: eth0, auto-detect-interface: true}\n" MATCH,
          "t.yaml:1:52: tun.auto-detect-interface: contradicts the key on line 1; keep one of the two" },
        { "tun: {auto-detect-interface: true, interface-name: eth0}\n" MATCH,
          "t.yaml:1:52: tun.interface-name: contradicts the key on line 1; keep one of the two" },
        { "dns: {enhanced-mode: redir-host}\n",
          "t.yaml:1:22: dns.mode: real asks name servers, and there is none; set dns.nameserver" },
        { "dns: {enhanced-mode: off, mode: off}\n",
          "t.yaml:1:27: dns.mode: says the same as \"enhanced-mode\" on line 1; keep one of the two" },
        { "dns: {listen: '0.0.0.0:53'}\n",
          "t.yaml:1:15: warning: dns.listen: has no effect here; remove it" },
        { "dns: {enable: true}\n", "t.yaml:1:15: warning: dns.enable: has no effect; mode decides" },
        { PROXY(", client-fingerprint: chrome"),
          "t.yaml:1:75: warning: proxies[0].client-fingerprint: has no effect here; remove it" },
        { "proxies: [{name: a, type: vmess, server: h, port: 1, uuid: x}]\n" MATCH,
          "t.yaml:1:27: proxies[0].type: \"vmess\" is not supported; socks5, socks4, socks4a, http or masque "
          "would "
          "work\n"
          "t.yaml:1:54: proxies[0]: the key \"uuid\" of mihomo is not supported; type socks5 has username "
          "and password" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

/* A key that others can read earns a warning, and a checkout does not keep a file's mode beyond its x bit. */
static int close_key_file(void **state)
{
    (void)state;
    return chmod(DATA "/key.pem", 0600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_loads_when_right_and_says_so_when_wrong),
        cmocka_unit_test(every_key_of_the_schema_has_a_row_above),
        cmocka_unit_test(what_is_not_built_yet_says_so_with_its_position),
        cmocka_unit_test(a_key_of_mihomo_that_we_lack_names_the_nearest_thing),
        cmocka_unit_test(every_key_that_the_specification_names_is_known),
        cmocka_unit_test(a_misspelt_key_earns_a_suggestion),
        cmocka_unit_test(a_value_of_the_wrong_type_is_an_error_of_its_own),
        cmocka_unit_test(all_mistakes_of_a_file_are_named_in_one_run_in_their_order),
        cmocka_unit_test(other_spellings_of_mihomo_are_understood),
    };

    return cmocka_run_group_tests(tests, close_key_file, NULL);
}
