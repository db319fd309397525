"""What the gateway gives up, its helper process, its service manager and its watchdog (faults.md sections 11 and 12).

That everything works inside the sandbox is what all other tests show: it is on by default, and a refused call fails them (X9)."""
import ctypes
import os
import re
import signal
import socket
import time

from harness import Skip, check, check_equal, client, servers, test, within
from harness import lab as at

REJECT = dict(rules=["MATCH,REJECT"])


def field(pid, name):
    with open("/proc/%d/status" % pid) as f:
        return [line.split(None, 1)[1].strip() for line in f if line.startswith(name + ":")][0]


def helper_of(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        children = [int(x) for x in f.read().split()]
    return [c for c in children if field(c, "Name").startswith("culvert-helper")]


@test("with routes and a mark it keeps one capability, its helper another, both a filter", rows=["X8", "X9"])
def _(t):
    lab = t.lab()
    gw = lab.gateway(tun={"auto-route": True}, route=False, **REJECT)
    check(int(field(gw.pid, "CapEff"), 16) in (1 << 13, 1 << 12), "capabilities " + field(gw.pid, "CapEff"))
    check_equal(field(gw.pid, "CapBnd").strip("0"), "", "bounding set")
    check_equal(field(gw.pid, "NoNewPrivs"), "1", "no-new-privs")
    check_equal(field(gw.pid, "Seccomp"), "2", "seccomp mode")
    helpers = helper_of(gw.pid)
    check_equal(len(helpers), 1, "helpers")
    check_equal(int(field(helpers[0], "CapEff"), 16), 1 << 12, "capabilities of the helper")
    check_equal(field(helpers[0], "Seccomp"), "2", "seccomp mode of the helper")
    for task in os.listdir("/proc/%d/task" % gw.pid):
        check_equal(field(int(task), "CapEff"), field(gw.pid, "CapEff"), "capabilities of thread " + task)


@test("without a mark the data path has no capability at all", rows=["X9"])
def _(t):
    lab = t.lab()
    gw = lab.gateway(tun={"routing-mark": "auto"}, **REJECT)
    check_equal(field(gw.pid, "CapEff").strip("0"), "", "capabilities")


@test("runtime.sandbox: false keeps what it had, and no helper", rows=["X10"])
def _(t):
    lab = t.lab()
    gw = lab.gateway(runtime={"workers": 1, "sandbox": "false"}, **REJECT)
    check_equal(field(gw.pid, "Seccomp"), "0", "seccomp mode")
    check_equal(helper_of(gw.pid), [], "helpers")


@test("it becomes runtime.user, serves, and says that a reload could not read its file", rows=["X9"])
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], runtime={"workers": 2, "user": "nobody"})
    check(field(gw.pid, "Uid").split()[0] != "0", "still root")
    check(field(helper_of(gw.pid)[0], "Uid").split()[0] != "0", "the helper is still root")
    gw.says("cannot be read by this user any more")
    client.download(lab.cli, at.TARGET[0], 100000)
    os.chmod(gw.config_path, 0o644)
    os.chmod(os.path.dirname(gw.config_path), 0o755)
    gw.process.signal(signal.SIGHUP)
    gw.says("^.*reloaded: ", 5)
    client.download(lab.cli, at.TARGET[0], 100000)


@test("a user that does not exist ends the start with status 2", rows=["X10"])
def _(t):
    lab = t.lab()
    gw = lab.gateway(runtime={"workers": 1, "user": "no-such-user"}, ready=False, **REJECT)
    gw.stopped = True
    check_equal(gw.process.wait(t.slow(5)), 2, "exit status")
    check("useradd" in gw.log, "no advice: " + gw.log)


@test("the helper's death is one line and a clean end; what is left is removed by the next start", rows=["X8"], limit=60)
def _(t):
    lab = t.lab()
    gw = lab.gateway(tun={"auto-route": True}, route=False, **REJECT)
    os.kill(helper_of(gw.pid)[0], signal.SIGKILL)
    gw.stopped = True
    check_equal(gw.process.wait(t.slow(5)), 1, "exit status")
    check_equal(len([x for x in gw.process.lines if "helper process" in x and "ended" in x]), 1, "lines about it")
    gw.check_log()
    again = lab.gateway(tun={"auto-route": True}, route=False, name="again", **REJECT)
    check_equal(again.terminate(), 0, "exit status")


@test("when the gateway is killed its helper ends", rows=["X2", "X8"])
def _(t):
    lab = t.lab()
    gw = lab.gateway(**REJECT)
    helper = helper_of(gw.pid)[0]
    gw.process.signal(signal.SIGKILL)
    gw.stopped = True
    gw.process.wait(5)
    within(t.slow(5), lambda: not os.path.exists("/proc/%d" % helper) or field(helper, "State")[0] == "Z", "the helper ended")


# ---- the service manager ----

@test("the service manager hears ready, watchdog, reloading, stopping", rows=["X11"],
      cases={"a path": False, "an abstract name": True})
def _(t, abstract):
    lab = t.lab()
    path = t.path("notify")
    name = "@culvert-test-%d" % os.getpid() if abstract else path
    receiver = lab.gw.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    t.own(receiver, "close")
    receiver.bind("\0" + name[1:] if abstract else path)
    receiver.settimeout(t.slow(6))
    gw = lab.gateway(env={"NOTIFY_SOCKET": name}, **REJECT)
    check_equal(receiver.recv(200), b"READY=1")
    check_equal(receiver.recv(200), b"WATCHDOG=1")
    gw.process.signal(signal.SIGHUP)
    within(t.slow(5), lambda: re.match(rb"RELOADING=1\nMONOTONIC_USEC=\d+$", receiver.recv(200)), "RELOADING")
    within(t.slow(5), lambda: receiver.recv(200) == b"READY=1", "READY=1 after a reload")
    gw.terminate()
    within(t.slow(5), lambda: receiver.recv(200) == b"STOPPING=1", "STOPPING=1")


@test("a worker that is stuck for ten seconds ends the process with its name in the log", rows=["R7"], limit=60)
def _(t):
    lab = t.lab()
    gw = lab.gateway(**REJECT)
    tasks = [int(x) for x in os.listdir("/proc/%d/task" % gw.pid)]
    worker = [x for x in tasks if field(x, "Name") == "worker-1"][0]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seize, interrupt, detach, wait_all = 0x4206, 0x4207, 17, 0x40000000
    if libc.ptrace(seize, worker, None, None) != 0:
        raise Skip("ptrace is not allowed here")
    check_equal(libc.ptrace(interrupt, worker, None, None), 0, "stopping one thread")
    began = time.monotonic()
    gw.says("worker-1 has been stuck for 10 s", 25)
    t.note("found after %.1f s" % (time.monotonic() - began))
    gw.stopped = True
    libc.ptrace(detach, worker, None, None)         # now it takes the signal that was sent to it
    try:
        os.waitpid(worker, wait_all | os.WNOHANG)
    except ChildProcessError:
        pass
    status = gw.process.wait(t.slow(10))
    check(status != 0, "exit status %d" % status)
    if not t.sanitized:
        check_equal(status, -signal.SIGABRT, "exit status")
        check("crashed: signal 6 in thread worker-1" in gw.log, "no banner of that thread: " + gw.log[-2000:])


@test("a crash is a banner and the signal's own end", rows=["X5"])
def _(t):
    if t.sanitized:
        raise Skip("the sanitizer has banners of its own")
    lab = t.lab()
    gw = lab.gateway(**REJECT)
    gw.process.signal(signal.SIGSEGV)
    gw.stopped = True
    check_equal(gw.process.wait(5), -signal.SIGSEGV, "exit status")
    check(re.search(r"culvert \S+ crashed: signal 11 in thread ", gw.log), "no banner: " + gw.log)


# ---- logs ----

@test("a full disk under the log costs lines and nothing else", rows=["R8"])
def _(t):
    lab = t.lab()
    lab.services()
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], log={"level": "debug", "output": "/dev/full"})
    for _ in range(3):
        client.download(lab.cli, at.TARGET[0], 100000)
    check(gw.status()["log-lines-lost"] > 0, "no line was lost")


@test("a log file that is removed goes on without harm", rows=["R8"])
def _(t):
    lab = t.lab()
    lab.services()
    path = t.path("own.log")
    gw = lab.gateway(proxies=[servers.culvert_serve(lab)], log={"level": "debug", "output": path})
    client.download(lab.cli, at.TARGET[0], 100000)
    os.unlink(path)
    client.download(lab.cli, at.TARGET[0], 100000)
    gw.check_alive()


@test("state of another version is left aside, and the start goes on", rows=["X6"])
def _(t):
    lab = t.lab()
    state = t.path("state")
    os.mkdir(state)
    for name in ("fake-ip", "select", "picks"):
        with open(os.path.join(state, name), "wb") as f:
            f.write(b"culvert of another time, version 4294967295\n" * 20)
    gw = lab.gateway(runtime={"workers": 1, "state-dir": state}, dns={"mode": "fake-ip", "fake-ip-range": "198.18.0.0/15"},
                     tun={"address": ["172.19.0.1/30"]}, **REJECT)
    gw.says("fake-ip is broken or of another version")
    gw.check_alive()
