"""What a handshake may save: greeting, login and request in one message (`pipelining`), with servers that take it and one that
throws away what came with the greeting; connections dialled ahead (`pool`). No client may see the difference."""
from harness import check_equal, client, fronts, servers, test, within
from harness import lab as at
from harness.fronts import Front, Pki

LOGIN = {"username": "alice", "password": "open sesame"}
ROUNDS = 6


def connections(t, server, **more):
    """ROUNDS echoes, one after another. Return: how many said all at once, how many started over."""
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[server(lab).proxy(**more)], workers=1)
    for i in range(ROUNDS):
        with client.tcp(lab.cli, at.TARGET[0], 7) as s:
            s.sendall(b"%d" % i)
            check_equal(s.recv(1), b"%d" % i, "the echo of connection %d" % i)
    gw.wait_no_flows()
    counters = gw.status()["counters"]
    check_equal(counters["upstream.streams_failed"], 0, "streams that failed")
    return counters["upstream.pipelined"], counters["upstream.started_over"]


def in_tls(behind):
    """The same server behind stunnel."""
    def start(lab):
        pki, server = Pki(lab.context), behind(lab)
        fronts.stunnel(lab, server, {1444: ["cert = " + pki.server(), "sslVersionMin = TLSv1.2"]})
        return Front(server, 1444, {"ca": pki.ca})
    return start


TAKE_IT = {"dante": lambda lab: servers.dante(lab), "culvert serve": lambda lab: servers.culvert_serve(lab),
           "culvert serve, login": lambda lab: servers.culvert_serve(lab, **LOGIN),
           "dante inside TLS": in_tls(servers.dante)}


@test("a server that takes it is told all at once after the first connection", cases=TAKE_IT, limit=30)
def _(t, server):
    check_equal(connections(t, server), (ROUNDS - 1, 0), "said at once, started over")


@test("a server that takes it is told all at once from the first connection on, with `pipelining: true`", cases=TAKE_IT, limit=30)
def _(t, server):
    check_equal(connections(t, server, pipelining=True), (ROUNDS, 0), "said at once, started over")


@test("microsocks throws away what came with the greeting: one connection is a little late, none fails",
      cases={"no login": servers.microsocks, "login": lambda lab: servers.microsocks(lab, **LOGIN),
             "inside TLS": in_tls(servers.microsocks)}, limit=30)
def _(t, server):
    check_equal(connections(t, server), (1, 1), "said at once, started over")


@test("without it nothing is said before the server has chosen", limit=30)
def _(t):
    check_equal(connections(t, servers.dante, pipelining=False), (0, 0), "said at once, started over")


@test("connections dialled ahead: every later flow finds one", limit=40,
      cases={"dante": servers.dante, "microsocks": servers.microsocks, "dante inside TLS": in_tls(servers.dante),
             "culvert serve, login": lambda lab: servers.culvert_serve(lab, **LOGIN)})
def _(t, server):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[server(lab).proxy(pool=2, pipelining=False)], workers=1)
    for i in range(ROUNDS):
        with client.tcp(lab.cli, at.TARGET[0], 7) as s:
            s.sendall(b"%d" % i)
            check_equal(s.recv(1), b"%d" % i, "the echo of connection %d" % i)
        within(5, lambda: (lambda c: c["upstream.pool_opened"] - c["upstream.pool_taken"] == 2)(gw.status()["counters"]),
               "a pool that is full again")
    gw.wait_no_flows()
    counters = gw.status()["counters"]
    check_equal((counters["upstream.pool_taken"], counters["upstream.pool_dead"], counters["upstream.streams_failed"]),
                (ROUNDS - 1, 0, 0), "taken, dead, failed")


@test("tcp-fast-open towards a server that knows nothing of it changes nothing", limit=30)
def _(t):
    check_equal(connections(t, servers.dante, **{"tcp-fast-open": True}), (ROUNDS - 1, 0), "said at once, started over")
