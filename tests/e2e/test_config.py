"""The command line and files that are none (faults.md section 9; errors inside a file are unit tests)."""
import os
import re
import subprocess
import time

from harness import check, check_equal, gateway, test
from harness.core import check_table

GOOD = "proxies:\n  - {name: up, type: socks5, server: 192.0.2.10, port: 1080}\nrules:\n  - MATCH,up\n"


def culvert(t, *argv, timeout=10, **kw):
    """Run the program: (status, standard output, standard error)."""
    r = subprocess.run([gateway.program(t), *argv], stdout=kw.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE, text=True,
                       timeout=timeout, stdin=subprocess.DEVNULL, cwd=t.dir, env=dict(os.environ, **gateway.sanitizer_env()), **kw)
    check(not gateway.SANITIZER_NOISE.search(r.stderr), r.stderr)
    return r.returncode, r.stdout or "", r.stderr


@test("check: 0 for a good file, 2 with every error and its place for a bad one", rows=["C1", "C2", "C3"])
def _(t):
    check_equal(culvert(t, "check", t.write("good.yaml", GOOD))[0], 0)
    bad = GOOD + "tun:\n  adress: 10.0.0.1/24\n  mtu: yes\nproxies: []\nrules:\n  - MATCH,upp\n"
    status, out, err = culvert(t, "check", t.write("bad.yaml", bad))
    check_equal(status, 2)
    text = out + err
    for wanted in (r"bad\.yaml:6:\d+: .*adress.*address", r"bad\.yaml:7:\d+: .*mtu", r"bad\.yaml:8:\d+: .*proxies", r"bad\.yaml:9:"):
        check(re.search(wanted, text), "no line like %r in:\n%s" % (wanted, text))


@test("a configuration that is a folder, a FIFO, a device, unreadable, absent or a loop: exit 2, one sentence", rows=["C7"])
def _(t):
    made = {"folder": lambda p: os.mkdir(p), "fifo": os.mkfifo, "loop": lambda p: os.symlink(p, p),
            "absent": lambda p: None, "device": lambda p: os.symlink("/dev/zero", p),
            "dangling": lambda p: os.symlink("/nonexistent/x", p)}
    wrong = []
    for name, make in made.items():
        path = t.path(name + ".yaml")
        make(path)
        for command in (["check", path], ["run", "-c", path]):
            start = time.monotonic()
            try:
                status, out, err = culvert(t, *command, timeout=t.slow(5))
            except subprocess.TimeoutExpired:
                wrong.append("%s of a %s hangs" % (command[0], name))
                continue
            lines = (out + err).strip().splitlines()
            if status != 2 or len(lines) != 1 or path not in (out + err):
                wrong.append("%s of a %s: exit %d, %r" % (command[0], name, status, lines))
            if time.monotonic() - start > t.slow(2):
                wrong.append("%s of a %s took %.1f s" % (command[0], name, time.monotonic() - start))
    check_table(wrong)


@test("an unreadable configuration: exit 2, one sentence", rows=["C7"])
def _(t):
    path = t.write("secret.yaml", GOOD, 0o600)
    os.chmod(t.dir, 0o755)
    r = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", gateway.program(t), "check", path],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
    check_equal((r.returncode, len(r.stdout.splitlines())), (2, 1), r.stdout)


WRONG_USE = {
    "an unknown option": ["run", "--frobnicate"], "an unknown command": ["frobnicate"], "no command": [],
    "a missing value": ["run", "-c"], "a missing argument": ["check"], "two commands": ["run", "serve"],
    "an argument of 64 KiB": ["run", "--proxy", "socks5://" + "x" * 65536], "a URL that is none": ["run", "--proxy", "1080"],
    "exec without a command": ["exec", "--proxy", "socks5://127.0.0.1:1080", "--"],
    "a listen address that is none": ["serve", "--listen", "nowhere"], "a TUN name of 16 bytes": ["run", "--tun", "x" * 16],
}


@test("wrong usage: exit 2 and a usage line on stderr", rows=["C12"])
def _(t):
    wrong = []
    for what, argv in WRONG_USE.items():
        status, out, err = culvert(t, *argv)
        if status != 2 or not err.strip() or out:
            wrong.append("%s: exit %d, %d bytes of output, errors %r" % (what, status, len(out), err[:200]))
    check_table(wrong)


@test("--help and --version: exit 0, also when nobody reads", rows=["C12"])
def _(t):
    for option in ("--help", "--version"):
        status, out, err = culvert(t, option)
        check_equal((status, err), (0, ""), option)
        check("culvert" in out, out)
        r = subprocess.run(["sh", "-c", '"$0" %s >&-' % option, gateway.program(t)], timeout=10, stderr=subprocess.PIPE)
        check(r.returncode in (0, 1), "%s with stdout closed: exit %d" % (option, r.returncode))
        with open("/dev/full", "w") as full:
            status, _, _ = culvert(t, option, stdout=full)
        check(status in (0, 1), "%s to a full device: exit %d" % (option, status))


@test("every command's own --help: exit 0", rows=["C12"])
def _(t):
    for command in ("run", "exec", "serve", "check", "demo", "status"):
        status, out, err = culvert(t, command, "--help")
        check_equal(status, 0, "%s --help: %s" % (command, err))
        check(command in out, out)


@test("no configuration anywhere: exit 2 and a sentence that says where it looked", rows=["C7"])
def _(t):
    status, _, err = culvert(t, "run")
    check_equal(status, 2, err)
    check("culvert.yaml" in err and "--proxy" in err, err)


@test("culvert.yaml of the working directory is found")
def _(t):
    t.write("culvert.yaml", GOOD + "frobnicate: 1\n")
    status, _, err = culvert(t, "run")
    check_equal(status, 2)
    check("culvert.yaml:5:" in err, err)


@test("a bomb of aliases, a cycle, 200,000 brackets, 17 MiB: an error in milliseconds", rows=["C5"])
def _(t):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        "a%d: &a%d [%s]\n" % (i, i, ", ".join(["*a%d" % (i - 1)] * 9)) for i in range(1, 12))
    texts = {"bomb": bomb, "cycle": "a: &a [*a]\n", "brackets": "a: " + "[" * 200000, "big": "# " + "x" * (17 << 20) + "\n"}
    wrong = []
    for name, text in texts.items():
        path = t.write(name + ".yaml", text)
        start = time.monotonic()
        status, out, err = culvert(t, "check", path, timeout=30)
        seconds = time.monotonic() - start
        if status != 2 or seconds > t.slow(1):
            wrong.append("%s: exit %d after %.2f s: %s" % (name, status, seconds, (out + err)[:200]))
    check_table(wrong)


@test("a file with secrets that others can read earns a warning, and none prints the secret", rows=["G7"])
def _(t):
    text = GOOD.replace("port: 1080", "port: 1080, username: alice, password: %s" % gateway.SECRET)
    for mode, warned in ((0o644, True), (0o600, False)):
        status, out, err = culvert(t, "check", t.write("login%o.yaml" % mode, text, mode))
        check_equal(status, 0, out + err)
        check_equal("warning" in (out + err).lower(), warned, "a warning for mode %o (%s)" % (mode, out + err))
        check(gateway.SECRET not in out + err, "the secret was printed")
