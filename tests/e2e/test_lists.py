"""Lists of rules from the web (`rule-providers` of type http): fetched, refreshed, kept, and never lost to a bad answer."""
import os

from harness import check, check_equal, client, servers, test, within
from harness import lab as at
from harness.core import check_table
from harness.fronts import Pki

HTML = "<html>\n<head><title>500</title></head>\n<body>\nan error of the server's own\n</body>\n</html>\n"


def provider(lists, name, behavior="ipcidr", **more):
    return dict({"type": "http", "behavior": behavior, "url": lists.url(name), "interval": "1s"}, **more)


def start(lab, providers, **more):
    """Whatever is in a list is refused."""
    state = lab.context.path("state")
    gw = lab.gateway(rules=["RULE-SET,%s,REJECT" % x for x in providers] + ["MATCH,DIRECT"], runtime={"workers": 2, "state-dir": state},
                     **{"rule-providers": providers}, **more)
    gw.copies = os.path.join(state, "providers")
    return gw


def fetched(gw, name, entries, after=0):
    return gw.process.wait_line("rule-providers.%s: fetched, %d entries" % (name, entries), gw.context.slow(10), after)


def decided(lab, refused, opened):
    """What new connections get; the workers are told a moment before or after the line in the log is written."""
    wanted = ["ECONNREFUSED"] * len(refused) + ["open"] * len(opened)
    within(lab.context.slow(3), lambda: [client.outcome(lab.cli, x, 7000)[0] for x in (*refused, *opened)] == wanted,
           "refused: %s; open: %s" % (refused, opened))


def copy_of(gw, name):
    with open(os.path.join(gw.copies, name), encoding="utf-8") as f:
        return f.read()


@test("a list is fetched at start and a refresh decides the next flow, without a cut; it survives its server", rows=["C6"],
      quick=True, limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    lists = servers.Lists(lab)
    first, second = "%s/32\n" % at.TARGET[0], "%s/32\n# and\n%s/128\n" % (at.TARGET2[0], at.TARGET2[1])
    lists.write("ads", first)
    gw = start(lab, {"ads": provider(lists, "ads")})
    fetched(gw, "ads", 1)
    decided(lab, [at.TARGET[0]], [at.TARGET2[0]])
    check_equal(copy_of(gw, "ads"), first)
    with client.tcp(lab.cli, at.TARGET2[0], 7000) as live:
        live.sendall(b"echo\n")
        lists.write("ads", second)
        fetched(gw, "ads", 2)
        decided(lab, at.TARGET2, [at.TARGET[0]])
        live.sendall(b"still here")
        check_equal(client.receive(live, 10), b"still here", "a flow that began before the refresh")
    within(t.slow(10), lambda: "/ads 304" in lists.asked(), "a question that an unchanged list answers with 304")
    mark = gw.process.mark()
    lists.process.stop()
    gw.process.wait_line("rule-providers.ads: .*the list stays as it was", t.slow(20), mark)
    decided(lab, [at.TARGET2[0]], [])
    check_equal(copy_of(gw, "ads"), second)
    check_equal(os.listdir(gw.copies), ["ads"])
    gw.terminate()
    again = start(lab, {"ads": provider(lists, "ads", interval="24h")}, name="again", route=False)
    for v6 in (False, True):
        lab.gw.ip("route add default dev tun0 metric 10 table %d" % at.TABLE, v6=v6)
    decided(lab, [at.TARGET2[0]], [at.TARGET[0]])
    again.check_alive()


BAD = {
    "garbage": (HTML, "what came is no list"),
    "empty": ("\n# nothing\n", "what came is no list"),
    "huge": ("!huge\n", "sends more than 65536 bytes, the limit"),
    "cut": ("!cut\n10.0.0.0/8\n", "ended in the middle of its answer"),
    "status": ("!status 500\n" + HTML, "answers with status 500"),
    "missing": (None, "answers with status 404"),
    "circle": ("!status 302 /circle\n", "redirects too often"),
    "nowhere": ("!status 302\n", "redirects without saying where to"),
    "scheme": ("!status 301 https://%s/\n" % at.PROXY[0], "redirects from one of http and https to the other"),
}


@test("whatever a server answers, the list of before stays, and it is one line", rows=["C6"], limit=90)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    lists = servers.Lists(lab)
    for name in BAD:
        lists.write(name, "10.99.0.0/16\n%s/32\n" % at.TARGET[0])
    gw = start(lab, {x: provider(lists, x, **{"size-limit": "64KiB"}) for x in BAD})
    for name in BAD:
        fetched(gw, name, 2)
    mark = gw.process.mark()
    for name, (text, _) in BAD.items():
        if text is None:
            os.unlink(os.path.join(lists.folder, name))
        else:
            lists.write(name, text)
    wrong = []
    for name, (_, says) in BAD.items():
        line = gw.process.wait_line("rule-providers.%s: .*the list stays as it was" % name, t.slow(20), mark)
        if says not in str(line):
            wrong.append("%s: %s" % (name, line))
        if copy_of(gw, name) != "10.99.0.0/16\n%s/32\n" % at.TARGET[0]:
            wrong.append("%s: its copy has changed" % name)
    check_table(wrong)
    decided(lab, [at.TARGET[0]], [at.TARGET2[0]])
    lists.write("huge", "!chunked\n%s/32\n" % at.TARGET2[0])         # and it recovers by itself
    fetched(gw, "huge", 1, mark)
    lists.write("moved", "%s/32\n192.0.2.0/24\n" % at.TARGET2[0])
    lists.write("circle", "!status 307 /moved\n")
    fetched(gw, "circle", 2, mark)
    decided(lab, [at.TARGET2[0]], [])
    check(len(gw.process.lines) - mark < 40 * len(BAD), "lines: %d" % (len(gw.process.lines) - mark))


@test("lists come over HTTPS and through a chosen way out; who is not trusted is not believed", rows=[], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    pki = Pki(t)
    lists = servers.Lists(lab, pem=pki.server())
    lists.write("ads", "%s/32\n" % at.TARGET[0])
    gw = start(lab, {"sealed": provider(lists, "ads", ca=pki.ca), "hop": provider(lists, "ads", ca=pki.ca, proxy="up"),
                     "strange": provider(lists, "ads"), "dead": provider(lists, "ads", ca=pki.ca, proxy="dead")},
               proxies=[servers.microsocks(lab), {"name": "dead", "type": "socks5", "server": at.PROXY[0], "port": 9}])
    fetched(gw, "sealed", 1)
    fetched(gw, "hop", 1)
    gw.process.wait_line("rule-providers.strange: .*certificate.*the list is empty", t.slow(10))
    gw.process.wait_line("rule-providers.dead: dead .*the list is empty", t.slow(10))
    decided(lab, [at.TARGET[0]], [at.TARGET2[0]])


@test("a fetch that is under way neither delays the end nor survives it", rows=[], limit=60)
def _(t):
    lab = t.lab()
    lists = servers.Lists(lab)
    lists.write("huge", "!huge\n")
    gw = start(lab, {"huge": provider(lists, "huge", **{"size-limit": "256MiB"})})
    within(t.slow(10), lambda: "/huge 200" in lists.asked(), "the question")
    gw.terminate()
