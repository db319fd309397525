/* http_request.h - what a proxy is asked in HTTP, without I/O: HTTP/1.1 requests (RFC 9112), logins (RFC 7617, RFC 6750), targets
 * of CONNECT (RFC 9110 section 9.3.6).
 * Memory  nothing is allocated; spans point into what was read. */
#ifndef CULVERT_SERVE_HTTP_REQUEST_H
#define CULVERT_SERVE_HTTP_REQUEST_H

#include "culvert/serve.h"

enum {
    HTTP_HEAD_MAX = 8192, /* bytes of a request, its empty line included; more: 431 */
    HTTP_LINE_MAX = 4096, /* of the request line; more: 414 */
    HTTP_FIELDS_MAX = 64, /* more: 431 */
};

/* ---- targets ---- */

/* The part before @c, which is taken with it; false: @c does not come, and nothing is taken */
bool http_take_until(struct span *s, uint8_t c, struct span *out);

struct http_target {
    struct host_port to; /* its name, if any, is `name` */
    char name[256];
};

/** http_read_authority() - "name:port", "192.0.2.1:443" or "[2001:db8::1]:443"; the port must be there, 1 to 65535
 * Return: false and @out is unusable. */
bool http_read_authority(struct span text, struct http_target *out);

/* ---- logins ---- */

/** http_login() - a Proxy-Authorization or Authorization value
 * Basic is a user's name and password; Bearer is a password alone (a token that says who it is). Takes as long for a yes as
 * for a no. Return: the user's index, or -1. */
int http_login(const struct serve_user *users, size_t n, struct span value);

/* ---- HTTP/1.1 ---- */

struct http_request {
    struct http_target target;
    struct span authorization; /* Proxy-Authorization; data NULL: none. Into the bytes that were read */
    size_t len;                /* of the request: what follows belongs to the target */
};

/** http_request_read() - a whole CONNECT request from the front of @in
 * @scanned: 0 at first, then what it was; bytes that need not be looked at again
 * Return: 200 it is there; 0 more bytes are needed; else the status it is to be refused with: 400, 405, 414, 431, 505. */
int http_request_read(struct span in, size_t *scanned, struct http_request *out);

/** http_status_for() - how a failed dial is told: 502, 504, 403, 503 */
int http_status_for(int err);
#define HTTP_CHALLENGE "Basic realm=\"culvert\", charset=\"UTF-8\"" /* RFC 7617 section 2 */
enum { HTTP_ANSWER_MAX = 320 };
/** http_put_answer() - a complete answer without content; for 200 nothing follows but the tunnel
 * @err: of a failed dial, told in Proxy-Status; 0: none */
void http_put_answer(struct buf *out, int status, int err);
/** http_proxy_error() - the error token of a Proxy-Status field (RFC 9209 section 2.3) that goes with @err */
const char *http_proxy_error(int err);

#endif
