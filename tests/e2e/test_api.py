"""The control socket: what it shows and changes, who may ask, and that nobody who asks badly does harm (faults.md section 10)."""
import json
import os
import re
import shlex
import socket
import threading
import time

from harness import check, check_equal, client, gateway, prom, servers, test, within
from harness import lab as at

SECRET = "correct-horse-7"
PORT = 9090


def ask(gw, method, path, body=None, *more, tcp=False, secret=SECRET):
    """(status, text) of one request by curl."""
    argv = ["curl", "-sS", "-g", "--path-as-is", "--max-time", "20", "-X", method, "-w", "\n%{http_code}"] + list(more)
    if body is not None:
        argv += ["-d", body]
    if tcp and secret:
        argv += ["-H", "Authorization: Bearer " + secret]
    argv += ["http://127.0.0.1:%d%s" % (PORT, path)] if tcp else ["--unix-socket", gw.api, "http://culvert" + path]
    r = gw.namespace.result(argv)
    check_equal(r.returncode, 0, "curl %s %s: %s" % (method, path, r.stderr))
    text, status = r.stdout.rsplit("\n", 1)
    return int(status), text


def get(gw, path, **kw):
    status, text = ask(gw, "GET", path, **kw)
    check_equal(status, 200, "GET " + path)
    return json.loads(text)


def culvert(gw, *argv):
    return gw.namespace.result([gateway.program(gw.context)] + list(argv) + ["--api", gw.api])


def start(lab, server=None, **more):
    server = server or servers.culvert_serve(lab)
    groups = [{"name": "pick", "type": "select", "proxies": ["up", "DIRECT"]},
              {"name": "auto", "type": "fallback", "proxies": ["up"]}]
    runtime = {"workers": 2, "state-dir": lab.context.path("state")}
    more["api"] = dict({"unix": lab.context.path("culvert.sock")}, **more.get("api", {}))
    return lab.gateway(proxies=[server], rules=["DST-PORT,7000,pick", "MATCH,DIRECT"], runtime=runtime,
                       **{"proxy-groups": groups}, **more)


def flow(lab, t):
    s = t.own(client.tcp(lab.cli, at.TARGET[0], 7000), "close")
    s.sendall(b"echo\n01234567")
    check_equal(client.receive(s, 8), b"01234567", "what came back")
    return s


@test("flows are listed with what took them, and one is ended by its id, once", rows=["A6"], quick=True)
def _(t):
    lab = t.lab()
    lab.services()
    gw = start(lab)
    s, bystander = flow(lab, t), flow(lab, t)
    port = s.getsockname()[1]
    shown = [f for f in get(gw, "/v1/flows")["flows"] if f["source"].endswith(":%d" % port)]
    check_equal([(f["upstream"], f["rule-text"], f["state"]) for f in shown], [("up", "DST-PORT,7000,pick", "open")])
    check(shown[0]["up"] >= 13 and shown[0]["down"] >= 8, "bytes: %r" % shown[0])
    again = [f["id"] for f in get(gw, "/v1/flows")["flows"] if f["source"].endswith(":%d" % port)]
    check_equal(again, [shown[0]["id"]], "the id stays")
    r = culvert(gw, "connections")
    check(shown[0]["id"] in r.stdout and "by DST-PORT,7000,pick" in r.stdout, r.stdout + r.stderr)
    path = "/v1/flows/" + shown[0]["id"]
    check_equal(ask(gw, "DELETE", path)[0], 204, "the first time")
    check_equal(client.receive_end(s)[1], "ECONNRESET", "what its client sees")
    within(5, lambda: ask(gw, "DELETE", path)[0] == 404, "404 once it has gone")
    for wrong in ("0", "zz", "ffffffffffffffff", shown[0]["id"] + "0"):
        check_equal(ask(gw, "DELETE", "/v1/flows/" + wrong)[0], 404, wrong)
    bystander.sendall(b"abcdefgh")
    check_equal(client.receive(bystander, 8), b"abcdefgh", "the other flow")


@test("a choice holds for new flows, for all workers, over a reload and a restart", quick=True)
def _(t):
    lab = t.lab()
    lab.services()
    server = servers.culvert_serve(lab)
    gw = start(lab, server)
    check_equal(get(gw, "/v1/groups")["groups"]["pick"]["now"], "up")
    status, text = ask(gw, "PUT", "/v1/groups/pick", '{"now": "DIRECT"}')
    check_equal((status, json.loads(text)["now"]), (200, "DIRECT"))
    for worker in get(gw, "/v1/status")["workers"]:
        check_equal(worker["groups"]["pick"], "DIRECT", "worker %d" % worker["index"])
    check_equal(culvert(gw, "reload", "--drain", "60s").returncode, 0, "reload")
    check_equal(get(gw, "/v1/groups")["groups"]["pick"]["now"], "DIRECT", "after a reload")
    for path, body, wanted in (("/v1/groups/none", '{"now": "up"}', 404), ("/v1/groups/pick", '{"now": "none"}', 400),
                               ("/v1/groups/auto", '{"now": "up"}', 400), ("/v1/groups/pick", "{}", 400)):
        check_equal(ask(gw, "PUT", path, body)[0], wanted, path + " " + body)
    r = culvert(gw, "select", "pick", "none")
    check(r.returncode == 1 and "no member" in r.stderr, r.stderr)
    check_equal(culvert(gw, "select", "pick", "up").returncode, 0)
    check_equal(get(gw, "/v1/groups")["groups"]["pick"]["now"], "up")
    check_equal(ask(gw, "PUT", "/v1/groups/pick", '{"now": "DIRECT"}')[0], 200)
    state = lab.context.path("state") + "/select"
    with open(state, encoding="utf-8") as f:
        check_equal(f.read(), "culvert select 1\npick\nDIRECT\nend\n")
    gw.finish()
    gw = start(lab, server, route=False)
    check_equal({w["groups"]["pick"] for w in get(gw, "/v1/status")["workers"]}, {"DIRECT"}, "after a restart")
    gw.finish()
    with open(state, "w", encoding="utf-8") as f:
        f.write("culvert select 1\npick\nDIR")
    gw = start(lab, server, route=False)
    check_equal(get(gw, "/v1/groups")["groups"]["pick"]["now"], "up", "from a torn file")
    gw.says("select: ")


@test("two that change a group at once: one wins, and both are told the truth", rows=["A6"])
def _(t):
    lab = t.lab()
    lab.services()
    gw = start(lab)
    answers = []

    def put(member):
        for _ in range(10):
            answers.append((member, ask(gw, "PUT", "/v1/groups/pick", json.dumps({"now": member}))))
    both = [threading.Thread(target=put, args=(m,)) for m in ("up", "DIRECT")]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    check_equal({s for _, (s, _) in answers}, {200})
    check({json.loads(text)["now"] for _, (_, text) in answers} <= {"up", "DIRECT"}, "members only")
    end = get(gw, "/v1/groups")["groups"]["pick"]["now"]
    check_equal({w["groups"]["pick"] for w in get(gw, "/v1/status")["workers"]}, {end}, "all workers agree")


@test("rules are counted, ways out are shown, metrics are as Prometheus wants them", quick=True)
def _(t):
    lab = t.lab()
    lab.services()
    gw = start(lab, api={"metrics": "/metrics"})
    flow(lab, t)
    flow(lab, t)
    rules = get(gw, "/v1/rules")["rules"]
    check_equal([(r["rule"], r["via"], r["hits"]) for r in rules][0], ("DST-PORT,7000,pick", "pick", 2))
    up = get(gw, "/v1/upstreams")["upstreams"]
    check_equal(up["up"]["type"], "socks5")
    check(any(w["rtt-us"] > 0 for w in up["up"]["workers"]), "a connect was measured: %r" % up)
    status, text = ask(gw, "GET", "/metrics")
    check_equal(status, 200)
    wrong, samples = prom.check(text)
    check_equal(wrong, [], "what is wrong with the metrics")
    total = sum(v for (name, _), v in samples.items() if name == "culvert_flow_tcp_opened_total")
    check_equal(total, 2, "flows")
    hits = [v for (name, labels), v in samples.items()
            if name == "culvert_rule_hits_total" and ("text", "DST-PORT,7000,pick") in labels]
    check_equal(hits, [2], "hits")
    purposes = {dict(labels).get("purpose") for (name, labels) in samples if name == "culvert_memory_bytes"}
    check(purposes >= {"packets", "stack", "flows", "upstream", "dns", "rules", "other"}, "purposes: %r" % purposes)
    status = get(gw, "/v1/status")
    check(0 < status["memory"]["rules_bytes"] < status["rss-bytes"], "rules: %r" % status["memory"])
    check_equal(status["memory"]["packets_bytes"], sum(w["memory"]["packets_bytes"] for w in status["workers"]), "packets")
    for name in ("culvert_memory_bytes", "culvert_pool_bytes", "culvert_upstream_rtt_seconds", "culvert_group_member_taken",
                 "culvert_resident_memory_bytes", "icmp_proxy_rtt_seconds_count"):
        check(any(n == name for n, _ in samples), "no " + name)


def over_tcp(lab, **more):
    return start(lab, api=dict({"listen": "127.0.0.1:%d" % PORT, "secret": SECRET}, **more))


@test("over TCP: no secret, a wrong one and a long one get the same 401", rows=["A1"], quick=True)
def _(t):
    lab = t.lab()
    gw = over_tcp(lab)
    bodies = set()
    for secret in (None, "x", SECRET[:-1], SECRET + "x", "y" * 4000):
        status, text = ask(gw, "GET", "/v1/status", tcp=True, secret=secret)
        check_equal(status, 401, "secret %.20r" % secret)
        bodies.add(text)
    check_equal(len(bodies), 1, "bodies")
    check_equal(ask(gw, "GET", "/v1/status", tcp=True)[0], 200, "the right one")
    check(SECRET not in gw.log and SECRET not in json.dumps(gw.status()), "the secret shows")


@test("over TCP: a Host that is not ours and a page of another site are refused, and no page is ever allowed", rows=["A2"],
      quick=True)
def _(t):
    lab = t.lab()
    gw = over_tcp(lab)
    for header, wanted in (("Host: evil.example:%d" % PORT, 403), ("Host: 127.0.0.1", 403), ("Host: 192.0.2.1:%d" % PORT, 403),
                           ("Host: localhost:%d" % PORT, 200), ("Origin: http://evil.example", 403), ("Origin: null", 403),
                           ("Origin: http://127.0.0.1:%d" % PORT, 200)):
        check_equal(ask(gw, "GET", "/v1/status", None, "-H", header, tcp=True)[0], wanted, header)
    status, head = ask(gw, "OPTIONS", "/v1/groups/pick", None, "-i", "-H", "Origin: http://evil.example",
                       "-H", "Access-Control-Request-Method: PUT", tcp=True, secret=None)
    check_equal(status, 403, "a preflight")
    check("access-control-allow" not in head.lower(), head)
    check_equal(ask(gw, "GET", "/v1/status", None, "-H", "Origin: http://x")[0], 403, "an Origin at the unix socket")


@test("a public address without a secret is an error before anything is touched", rows=["A3"])
def _(t):
    lab = t.lab()
    sections = gateway.config([], ["MATCH,REJECT"], api={"unix": "none", "listen": "192.0.2.1:9090"})
    path = lab.context.write("a3.yaml", gateway.config_text(sections), 0o600)
    r = lab.gw.result([gateway.program(lab.context), "run", "-c", path])
    check_equal(r.returncode, 2, "exit status")
    check("api.listen: others can reach this address" in r.stderr, r.stderr)


def connect(gw):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(gw.api)
    return s


def send_raw(gw, data):
    """The answer's first line, or b"" when the connection was closed."""
    with connect(gw) as s:
        try:
            s.sendall(data)
            return s.recv(1 << 16).split(b"\r\n")[0]
        except (BrokenPipeError, ConnectionResetError):
            return b""


@test("what is too long, too much or nonsense is refused, and flows do not notice", rows=["A4"], quick=True)
def _(t):
    lab = t.lab()
    lab.services()
    gw = start(lab)
    s = flow(lab, t)
    end = b" HTTP/1.1\r\nHost: x\r\n"

    def body(request, length):
        return request + end + b"Content-Length: %d\r\n\r\n" % length + b'{"now": "up"}'.ljust(length)
    rows = {"100 KiB of URL": (b"GET /" + b"a" * 102400 + end + b"\r\n", (b"", b"414", b"431")),
            "10,000 headers": (b"GET /v1/status" + end + b"X: y\r\n" * 10000 + b"\r\n", (b"", b"431", b"413")),
            "a GiB of body, said": (b"PUT /v1/groups/pick" + end + b"Content-Length: 1073741824\r\n\r\n", (b"413",)),
            "1 MiB of body": (body(b"PUT /v1/groups/none", 1 << 20), (b"404",)),
            "a byte more": (body(b"PUT /v1/groups/none", (1 << 20) + 1), (b"", b"413")),
            "2 MiB in chunks": (b"PUT /v1/groups/none" + end + b"Transfer-Encoding: chunked\r\n\r\n" +
                                (b"10000\r\n" + b" " * 65536 + b"\r\n") * 32 + b"0\r\n\r\n", (b"413",)),
            "dots in the path": (b"GET /v1/../v1/status" + end + b"\r\n", (b"404",)),
            "NUL": (b"GET /v1/st\0atus" + end + b"\r\n", (b"", b"400", b"404")),
            "nonsense": (b"\x16\x03\x01\x02\0\x01\0\r\n\r\n", (b"", b"400"))}
    for what, (data, wanted) in rows.items():
        line = send_raw(gw, data)
        check(any((line.split(b" ") + [b""])[1 if line else 0].startswith(w) and (w or not line) for w in wanted),
              "%s: %r" % (what, line))
    with connect(gw) as c:
        c.sendall((b"GET /v1/nothing" + end + b"\r\n") * 20)
        got = b""
        while got.count(b"HTTP/1.1 404") < 20:
            piece = c.recv(1 << 16)
            check(piece, "closed after %d of 20 requests in a row" % got.count(b"HTTP/1.1 404"))
            got += piece
    s.sendall(b"abcdefgh")
    check_equal(client.receive(s, 8), b"abcdefgh", "the flow")
    gw.status()


@test("a slow loris on all 64 places is thrown out in 10 s, though it sends a byte a second", rows=["A4"], limit=60)
def _(t):
    lab = t.lab()
    gw = start(lab)
    slow = [connect(gw) for _ in range(64)]
    start_s = time.monotonic()
    for s in slow:
        s.sendall(b"GET /v1/status HTTP/1.1\r\nX: ")
        s.settimeout(0.001)
    alive = slow
    while alive and time.monotonic() - start_s < 25:
        rest = []
        for s in alive:
            try:
                s.sendall(b"a")
                if s.recv(1) != b"":
                    rest.append(s)
            except TimeoutError:
                rest.append(s)
            except OSError:
                pass
        alive = rest
        time.sleep(1)
    check_equal(len(alive), 0, "connections that still live after %.0f s" % (time.monotonic() - start_s))
    for s in slow:
        s.close()
    gw.status()


@test("a body that is wrong says where", rows=["A8"], quick=True)
def _(t):
    lab = t.lab()
    gw = start(lab)
    rows = {"{": (1, 1), '{"now": "up",}': (1, 14), '{\n  "now": 5\n}': (2, 3), '{"now": "up", "now": "up"}': (1, None),
            "[]": (1, 1), '{"then": 1}': (1, 2), "[" * 10000: (1, None), '{"now": "\\ud800"}': (1, None), "{}": (1, 1)}
    for body, (line, column) in rows.items():
        status, text = ask(gw, "PUT", "/v1/groups/pick", body)
        check_equal(status, 400, body[:40])
        said = json.loads(text)
        check_equal(said["line"], line, "line of %.40s: %s" % (body, text))
        if column is not None:
            check_equal(said["column"], column, "column of %.40s: %s" % (body, text))
    check_equal(ask(gw, "POST", "/v1/reload", '{"drain-ms": -1}')[0], 400)
    check_equal(ask(gw, "POST", "/v1/reload")[0], 200)


@test("flows that ended are kept with their reasons, newest first, a hundred of each worker; the log has the same in JSON", limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    path = t.path("flows.log")
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], log={"level": "debug", "format": "json", "output": path})
    client.download(lab.cli, at.TARGET[0], 100000)
    check_equal(client.outcome(lab.cli, at.TARGET[0], 81)[0], "ECONNREFUSED")
    within(t.slow(5), lambda: get(gw, "/v1/flows?ended=1")["ended"][0]["destination"] == at.TARGET[0] + ":81",
           "the newest is the first")
    kept = get(gw, "/v1/flows?ended=1")["ended"]
    refused, whole = kept[0], kept[1]
    check("refused" in refused["reason"], refused)
    check_equal((whole["reason"], whole["upstream"], whole["network"]), ("ended", "up", "tcp"))
    check(whole["down"] >= 100000 and re.fullmatch("[0-9a-f]{16}", whole["id"]) and whole["ago-ms"] >= refused["ago-ms"], whole)
    with open(path, encoding="utf-8") as f:
        lines = [json.loads(x) for x in f]
    logged = [x for x in lines if x["message"] == "flow ended" and x["id"] == whole["id"]]
    check_equal(len(logged), 1, "lines about that flow")
    for key in ("network", "source", "destination", "host", "upstream", "rule", "reason", "up", "down", "age-ms"):
        check_equal(logged[0][key], whole[key], key)
    for _ in range(250):
        client.outcome(lab.cli, at.TARGET[0], 81)
    count = len(get(gw, "/v1/flows?ended=1")["ended"])
    check(100 <= count <= 200, "%d are kept" % count)
    r = gw.namespace.result([gateway.program(t), "connections", "--ended", "--api", gw.api])
    check_equal(r.returncode, 0, r.stderr)
    check(re.search(r"tcp .* -> %s:81 via up by .*refused" % re.escape(at.TARGET[0]), r.stdout), r.stdout[:600])


@test("every command of docs/api.md works")
def _(t):
    lab = t.lab()
    gw = start(lab, api={"metrics": "/metrics"})
    path = os.path.join(gateway.REPOSITORY, "docs", "api.md")
    with open(path, encoding="utf-8") as f:
        commands = [line.strip() for line in f if line.startswith("curl ")]
    check(len(commands) >= 9, "commands: %d" % len(commands))
    for line in commands:
        argv = shlex.split(line.replace("/run/culvert/api.sock", gw.api))
        r = gw.namespace.result(argv + ["-f"])
        check_equal(r.returncode, 0, "%s: %s" % (line, r.stderr))
