"""Rules at work in namespaces: addresses, users, programs and lists choose the exit; refusals look refused."""
import shutil
import subprocess

from harness import check, check_equal, client, servers, test
from harness import lab as at
from harness.core import check_table

CONNECT = "exec 3<>/dev/tcp/%s/7000"
ECHO = "exec 3<>/dev/udp/%s/7 && echo x >&3 && read -t 15 -N 1 -u 3 answer"


def shell(namespace, program, script, *prefix):
    """A script of bash in @namespace: (exit status, what it said)."""
    r = subprocess.run(["ip", "netns", "exec", namespace.name, *prefix, program, "-c", script], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    return r.returncode, r.stdout




@test("UID decides in the namespace of the gateway, and matches no flow from elsewhere", limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    gw = lab.gateway(rules=["UID,4000-4999,REJECT", "MATCH,DIRECT"], tun={"auto-route": True}, route=False)
    client.download(lab.gw, at.TARGET[0], 100000)
    client.download(lab.cli, at.TARGET[0], 100000)
    seen = {}
    for uid in (0, 4000, 4999, 5000):
        status, err = shell(lab.gw, "/bin/bash", CONNECT % at.TARGET[0], "setpriv", "--reuid", str(uid), "--clear-groups")
        seen[uid] = "refused" if "refused" in err else "open" if status == 0 else err[-300:]
    check_equal(seen, {0: "open", 4000: "refused", 4999: "refused", 5000: "open"})
    check(gw.counter("flow.rejected") >= 2, "rejected: %d" % gw.counter("flow.rejected"))


@test("PROCESS-NAME and PROCESS-PATH decide by the program, UDP too", limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    copy = t.path("blocked")
    shutil.copy("/bin/bash", copy)
    gw = lab.gateway(rules=["PROCESS-NAME,blocked,REJECT", "PROCESS-PATH,/nonexistent/x,REJECT", "MATCH,DIRECT"],
                     tun={"auto-route": True}, route=False)
    wrong = []
    for script, program, wanted in ((CONNECT, copy, "refused"), (CONNECT, "/bin/bash", ""), (ECHO, copy, "refused"),
                                    (ECHO, "/bin/bash", "")):
        status, err = shell(lab.gw, program, script % at.TARGET[0])
        if (wanted and wanted not in err) or (not wanted and status != 0):
            wrong.append("%s by %s: status %d, %s" % (script, program, status, err[-300:]))
    check_table(wrong)
    gw.check_alive()


@test("lists and logic choose between two proxies by address and port", limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    one = servers.microsocks(lab)
    listed = t.write("listed.txt", "# the second target\n%s/32\nnot a range\n" % at.TARGET[1]
                     if ":" not in at.TARGET[1] else "# v6\n%s/128\nnot a range\n" % at.TARGET[1])
    gw = lab.gateway(proxies=[one], rules=["RULE-SET,listed,REJECT", "AND,((NETWORK,tcp),(DST-PORT,7)),REJECT", "MATCH,up"],
                     **{"rule-providers": {"listed": {"type": "file", "behavior": "ipcidr", "path": listed}}})
    client.download(lab.cli, at.TARGET[0], 100000)
    check_equal(client.outcome(lab.cli, at.TARGET[1], 9, 10)[0], "ECONNREFUSED", "listed")
    check_equal(client.outcome(lab.cli, at.TARGET[0], 7, 10)[0], "ECONNREFUSED", "port 7")
    check("line 3 of its list is skipped" in gw.log, "the bad line is not named:\n" + gw.log[-2000:])


@test("a rule about addresses looks up a target that has only a fake one, unless it says no-resolve",
      cases={"resolved": ("", "ECONNREFUSED"), "no-resolve": (",no-resolve", "open")}, limit=60)
def _(t, option, wanted):
    lab = t.lab()
    lab.direct_route()
    servers.unbound(lab, more=["four.test. 60 IN A " + at.TARGET[0], "other.test. 60 IN A " + at.TARGET2[0]])
    services = lab.services()
    settings = {"mode": "fake-ip", "nameserver": [at.TARGET[0]], "hijack": ["any:53"]}
    gw = lab.gateway(rules=["IP-CIDR,%s/32,REJECT%s" % (at.TARGET[0], option), "MATCH,DIRECT"], dns=settings,
                     runtime={"workers": 2, "state-dir": t.path("state")})
    fake = {name: client.dig(lab.cli, at.TARGET[0], name)[0] for name in ("four.test", "other.test")}
    check(all(x.startswith("198.19.") for x in fake.values()), fake)
    for _ in range(2):                        # the second time the address is known already
        check_equal(client.outcome(lab.cli, fake["four.test"], 7000, 10)[0], wanted, "tcp")
    client.download(lab.cli, fake["other.test"], 10000)
    if wanted == "open":
        check_equal(client.ask(lab.cli, fake["four.test"], services.ECHO, b"hello"), b"hello")
    check_equal(client.ask(lab.cli, fake["other.test"], services.ECHO, b"other"), b"other")
    gw.check_alive()


GET = r"exec 3<>/dev/tcp/%s/8080 && printf 'GET /peer HTTP/1.1\r\nHost: %s\r\n\r\n' >&3 && read -t 15 -u 3 line && echo \"$line\""
TWO_TARGETS = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(15)
s.sendto(b"one", ("%s", 7))
print("first", s.recvfrom(100)[0].decode())
s.connect(("%s", 7001))
s.send(b"two")
try:
    print("second", "answered" if s.recv(100) else "empty")
except ConnectionRefusedError:
    print("second refused")
"""


def as_user(lab, uid, *argv):
    r = lab.gw.result(["setpriv", "--reuid", str(uid), "--clear-groups", *argv], timeout=60)
    return (r.stdout + r.stderr).strip()


@test("UID rules below a rule about names: asked after the sniff, and for every target of a UDP socket", limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    gw = lab.gateway(rules=["DOMAIN-SUFFIX,blocked.test,REJECT", "DST-PORT,7,DIRECT", "UID,4000,REJECT", "MATCH,DIRECT"],
                     tun={"auto-route": True}, route=False, stack={"tcp": {"accept": "auto"}}, sniffer={"http": [8080]})
    wrong = []
    for uid, name, wanted in ((4000, "other.test", False), (5000, "other.test", True), (5000, "a.blocked.test", False)):
        said = as_user(lab, uid, "/bin/bash", "-c", GET % (at.TARGET[0], name))
        if ("200" in said) != wanted:
            wrong.append("%d to %s: %s" % (uid, name, said))
    for uid, wanted in ((4000, "refused"), (5000, "answered")):
        said = as_user(lab, uid, "/usr/bin/python3", "-c", TWO_TARGETS % (at.TARGET[0], at.TARGET[0]))
        if said.splitlines() != ["first one", "second " + wanted]:
            wrong.append("UDP of %d: %s" % (uid, said))
    check_table(wrong)
    check_equal(gw.counter("flow.sniffed"), 3)


@test("a rule about names below a UID rule: the name is still waited for when the owner is known", limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    gw = lab.gateway(rules=["UID,4000,REJECT", "DOMAIN-SUFFIX,blocked.test,REJECT", "MATCH,DIRECT"],
                     tun={"auto-route": True}, route=False, stack={"tcp": {"accept": "auto"}}, sniffer={"http": [8080]})
    wrong = []
    for uid, name, wanted in ((4000, "other.test", False), (5000, "other.test", True), (5000, "a.blocked.test", False)):
        said = as_user(lab, uid, "/bin/bash", "-c", GET % (at.TARGET[0], name))
        if ("200" in said) != wanted:
            wrong.append("%d to %s: %s" % (uid, name, said))
    check_table(wrong)
    check_equal(gw.counter("flow.sniffed"), 2)


@test("a ping is taken by IN-NAME, and neither by UID nor by a name that it does not say", limit=60)
def _(t):
    lab = t.lab()
    lab.direct_route()
    lab.gateway(rules=["UID,0,REJECT-DROP", "DOMAIN-KEYWORD,e,REJECT-DROP", "AND,((NETWORK,icmp),(IN-NAME,tun1)),REJECT-DROP",
                       "AND,((NETWORK,icmp),(IN-NAME,tun0)),REJECT", "MATCH,DIRECT"])
    said = lab.cli.result(["ping", "-n", "-c", "1", "-W", "5", at.TARGET[0]], timeout=20).stdout
    check("Packet filtered" in said, said)
