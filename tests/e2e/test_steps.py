"""Every step of every kind of handshake, and everything that a server can do there instead (faults.md section 6, L6).

The tables are generated: kinds of proxy, plain and inside TLS, times the answers that the server owes, times the actions below.
Asserted are what the client sees, and the reason in the flow's closing log line.
"""
import time

import fault_tls
from faultd import FaultServer, close, crumble, drip, frames, half, hang, read, reset, reply, send, until
from harness import check, check_equal, client, test
from harness import lab as at
from harness.core import check_table
from harness.fronts import Pki
from harness.gateway import SECRET

FIRST_PORT = 4000
BATCH = 8               # a worker writes ten lines a second of one cause (faults.md G3), and here every line is looked for
BROKEN = {"EHOSTUNREACH"}
OPEN = {"open"}

# What the server reads and answers, step by step, when all is well.
LOGIN = {"username": "alice", "password": SECRET}
KINDS = {
    "socks5": (LOGIN, [(("greet",), b"\5\2"), (("login",), b"\1\0"), (("request",), reply())]),
    "socks4": ({}, [(read(9), b"\0\x5a\0\0\0\0\0\0")]),
    "socks4a": ({"username": "alice"}, [(read(14), b"\0\x5a\0\0\0\0\0\0")]),
    "http": (LOGIN, [(until(b"\r\n\r\n"), b"HTTP/1.1 200 Connection established\r\n\r\n")]),
}


def steps_until(steps, k):
    """All is well before answer k, whose request is read."""
    plan = []
    for i, (asked, answer) in enumerate(steps[:k + 1]):
        plan += [asked] + ([send(answer)] if i < k else [])
    return plan


def rows_of(steps):
    """{name: (plan, what the client may see, what the log says of it)}; the last column is None when the flow opens."""
    rows = {}
    for k, (_, answer) in enumerate(steps):
        before, rest = steps_until(steps, k), []
        for asked, good in steps[k + 1:]:
            rest += [asked, send(good)]
        cut = len(answer) // 2
        for name, piece in (("answer %d" % k, b""), ("half of answer %d" % k, answer[:cut])):
            said = [send(piece)] if piece else []
            rows["hang at " + name] = (before + said + [hang()], BROKEN, "in time")
            rows["close at " + name] = (before + said + [close()], BROKEN, "closed|ended")
            rows["reset at " + name] = (before + said + [reset()], BROKEN, "reset|closed|ended")
        rows["drip of answer %d" % k] = (before + [drip(answer)] + rest + [send(b"end"), half(), hang()], OPEN, b"end")
        rows["garbage for answer %d" % k] = (before + [send(b"\xa5" * len(answer)), hang()], BROKEN, ".")
        last = k == len(steps) - 1
        rows["1 byte more than answer %d" % k] = (before + [send(answer + b"\xa5")] + rest + [half(), hang()],
                                                  OPEN if last else BROKEN, b"\xa5" if last else ".")
    rows["glued to data"] = (before + [send(answer + b"d" * 3000), half(), hang()], OPEN, b"d" * 3000)
    return rows


def gateway_for(lab, rows, entry, start):
    """One gateway, a proxy for each row; {row: port}."""
    ports = {name: FIRST_PORT + i for i, name in enumerate(rows)}
    proxies = []
    for name, port in ports.items():
        server = start(name, port)
        proxies.append({**server.proxy("p%d" % port), **entry})
        del proxies[-1]["udp"]
    rules = ["DST-PORT,%d,p%d" % (p, p) for p in ports.values()]
    return lab.gateway(proxies=proxies, rules=rules + ["MATCH,REJECT"], stack={"tcp": {"connect-timeout": "2s"}}), ports


def data_of(lab, port, wanted):
    with client.tcp(lab.cli, at.TARGET[0], port) as s:
        got = client.receive_end(s)[0]
    return [] if got == wanted else ["port %d: %d bytes came, not %d" % (port, len(got), len(wanted))]


def run_table(t, lab, gw, rows, ports):
    names, wrong, lines = list(rows), [], []
    for first in range(0, len(names), BATCH):
        start, batch = time.monotonic(), names[first:first + BATCH]
        seen = client.outcomes(lab.cli, {n: (at.TARGET[0], ports[n]) for n in batch if rows[n][1] != OPEN}, t.slow(4))
        for name, (how, _) in seen.items():
            if how not in rows[name][1]:
                wrong.append("%s: the client saw %s" % (name, how))
            lines.append("p%d .*(%s)" % (ports[name], rows[name][2]))
        for name in batch:
            if rows[name][1] == OPEN:
                wrong += ["%s: %s" % (name, x) for x in data_of(lab, ports[name], rows[name][2])]
        if first + BATCH < len(names):
            time.sleep(max(0, 1.05 - (time.monotonic() - start)))   # the log's second
    check_table(wrong)
    for line in lines:
        gw.says(line)
    gw.wait_no_flows()
    gw.check_alive()
    t.note("%d rows" % len(rows))


@test("each step of each handshake, and everything a server can do there: the client's answer and the log's reason",
      rows=["S2", "S3", "S4", "S5", "S11", "G1", "G7"], limit=90,
      cases={"%s%s" % (kind, " inside TLS" if tls else ""): (kind, tls) for kind in KINDS for tls in (False, True)})
def _(t, kind, sealed):
    lab = t.lab()
    entry, steps = KINDS[kind]
    rows, tls = rows_of(steps), None
    entry = dict(entry, type=kind)
    if sealed:
        pki = Pki(t)
        pki.server()
        entry["tls"], tls = {"ca": pki.ca}, fault_tls.server_context(pki)
    gw, ports = gateway_for(lab, rows, entry, lambda name, port: FaultServer(t, lab.srv, at.PROXY[0], port, rows[name][0], tls=tls))
    run_table(t, lab, gw, rows, ports)


RECORD_ACTIONS = {
    "hang": ([hang()], "in time"),
    "close": ([close()], "closed the connection during the TLS handshake"),
    "reset": ([reset()], "(reset|closed) the connection during the TLS handshake"),
    "garbage": (fault_tls.garbage, "."),
    "a bent byte": (fault_tls.bent, "."),
    "an HTTP answer": ([send(fault_tls.HTTP_ANSWER), hang()], "HTTP server|rules of TLS"),
}


@test("each record of a TLS handshake, and everything a server can do there", rows=["L6", "S2", "S3", "S5", "G7"], limit=90,
      cases={k: (k,) for k in RECORD_ACTIONS})
def _(t, how):
    lab = t.lab()
    pki = Pki(t)
    pki.server()
    context, (action, says) = fault_tls.server_context(pki), RECORD_ACTIONS[how]
    rows = {"record %d" % k: (k, BROKEN, says) for k in range(fault_tls.RECORDS)}
    gw, ports = gateway_for(lab, rows, {"tls": {"ca": pki.ca}}, lambda name, port: fault_tls.RecordServer(
        t, lab.srv, at.PROXY[0], port, context, rows[name][0], action))
    run_table(t, lab, gw, rows, ports)


@test("a TLS handshake of single bytes works", rows=["L6", "S4"], limit=60)
def _(t):
    lab = t.lab()
    pki = Pki(t)
    pki.server()
    front = FaultServer(t, lab.srv, at.PROXY[0], FIRST_PORT, [crumble(FIRST_PORT + 1)])
    good = KINDS["socks4"][1]
    FaultServer(t, lab.srv, at.PROXY[0], FIRST_PORT + 1, [good[0][0], send(good[0][1] + b"end"), half(), hang()],
                tls=fault_tls.server_context(pki))
    lab.gateway(proxies=[dict(front.proxy(), type="socks4", udp="auto", tls={"ca": pki.ca})])
    check_equal(data_of(lab, 80, b"end"), [])


# ---- type masque: HTTP/2 inside TLS (RFC 9113) ----

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
PREFACE = read(24)
H2, HTTP_1 = ["h2"], ["http/1.1"]


def frame(kind, flags=0, stream=0, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def status(code):
    """Response headers: HPACK's static entry 8 is ":status" (RFC 7541 appendix A)."""
    return frame(HEADERS, 4, 1, b"\x88" if code == 200 else b"\x08\3" + b"%d" % code)


READY = frame(SETTINGS) + frame(SETTINGS, 1)            # ours, and that we have seen theirs
ASKED = [PREFACE, send(READY), frames(HEADERS)]         # all is well until the request is here


def number(*values):
    return b"".join(v.to_bytes(4, "big") for v in values)


MASQUE = {          # (plan, what the client may see, what the log or the data says)
    "silent after TLS": ([hang()], BROKEN, "come to speak HTTP/2 in time"),
    "SETTINGS never come": ([PREFACE, hang()], BROKEN, "come to speak HTTP/2 in time"),
    "no answer to the request": (ASKED + [hang()], BROKEN, "answer our request in time"),
    "closed after TLS": ([close()], BROKEN, "closed|ended"),
    "closed at the request": (ASKED + [close()], BROKEN, "closed|ended|broke"),
    "reset after TLS": ([PREFACE, reset()], BROKEN, "reset|closed"),
    "reset at the request": (ASKED + [reset()], BROKEN, "reset|closed|broke"),
    "an HTTP/1.1 answer": ([PREFACE, send(fault_tls.HTTP_ANSWER), hang()], BROKEN, "HTTP"),
    "GOAWAY at once": ([PREFACE, send(READY + frame(GOAWAY, 0, 0, number(0, 0))), hang()], BROKEN, "."),
    "GOAWAY: calm down": ([PREFACE, send(READY + frame(GOAWAY, 0, 0, number(0, 11))), hang()], BROKEN, "."),
    "GOAWAY at the request": (ASKED + [send(frame(GOAWAY, 0, 0, number(0, 0))), hang()], BROKEN, "."),
    "RST_STREAM: refused": (ASKED + [send(frame(RST, 0, 1, number(7))), hang()], BROKEN, "."),
    "RST_STREAM: connect error": (ASKED + [send(frame(RST, 0, 1, number(10))), hang()], BROKEN | {"ECONNREFUSED"}, "."),
    "RST_STREAM: internal error": (ASKED + [send(frame(RST, 0, 1, number(2))), hang()], BROKEN, "."),
    "403": (ASKED + [send(status(403)), hang()], BROKEN | {"EACCES"}, "403|allow"),
    "407": (ASKED + [send(status(407)), hang()], BROKEN, "407.*Basic"),
    "502": (ASKED + [send(status(502)), hang()], BROKEN | {"ECONNREFUSED"}, "502"),
    "garbage": ([PREFACE, send(b"\xa5" * 200), hang()], BROKEN, "."),
    "a frame of 16 MiB": ([PREFACE, send(READY + b"\xff\xff\xff" + frame(DATA, 0, 1)[3:]), hang()], BROKEN, "."),
    "DATA of no stream": ([PREFACE, send(READY + frame(DATA, 0, 0, b"x")), hang()], BROKEN, "."),
    "bad HPACK": (ASKED + [send(frame(HEADERS, 4, 1, b"\xff\xff\xff\xff\xff")), hang()], BROKEN, "."),
    "SETTINGS of 5 bytes": ([PREFACE, send(frame(SETTINGS, 0, 0, b"12345")), hang()], BROKEN, "."),
    "10,000 pings": ([PREFACE, send(READY + frame(PING, 0, 0, b"12345678") * 10000), hang()], BROKEN, "."),
    "10,000 empty SETTINGS": ([PREFACE, send(READY + frame(SETTINGS) * 10000), hang()], BROKEN, "."),
    "answer byte by byte": ([PREFACE, drip(READY), frames(HEADERS), drip(status(200)), send(frame(DATA, 1, 1, b"end")), hang()],
                            OPEN, b"end"),
    "answer glued to data": (ASKED + [send(status(200) + frame(DATA, 1, 1, b"d" * 3000)), hang()], OPEN, b"d" * 3000),
    "a window that never opens": ([PREFACE, send(frame(SETTINGS, 0, 0, b"\0\4" + number(0)) + frame(SETTINGS, 1)), frames(HEADERS),
                                   send(status(200) + frame(DATA, 1, 1, b"end")), hang()], OPEN, b"end"),
}


def masque_gateway(lab, rows, pki, servers):
    return gateway_for(lab, rows, {"type": "masque", "tls": {"ca": pki.ca}}, servers)


@test("type masque: each step of its opening, and everything a server can do there", limit=120, rows=["S2", "S3", "S4", "S5", "G1", "G7"])
def _(t):
    lab = t.lab()
    pki = Pki(t)
    pki.server()
    tls = fault_tls.server_context(pki, alpn=H2)
    plans = []

    def start(name, port):
        plans.append(FaultServer(t, lab.srv, at.PROXY[0], port, MASQUE[name][0], tls=tls))
        return plans[-1]

    gw, ports = masque_gateway(lab, MASQUE, pki, start)
    run_table(t, lab, gw, MASQUE, ports)
    most = max(len(s.connections) for s in plans)
    check(most <= 10, "%d connections for one flow" % most)


class Absent:
    """Nobody listens there."""

    def __init__(self, port):
        self.port = port

    def proxy(self, name):
        return {"name": name, "server": at.PROXY[0], "port": self.port, "udp": "auto"}


@test("type masque: absent, silent, another ALPN, an authority that nobody knows", limit=90, rows=["S1", "S2", "L1", "L6", "G7"])
def _(t):
    lab = t.lab()
    pki = Pki(t)
    pki.server()
    contexts = {"HTTP/1.1 by ALPN": fault_tls.server_context(pki, alpn=HTTP_1), "no ALPN": fault_tls.server_context(pki)}
    rows = {"absent": (None, BROKEN, "refuses"), "no TLS": ([hang()], BROKEN, "TLS handshake in time"),
            "HTTP/1.1 by ALPN": ([hang()], BROKEN, "ALPN"), "no ALPN": ([hang()], BROKEN, "ALPN h2")}

    def start(name, port):
        if rows[name][0] is None:
            return Absent(port)
        return FaultServer(t, lab.srv, at.PROXY[0], port, rows[name][0], tls=contexts.get(name))

    gw, ports = masque_gateway(lab, rows, pki, start)
    run_table(t, lab, gw, rows, ports)
