"""What a handshake may save: greeting, login and request in one message (`pipelining`), with servers that take it and one that
throws away what came with the greeting; connections dialled ahead (`pool`). No client may see the difference."""
from harness import check_equal, client, servers, test, within
from harness import lab as at

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


TAKE_IT = {"dante": lambda lab: servers.dante(lab), "culvert serve": lambda lab: servers.culvert_serve(lab),
           "culvert serve, login": lambda lab: servers.culvert_serve(lab, **LOGIN)}


@test("a server that takes it is told all at once after the first connection", cases=TAKE_IT, limit=30)
def _(t, server):
    check_equal(connections(t, server), (ROUNDS - 1, 0), "said at once, started over")


@test("a server that takes it is told all at once from the first connection on, with `pipelining: true`", cases=TAKE_IT, limit=30)
def _(t, server):
    check_equal(connections(t, server, pipelining=True), (ROUNDS, 0), "said at once, started over")


@test("microsocks throws away what came with the greeting: one connection is a little late, none fails",
      cases={"no login": {}, "login": LOGIN}, limit=30)
def _(t, login):
    check_equal(connections(t, lambda lab: servers.microsocks(lab, **login)), (1, 1), "said at once, started over")


@test("without it nothing is said before the server has chosen", limit=30)
def _(t):
    check_equal(connections(t, servers.dante, pipelining=False), (0, 0), "said at once, started over")


@test("connections dialled ahead: every later flow finds one", limit=40,
      cases={"dante": servers.dante, "microsocks": servers.microsocks,
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
