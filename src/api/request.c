/* request.c - one HTTP request: may it be asked, what does it ask for, and its answer.
 *
 * How it works. Who may ask is settled at the head of a request, before its body is read (guard.c). A request is then heard to
 * its end: to answer at the head closes the connection, which is right for refusals only. One that takes a while is suspended,
 * and resumed when its answer is there; one that is answered at once never is.
 *
 * Over the unix socket the file's mode says who may ask, and Host means nothing. An Origin is looked at there as well: what
 * sends one is a browser. */
#ifdef WITH_API

#include "api_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- answers ---- */

/* @text is freed by MHD, or here; NULL: there was no memory for it. */
static enum MHD_Result send_text(struct MHD_Connection *c, unsigned status, const char *type, char *text)
{
    struct MHD_Response *r =
        text != NULL ? MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE) : NULL;
    enum MHD_Result sent = MHD_NO; /* which closes the connection */

    if (r == NULL) {
        free(text);
        return MHD_NO;
    }
    if ((status == MHD_HTTP_NO_CONTENT ||
         MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES) &&
        (status != MHD_HTTP_UNAUTHORIZED ||
         MHD_add_response_header(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer") == MHD_YES))
        sent = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return sent;
}

static enum MHD_Result send_error(struct MHD_Connection *c, unsigned status, const char *sentence)
{
    return send_text(c, status, "application/json", api_json_error(sentence, 0, 0));
}

static enum MHD_Result send_fault(struct MHD_Connection *c, const struct api_fault *fault)
{
    return send_text(c, MHD_HTTP_BAD_REQUEST, "application/json",
                     api_json_error(fault->text, fault->line, fault->column));
}

static enum MHD_Result send_wrong_method(struct MHD_Connection *c, const char *allow)
{
    char *text = api_json_error("this path does not take that method", 0, 0);
    struct MHD_Response *r =
        text != NULL ? MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE) : NULL;
    enum MHD_Result sent = MHD_NO;

    if (r == NULL) {
        free(text);
        return MHD_NO;
    }
    if (MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, allow) == MHD_YES)
        sent = MHD_queue_response(c, MHD_HTTP_METHOD_NOT_ALLOWED, r);
    MHD_destroy_response(r);
    return sent;
}

static const char *type_of(enum api_about about)
{
    if (about == API_METRICS)
        return "text/plain; version=0.0.4; charset=utf-8";
    return about == API_FLOWS_TEXT || about == API_LAST_TEXT ? "text/plain; charset=utf-8"
                                                             : "application/json";
}

static enum MHD_Result send_answer(struct api_answer *a)
{
    char *body = a->body;

    a->body = NULL;
    if (body == NULL)
        return send_error(a->connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory for the answer");
    return send_text(a->connection, a->status, type_of(a->about), body);
}

/* ---- requests that wait ---- */

static void waiting_add(struct api_answer *a)
{
    a->state = WAITING;
    a->prev = NULL;
    a->next = a->api->waiting;
    if (a->next != NULL)
        a->next->prev = a;
    a->api->waiting = a;
}

static void waiting_remove(struct api_answer *a)
{
    if (a->prev != NULL)
        a->prev->next = a->next;
    else
        a->api->waiting = a->next;
    if (a->next != NULL)
        a->next->prev = a->prev;
}

static void resume(struct api_answer *a, unsigned status, char *body)
{
    bool waited = a->state == WAITING;

    a->status = status;
    a->body = body;
    a->state = ANSWERED;
    if (!waited)
        return; /* still inside the callback: its caller sends the body */
    waiting_remove(a);
    MHD_resume_connection(a->connection);
    api_wake(a->api); /* not MHD_run() from here: the caller's stack is not ours */
}

void api_answers_drop(struct api *api)
{
    while (api->waiting != NULL) {
        struct api_answer *a = api->waiting;

        waiting_remove(a);
        a->state = ANSWERED;
        MHD_resume_connection(a->connection);
    }
}

static char *render(const struct api_answer *a, const struct status_snapshot *s)
{
    switch (a->about) {
    case API_STATUS:
        return api_json_status(s, a->flows);
    case API_FLOWS:
        return api_json_flows(s);
    case API_FLOWS_TEXT:
        return api_text_flows(s);
    case API_LAST:
        return api_json_last(s);
    case API_LAST_TEXT:
        return api_text_last(s);
    case API_GROUPS:
        return api_json_groups(s);
    case API_GROUP:
        return api_json_group(s, a->name);
    case API_UPSTREAMS:
        return api_json_upstreams(s);
    case API_RULES:
        return api_json_rules(s);
    case API_METRICS:
        return api_metrics(s);
    case API_END_FLOW:
    case API_RELOAD:
    case API_EVENTS:
        break; /* these show no snapshot */
    }
    return NULL;
}

void api_answer_status(struct api_answer *a, const struct status_snapshot *s)
{
    resume(a, MHD_HTTP_OK, s != NULL ? render(a, s) : NULL);
}

void api_answer_ended(struct api_answer *a, bool found)
{
    resume(a, found ? MHD_HTTP_NO_CONTENT : MHD_HTTP_NOT_FOUND,
           found ? strdup("") : api_json_error("no flow with this id (any more)", 0, 0));
}

static enum MHD_Result wait_or_send(struct api_answer *a)
{
    if (a->state == ANSWERED)
        return send_answer(a);
    waiting_add(a);
    MHD_suspend_connection(a->connection);
    return MHD_YES;
}

/* ---- what can be asked ---- */

static enum MHD_Result ask_snapshot(struct api_answer *a, unsigned parts)
{
    a->state = ASKED;
    a->api->opt.on_status(a->api->opt.arg, parts, a);
    return wait_or_send(a);
}

/* Is it KEY=VALUE behind the question mark? */
static bool query_is(const struct api_answer *a, const char *key, const char *value)
{
    const char *text = MHD_lookup_connection_value(a->connection, MHD_GET_ARGUMENT_KIND, key);

    return text != NULL && strcmp(text, value) == 0;
}

static enum MHD_Result get_status(struct api_answer *a, const char *rest)
{
    (void)rest;
    a->flows = query_is(a, "flows", "1");
    return ask_snapshot(a, a->flows ? STATUS_FLOWS : 0);
}

static enum MHD_Result get_flows(struct api_answer *a, const char *rest)
{
    bool text = query_is(a, "format", "text"), ended = query_is(a, "ended", "1");

    (void)rest;
    if (ended)
        a->about = text ? API_LAST_TEXT : API_LAST;
    else if (text)
        a->about = API_FLOWS_TEXT;
    return ask_snapshot(a, ended ? STATUS_ENDED : STATUS_FLOWS);
}

static enum MHD_Result get_plain(struct api_answer *a, const char *rest)
{
    (void)rest;
    return ask_snapshot(a, 0);
}

static enum MHD_Result get_rules(struct api_answer *a, const char *rest)
{
    (void)rest;
    return ask_snapshot(a, STATUS_RULES);
}

/* The body of a PUT or POST. Return: true: *out; false: *sent is what to return. */
static bool read_body(struct api_answer *a, struct api_body *out, enum MHD_Result *sent)
{
    struct api_fault fault;
    int r = api_body_read(a->in != NULL ? a->in : "", a->in_len, out, &fault);

    if (r == -EINVAL)
        *sent = send_fault(a->connection, &fault);
    else if (r != 0)
        *sent = send_error(a->connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory for the request");
    return r == 0;
}

/* All workers are told, then asked: what comes back is the truth, even when somebody else has picked meanwhile (faults.md A6). */
static enum MHD_Result put_group(struct api_answer *a, const char *name)
{
    enum MHD_Result sent;
    struct api_body body;
    struct err err = { "" };
    int r;

    if (!read_body(a, &body, &sent))
        return sent;
    if (body.member[0] == '\0')
        return send_fault(
            a->connection,
            &(struct api_fault){ "the body must name a member, as in {\"now\": \"NAME\"}", 1, 1 });
    if (strlen(name) >= sizeof(a->name))
        return send_error(a->connection, MHD_HTTP_NOT_FOUND, "no group has such a long name");
    memcpy(a->name, name, strlen(name) + 1);
    r = a->api->opt.on_pick(a->api->opt.arg, name, body.member, &err);
    if (r != 0)
        return send_error(a->connection,
                          r == -ENOENT   ? MHD_HTTP_NOT_FOUND
                          : r == -EINVAL ? MHD_HTTP_BAD_REQUEST
                                         : MHD_HTTP_INTERNAL_SERVER_ERROR,
                          err.text);
    return ask_snapshot(a, 0);
}

static enum MHD_Result delete_flow(struct api_answer *a, const char *id)
{
    uint64_t n = 0;
    size_t len = strspn(id, "0123456789abcdef");

    if (len != 16 || id[len] != '\0')
        return send_error(a->connection, MHD_HTTP_NOT_FOUND, "no flow with this id (any more)");
    n = strtoull(id, NULL, 16);
    a->state = ASKED;
    a->api->opt.on_end_flow(a->api->opt.arg, n, a);
    return wait_or_send(a);
}

static enum MHD_Result post_reload(struct api_answer *a, const char *rest)
{
    enum MHD_Result sent;
    struct api_body body;
    struct err err = { "" };

    (void)rest;
    if (!read_body(a, &body, &sent))
        return sent;
    if (a->api->opt.on_reload(a->api->opt.arg, body.drain_ms, &err) != 0)
        return send_error(a->connection, MHD_HTTP_UNPROCESSABLE_CONTENT, err.text);
    return send_text(a->connection, MHD_HTTP_OK, "application/json", strdup("{\"reloaded\": true}\n"));
}

static enum MHD_Result get_events(struct api_answer *a, const char *rest)
{
    char accept[TLS_WEBSOCKET_ACCEPT_BYTES];

    (void)rest;
    if (!api_events_wanted(a->connection, accept))
        return send_error(a->connection, MHD_HTTP_UPGRADE_REQUIRED, "this path is a websocket, version 13");
    return api_events_open(a->api, a->connection);
}

struct route {
    const char *method, *path; /* a path that ends in '/' takes what follows, which must not be empty */
    enum api_about about;
    enum MHD_Result (*answer)(struct api_answer *a, const char *rest);
};
static const struct route routes[] = {
    { "GET", "/v1/status", API_STATUS, get_status },   { "GET", "/v1/flows", API_FLOWS, get_flows },
    { "GET", "/v1/groups", API_GROUPS, get_plain },    { "GET", "/v1/upstreams", API_UPSTREAMS, get_plain },
    { "GET", "/v1/rules", API_RULES, get_rules },      { "GET", "/v1/events", API_EVENTS, get_events },
    { "PUT", "/v1/groups/", API_GROUP, put_group },    { "DELETE", "/v1/flows/", API_END_FLOW, delete_flow },
    { "POST", "/v1/reload", API_RELOAD, post_reload },
};

/* What of @url follows @path; NULL: it is another one. */
static const char *path_rest(const char *url, const char *path)
{
    size_t len = strlen(path);

    if (path[len - 1] != '/')
        return strcmp(url, path) == 0 ? url + len : NULL;
    return strncmp(url, path, len) == 0 && url[len] != '\0' ? url + len : NULL;
}

static enum MHD_Result dispatch(struct api_answer *a, const char *url, const char *method)
{
    const struct route metrics = { "GET", a->api->metrics, API_METRICS, get_rules };
    const char *allow = NULL;

    if (a->too_long)
        return send_error(a->connection, MHD_HTTP_CONTENT_TOO_LARGE, "a body has at most 1 MiB");
    for (size_t i = 0; i <= ARRAY_LEN(routes); i++) {
        const struct route *r = i < ARRAY_LEN(routes) ? &routes[i] : &metrics;
        const char *rest = r->path != NULL ? path_rest(url, r->path) : NULL;

        if (rest == NULL)
            continue;
        allow = r->method;
        if (strcmp(method, r->method) != 0)
            continue;
        a->about = r->about;
        return r->answer(a, rest);
    }
    if (allow != NULL)
        return send_wrong_method(a->connection, allow);
    return send_error(a->connection, MHD_HTTP_NOT_FOUND, "no such path");
}

/* ---- may it be asked? ---- */

static const char *header(const struct api_answer *a, const char *name)
{
    return MHD_lookup_connection_value(a->connection, MHD_HEADER_KIND, name);
}

static bool came_over_tcp(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

    return info == NULL || info->client_addr == NULL || info->client_addr->sa_family != AF_UNIX;
}

/* Return: true; false: *sent says no. */
static bool may_ask(const struct api_answer *a, enum MHD_Result *sent)
{
    const struct api_options *o = &a->api->opt;
    bool tcp = came_over_tcp(a->connection);
    const char *length = header(a, MHD_HTTP_HEADER_CONTENT_LENGTH);

    if (tcp && !api_host_is_ours(header(a, MHD_HTTP_HEADER_HOST), &o->listen))
        *sent = send_error(a->connection, MHD_HTTP_FORBIDDEN, "Host is not the address that is listened on");
    else if (tcp ? !api_origin_is_ours(header(a, MHD_HTTP_HEADER_ORIGIN), &o->listen)
                 : header(a, MHD_HTTP_HEADER_ORIGIN) != NULL)
        *sent = send_error(a->connection, MHD_HTTP_FORBIDDEN, "no page of another site may ask here");
    else if (tcp && o->secret != NULL &&
             !api_secret_is_right(header(a, MHD_HTTP_HEADER_AUTHORIZATION), o->secret))
        *sent = send_error(a->connection, MHD_HTTP_UNAUTHORIZED,
                           "send the header \"Authorization: Bearer SECRET\" with api.secret");
    else if (length != NULL && strtoull(length, NULL, 10) > API_BODY_MAX)
        *sent = send_error(a->connection, MHD_HTTP_CONTENT_TOO_LARGE, "a body has at most 1 MiB");
    else
        return true;
    return false;
}

/* ---- from MHD ---- */

static void take_body(struct api_answer *a, const char *data, size_t len)
{
    bool fits = len <= API_BODY_MAX - a->in_len && len <= API_BODIES_MAX - a->api->body_bytes;
    char *more = !a->too_long && fits ? realloc(a->in, a->in_len + len) : NULL;

    if (more == NULL) { /* thrown away from here on */
        a->too_long = true;
        return;
    }
    memcpy(more + a->in_len, data, len);
    a->in = more;
    a->in_len += len;
    a->api->body_bytes += len;
}

/* MHD calls this for the head, for each piece of a body, at the end of the request, and again after a resume. */
enum MHD_Result api_on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                               const char *version, const char *upload, size_t *upload_len, void **request)
{
    const union MHD_ConnectionInfo *info;
    struct api_answer *a = *request;
    enum MHD_Result sent;

    (void)version;
    if (a == NULL) {
        a = calloc(1, sizeof(*a));
        if (a == NULL)
            return MHD_NO;
        info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
        *a = (struct api_answer){ .api = cls,
                                  .connection = c,
                                  .state = HEAD_READ,
                                  .peer = info != NULL ? info->socket_context : NULL };
        *request = a;
        return may_ask(a, &sent) ? MHD_YES : sent;
    }
    if (*upload_len > 0) {
        take_body(a, upload, *upload_len);
        *upload_len = 0;
        return MHD_YES;
    }
    if (a->peer != NULL)
        a->peer->heard = true;
    return a->state == ANSWERED ? send_answer(a) : dispatch(a, url, method);
}

void api_on_completed(void *cls, struct MHD_Connection *c, void **request,
                      enum MHD_RequestTerminationCode why)
{
    struct api_answer *a = *request;

    (void)cls;
    (void)c;
    (void)why;
    if (a == NULL)
        return;
    *request = NULL;
    if (a->peer != NULL) {
        a->peer->heard = false;
        a->peer->since_us = clock_now_us();
    }
    a->api->body_bytes -= a->in_len;
    free(a->in);
    free(a->body);
    free(a);
}

#else
typedef int request_is_left_out; /* a file that says nothing is no C */
#endif
