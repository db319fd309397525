"""culvert exec: one command of an ordinary user, all of its traffic through the proxy (faults.md section 14)."""
import os
import platform
import pty
import re
import select
import shutil
import signal
import subprocess
import time

from harness import Skip, check, check_equal, gateway, servers, test, within
from harness import lab as at
from harness.core import check_table
from harness.servers import Services
from harness.user import UID, User

HERE = os.path.dirname(os.path.abspath(__file__))


class Desk:
    """A user at a machine whose only way out that the tests allow is the proxy."""

    def __init__(self, t, server=servers.dante, dns=True, **kw):
        self.t, self.lab = t, t.lab()
        self.lab.services()
        if dns:
            servers.unbound(self.lab)
        self.lab.direct_route()             # the trap: a leak would arrive
        self.server = server(self.lab)
        self.user = User(t, self.lab, at.TARGET[0] if dns else None, **kw)

    def exec(self, *command, **kw):
        return self.user.exec(self.server.url, *command, **kw)

    def ok(self, *command, **kw):
        """Run, expect 0, return the output."""
        r = self.exec(*command, **kw)
        check_equal(r.returncode, 0, "exit status of %s\n%s" % (" ".join(command), r.stderr.decode()[-3000:]))
        return r.stdout


def curl_argv(address, length):
    return ["curl", "-sS", "-g", "--max-time", "20", Services.url(address, "bytes/%d" % length)]


@test("an ordinary user's curl, dig, ping and a static binary go through; nothing leaks, nothing changes",
      rows=["Q9", "G5", "Q8"], limit=60, cases={"dante": servers.dante, "culvert serve": servers.culvert_serve}, quick=True)
def _(t, server):
    desk = Desk(t, server)
    before = gateway.network_state(desk.lab.gw)
    only = desk.lab.only("host %s" % desk.server.address)
    for target in at.TARGET:
        check_equal(len(desk.ok(*curl_argv(target, 1 << 20))), 1 << 20, "curl from " + target)
    check_equal(desk.ok("dig", "+short", "example.test").decode().split(), [at.TARGET[0]], "dig by the resolv.conf")
    check_equal(desk.ok("dig", "+short", "+tcp", "example.test", "AAAA").decode().split(), [at.TARGET[1]], "dig over TCP")
    check_equal(desk.ok("dig", "+short", "@" + at.TARGET[1], "example.test").decode().split(), [at.TARGET[0]], "dig @address")
    for target in at.TARGET:
        out = desk.ok("ping", "-n", "-c", "2", "-i", "0.2", "-W", "3", target).decode()
        check("2 received" in out, out)
    busybox = servers.need("busybox")
    check_equal(len(desk.ok(busybox, "wget", "-q", "-O", "-", Services.url(at.TARGET[0], "bytes/5000"))), 5000, "a static binary")
    check_equal(len(desk.ok("curl", "-sS", "http://example.test:8080/bytes/777")), 777, "a name")
    only.check_nothing()
    gateway.check_network(desk.lab.gw, before)
    within(3, lambda: not desk.user.processes(), "no process left")


@test("exit status: the command's own, 127, 126 and 128+n", rows=["Q3"], quick=True)
def _(t):
    desk = Desk(t)
    not_executable = t.write("plain", "text", 0o644)
    wrong = []
    for wanted, command in ((0, ["true"]), (1, ["false"]), (42, ["sh", "-c", "exit 42"]), (255, ["sh", "-c", "exit 255"]),
                            (127, ["no-such-command-anywhere"]), (127, ["/no/such/file"]), (126, [not_executable]), (126, ["/tmp"]),
                            (143, ["sh", "-c", "kill -TERM $$"]), (137, ["sh", "-c", "kill -KILL $$"])):
        r = desk.exec(*command)
        if r.returncode != wanted:
            wrong.append("%s: %d, not %d (%s)" % (" ".join(command), r.returncode, wanted, r.stderr.decode()[-200:]))
    check_table(wrong)
    within(3, lambda: not desk.user.processes(), "no process left")


@test("user namespaces are forbidden: exit 1 and the switch that is off", rows=["Q1"],
      cases={"max_user_namespaces is 0": "count", "a container's seccomp": "filter"})
def _(t, how):
    if how == "filter" and platform.machine() != "x86_64":
        raise Skip("the filter is written for x86-64")
    desk = Desk(t, prefix="/usr/bin/python3 %s %s" % (os.path.join(HERE, "harness", "forbid.py"), how))
    r = desk.exec("touch", os.path.join(desk.user.home, "ran"))
    text = r.stderr.decode()
    check_equal(r.returncode, 1, text)
    check("namespace" in text and len(text.strip().splitlines()) <= 3, text)
    check(re.search("max_user_namespaces|userns|sysctl|AppArmor|seccomp|container", text), "it names no switch: " + text)
    check(not os.path.exists(os.path.join(desk.user.home, "ran")), "the command ran")


@test("/dev/net/tun not open to users: exit 1 with the fix, the command never runs", rows=["Q2", "V9"])
def _(t):
    desk = Desk(t, tun_mode="0600")
    r = desk.exec("touch", os.path.join(desk.user.home, "ran"), timeout=5)
    check_equal(r.returncode, 1, r.stderr.decode())
    check("/dev/net/tun" in r.stderr.decode(), r.stderr.decode())
    check(not os.path.exists(os.path.join(desk.user.home, "ran")), "the command ran")
    check(not desk.user.processes(), "processes are left")


@test("the gateway is killed: the command ends with it, nothing leaks, nothing stays", rows=["Q4", "G5"])
def _(t):
    desk = Desk(t)
    p = desk.user.start(desk.server.url, "sh", "-c", "echo started; exec sleep 300")
    p.wait_line("^started$", t.slow(10))
    only = desk.lab.only("host %s" % desk.server.address)
    os.kill(p.pid, signal.SIGKILL)
    within(t.slow(5), lambda: not desk.user.processes(), "the command ended with its gateway")
    only.check_nothing()


@test("every process of ours is killed in turn: all end", rows=["Q4"], limit=60)
def _(t):
    desk = Desk(t)
    count = None
    turn = 0
    while count is None or turn < count:
        p = desk.user.start(desk.server.url, "sh", "-c", "echo started; exec sleep 300", name="exec%d" % turn)
        p.wait_line("^started$", t.slow(10))
        pids = sorted(desk.user.processes())
        count = len(pids)
        os.kill(pids[turn], signal.SIGKILL)
        within(t.slow(5), lambda: not desk.user.processes(), "all ended after process %d of %d" % (turn + 1, count))
        p.wait(2)
        turn += 1
    t.note("%d processes" % count)


@test("a command that leaves children: exec ends with the foreground one", rows=["Q5"], limit=60,
      cases={"a daemon": "sleep 300 >/dev/null 2>&1 & exit 7",
             "1,000 children": "i=0; while [ $i -lt 1000 ]; do true & i=$((i+1)); done; wait; exit 7"})
def _(t, script):
    desk = Desk(t)
    check_equal(desk.exec("sh", "-c", script, timeout=40).returncode, 7)


@test("pipes, a closed stdin and stdout, arguments and environment pass through unchanged", rows=["Q6"])
def _(t):
    desk = Desk(t)
    r = subprocess.run(desk.user.argv([desk.user.program, "exec", "--proxy", desk.server.url, "--", "cat"]), input=b"\0\1data\xff" * 50000,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=t.slow(20), env=desk.user.environment())
    check_equal((r.returncode, len(r.stdout)), (0, 7 * 50000), r.stderr.decode())
    out = desk.ok("sh", "-c", 'printf "%s|" "$@"; echo "$HOME"', "x", "a b", "", "--proxy", "*").decode()
    check_equal(out, "a b||--proxy|*|%s\n" % desk.user.home)
    r = subprocess.run(desk.user.argv(["sh", "-c", '"$0" exec --proxy "$1" -- sh -c "cat; echo still >&2" <&-', desk.user.program,
                                       desk.server.url]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=t.slow(10),
                       env=desk.user.environment())
    check("still" in r.stderr.decode(), "with stdin closed: %s" % r.stderr.decode())
    r = subprocess.run(desk.user.argv(["sh", "-c", '"$0" exec --proxy "$1" -- sh -c "exit 3" >&- 2>&-', desk.user.program,
                                       desk.server.url]), timeout=t.slow(10), env=desk.user.environment())
    check_equal(r.returncode, 3, "with stdout and stderr closed")


class Terminal:
    """A command on a pseudo terminal that is its controlling one."""

    def __init__(self, argv, environment):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)     # whoever runs the tests in the background ignores it
            os.execvpe(argv[0], argv, environment)
        self.seen = b""

    def wait_for(self, text, seconds):
        end = time.monotonic() + seconds
        while text not in self.seen:
            if not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                return False
            try:
                self.seen += os.read(self.fd, 4096)
            except OSError:
                return text in self.seen
        return True

    def status(self, seconds):
        """Exit status, or minus the signal."""
        return within(seconds, lambda: [os.waitstatus_to_exitcode(s) for p, s in [os.waitpid(self.pid, os.WNOHANG)] if p],
                      "the end of the command on the terminal")[0]


@test("on a terminal: Ctrl-C, Ctrl-Z and its size reach the command", rows=["Q6"], limit=40)
def _(t):
    desk = Desk(t)
    base = desk.user.argv([desk.user.program, "exec", "--proxy", desk.server.url, "--"])
    term = Terminal(base + ["sh", "-c", "stty size; trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.1; done"],
                    desk.user.environment())
    check(term.wait_for(b"ready", t.slow(10)), "not started: %r" % term.seen)
    check(re.search(rb"\d+ \d+", term.seen), "no size: %r" % term.seen)
    os.write(term.fd, b"\x03")
    check(term.wait_for(b"interrupted", 5), "the command did not get SIGINT: %r" % term.seen)
    check_equal(term.status(t.slow(5)), 5, "exit status after a handled Ctrl-C")

    term = Terminal(base + ["sh", "-c", "echo ready; exec sleep 300"], desk.user.environment())
    check(term.wait_for(b"ready", t.slow(10)), "not started: %r" % term.seen)
    os.write(term.fd, b"\x03")
    check(term.status(t.slow(5)) in (130, -2), "exit status after Ctrl-C")

    shell = Terminal(desk.user.argv(["bash", "--norc", "-i"]), desk.user.environment())
    os.write(shell.fd, (" ".join([desk.user.program, "exec", "--proxy", desk.server.url, "--",
                                  "sh -c 'echo re''ady; exec sleep 300'"]) + "\n").encode())
    check(shell.wait_for(b"ready\r\n", t.slow(10)), "not started: %r" % shell.seen)
    os.write(shell.fd, b"\x1a")
    check(shell.wait_for(b"Stopped", t.slow(5)), "Ctrl-Z did not stop it: %r" % shell.seen)
    os.write(shell.fd, b"kill -INT %1; fg; echo status=$?\n")
    check(shell.wait_for(b"status=1", t.slow(5)), "it did not go on: %r" % shell.seen)
    os.write(shell.fd, b"exit\n")
    shell.status(t.slow(5))


RESOLV = {
    "a symlink": lambda u: (u.etc("real-resolv.conf", "nameserver %s\n" % at.TARGET[0]), u.etc("resolv.conf", link="real-resolv.conf")),
    "comments and many servers": lambda u: u.etc("resolv.conf", "# a\nsearch test\nnameserver 127.0.0.1\nnameserver %s\n" % at.TARGET[0]),
    "nsswitch names resolve and mdns": lambda u: u.etc("nsswitch.conf", "passwd: files\nhosts: files mdns4_minimal [NOTFOUND=return] "
                                                                      "resolve [!UNAVAIL=return] dns\n"),
}


@test("names are looked up through the tunnel, whatever the host's files say", rows=["Q7", "G5"], cases=RESOLV)
def _(t, prepare):
    desk = Desk(t)
    prepare(desk.user)
    only = desk.lab.only("host %s" % desk.server.address)
    check_equal(desk.ok("getent", "ahostsv4", "example.test").decode().split()[0], at.TARGET[0])
    only.check_nothing()


NO_SERVER = {"missing": lambda u: u.etc("resolv.conf"), "dangling": lambda u: u.etc("resolv.conf", link="/run/none/resolv.conf"),
             "only loopback": lambda u: u.etc("resolv.conf", "nameserver 127.0.0.53\n")}


@test("no name server to be found: exit 1 naming --dns, or --dns used", rows=["Q7"], cases=NO_SERVER)
def _(t, prepare):
    desk = Desk(t)
    prepare(desk.user)
    r = desk.exec("touch", os.path.join(desk.user.home, "ran"))
    check_equal(r.returncode, 1, r.stderr.decode())
    check("--dns" in r.stderr.decode(), r.stderr.decode())
    check(not os.path.exists(os.path.join(desk.user.home, "ran")), "the command ran")
    out = desk.ok("getent", "ahostsv4", "example.test", options=["--dns", at.TARGET[0]]).decode()
    check_equal(out.split()[0], at.TARGET[0])


@test("the command keeps its user, has no capabilities and no way out", rows=["Q8", "G5"])
def _(t):
    desk = Desk(t)
    check_equal(desk.ok("id", "-u").decode().strip(), str(UID), "uid")
    caps = dict(x.split(":\t") for x in desk.ok("cat", "/proc/self/status").decode().splitlines() if x.startswith(("Cap", "NoNew")))
    check_equal({k: int(caps[k], 16) for k in ("CapEff", "CapPrm", "CapInh", "CapAmb")}, dict.fromkeys(
        ("CapEff", "CapPrm", "CapInh", "CapAmb"), 0), "capabilities")
    only = desk.lab.only("host %s" % desk.server.address)
    for script in ("ip route del default", "ip link set tun0 down", "ip link add x type dummy", "nsenter -t 1 -n true",
                   "ip -6 route flush table all", "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)'",
                   "python3 -c 'import socket; socket.socket(2, 3, 1)'"):
        r = desk.exec("sh", "-c", script + " 2>&1")
        check(r.returncode != 0, "it could: " + script)
    abstract = desk.lab.gw.socket(1, 1)
    abstract.bind("\0culvert-e2e-" + t.tag)
    abstract.listen()
    t.own(abstract, "close")
    r = desk.exec("/usr/bin/python3", "-c", "import socket; socket.socket(1, 1).connect('\\0culvert-e2e-%s')" % t.tag)
    check(r.returncode != 0, "the host's abstract socket was reached")
    r = desk.exec("curl", "-sS", "--max-time", "2", "--interface", "eth0", Services.url(at.TARGET[0], "bytes/1"))
    check(r.returncode != 0, "a way out by another interface")
    only.check_nothing()


@test("the secret of the proxy's URL is in nobody's output, and the command's environment is clean of it", rows=["G7"])
def _(t):
    desk = Desk(t, lambda lab: servers.microsocks(lab, username="alice", password=gateway.SECRET))
    r = desk.exec("env")
    check(gateway.SECRET not in (r.stdout + r.stderr).decode(), "the password is in the output")
    check_equal(len(desk.ok(*curl_argv(at.TARGET[0], 100))), 100)


@test("two at once are independent", rows=["Q10"])
def _(t):
    desk = Desk(t)
    p = desk.user.start(desk.server.url, "sh", "-c", "echo started; exec sleep 300")
    p.wait_line("^started$", t.slow(10))
    check_equal(len(desk.ok(*curl_argv(at.TARGET[0], 1000))), 1000)
    check(p.alive(), "the first one ended")
    p.signal(signal.SIGTERM)
    check(p.wait(t.slow(5)) in (143, -15, 0, 1), "status %s" % p.process.returncode)
    within(3, lambda: not desk.user.processes(), "no process left")


@test("one inside the other works", rows=["Q10", "E2"])
def _(t):
    desk = Desk(t, servers.microsocks)      # dante refuses to connect to itself
    check_equal(len(desk.ok(desk.user.program, "exec", "--proxy", desk.server.url, "--", *curl_argv(at.TARGET[0], 100000), timeout=40)),
                100000)


@test("the upstream is gone: the command sees it, and nothing leaks", rows=["S1", "G5"])
def _(t):
    desk = Desk(t)
    only = desk.lab.only("host %s" % desk.server.address)
    desk.server.process.stop()
    r = desk.exec(*curl_argv(at.TARGET[0], 10))
    check_equal(r.returncode, 7, "curl's status: could not connect")
    only.check_nothing()


@test("as root it works the same")
def _(t):
    desk = Desk(t)
    r = desk.lab.gw.result([gateway.program(t), "exec", "--proxy", desk.server.url, "--dns", at.TARGET[0], "--", "curl", "-sS",
                            "-o", "/dev/null", "-w", "%{size_download}", Services.url(at.TARGET[0], "bytes/1000")], timeout=20)
    check_equal((r.returncode, r.stdout), (0, "1000"), r.stderr)


@test("the gateway of exec gives up what it has, its command and its guard keep theirs, and a signal goes on to the command",
      rows=["X9"], limit=60)
def _(t):
    desk = Desk(t)
    p = desk.user.start(desk.server.url, "sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
    p.wait_line("^up$", t.slow(10))
    with open("/proc/%d/status" % p.pid) as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    check_equal([status[x] for x in ("NoNewPrivs", "Seccomp")], ["1", "2"], "no-new-privs and seccomp of the gateway")
    with open("/proc/%d/task/%d/children" % (p.pid, p.pid)) as f:
        children = [int(x) for x in f.read().split()]
    for child in children:
        with open("/proc/%d/status" % child) as f:
            check("Seccomp:\t0\n" in f.read(), "process %d, which is not the gateway, has a filter" % child)
    p.signal(signal.SIGTERM)                        # goes on to the command
    check_equal(p.wait(t.slow(5)), 7, "exit status")
    check(gateway.REFUSED not in p.text, p.text)


@test("UID and PROCESS rules see the command's own programs, TCP and UDP", limit=60)
def _(t):
    desk = Desk(t)
    copy = desk.user.path("bin/blocked")
    shutil.copy("/bin/bash", copy)
    wrong = []
    for rule, program, wanted in (("PROCESS-NAME,blocked,REJECT", copy, "refused"), ("PROCESS-NAME,blocked,REJECT", "/bin/bash", ""),
                                  ("UID,%d,REJECT" % UID, "/bin/bash", "refused"), ("UID,%d,REJECT" % (UID + 1), "/bin/bash", "")):
        path = t.write("exec.yaml", "version: 1\nproxies: [{name: up, type: socks5, server: %s, port: %d, udp: true}]\n"
                       "rules: [\"%s\", \"MATCH,up\"]\n" % (desk.server.address, desk.server.port, rule), 0o644)
        for script in ("exec 3<>/dev/tcp/%s/7000", "exec 3<>/dev/udp/%s/7 && echo x >&3 && read -t 15 -N 1 -u 3 answer"):
            r = desk.user.run([desk.user.program, "exec", "-c", path, "--", program, "-c", script % at.TARGET[0]])
            err = r.stderr.decode()
            if (wanted and wanted not in err) or (not wanted and r.returncode != 0):
                wrong.append("%s, %s: %s: status %d, %s" % (rule, program, script, r.returncode, err[-300:]))
    check_table(wrong)
    within(3, lambda: not desk.user.processes(), "no process left")


@test("a list that leaves no memory for traffic is refused at start, with its name and its bytes", quick=True, limit=60)
def _(t):
    lab = t.lab()
    names = t.write("names.txt", "".join("host-number-%d.example.org\n" % i for i in range(400000)))
    config = t.write("gateway.yaml", "version: 1\nlimits: { memory: 16MiB }\nrule-providers:\n"
                     "  long: { type: file, behavior: domain, format: text, path: %s }\n"
                     "rules: [ \"RULE-SET,long,DIRECT\", \"MATCH,DIRECT\" ]\n" % names)
    r = lab.gw.result([gateway.program(t), "exec", "-c", config, "--", "true"], timeout=40)
    check_equal(r.returncode, 1, "exit status")
    check("the largest list is long with 1" in r.stdout + r.stderr, "the sentence: %r" % (r.stdout + r.stderr))
