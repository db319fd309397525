"""What the gateway and the far end may still do once they run: files of the configuration, and kernels that cannot confine
(docs/how-it-works.md, "Privileges")."""
import os
import shutil
import signal
import subprocess
import tempfile

from harness import check, check_equal, client, fronts, servers, test, within
from harness import gateway as gateways
from harness import lab as at
from harness.core import check_table
from harness.fronts import Pki
from harness.proc import Process

FORBID = os.path.join(os.path.dirname(os.path.abspath(__file__)), "harness", "forbid.py")
PARTS = {"landlock": "this kernel has no Landlock", "seccomp": "this kernel takes no list of system calls"}


def field(pid, name):
    with open("/proc/%d/status" % pid) as f:
        return [line.split(None, 1)[1].strip() for line in f if line.startswith(name + ":")][0]


def elsewhere(t):
    """A folder that is not below the configuration's."""
    folder = tempfile.mkdtemp(prefix="culvert-elsewhere-")
    os.chmod(folder, 0o755)

    class Folder:
        path = folder

        def remove(self):
            shutil.rmtree(folder)
    return t.own(Folder(), "remove").path


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def lines_with(process, text):
    return len([x for x in process.lines if text in x])


# ---- the far end ----

@test("every thread of culvert serve has no capability, a filter, and serves", rows=["X9"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    pki = Pki(t)
    pki.server()
    far = fronts.masque(lab, pki)
    plain = servers.culvert_serve(lab)
    url = servers.Services.url(at.TARGET[0], "bytes/100000")
    check_equal(len(client.curl(lab.gw, url, *far.curl())), 100000)
    check_equal(len(client.curl(lab.gw, url, "-x", plain.url.replace("socks5", "socks5h"))), 100000)
    def names(process):
        return [open("/proc/%d/task/%s/comm" % (process.pid, x)).read().strip() for x in os.listdir("/proc/%d/task" % process.pid)]
    wrong = []
    for process in (far.process, plain.process):
        process.wait_line("^ready:", t.slow(10))
        within(t.slow(5), lambda p=process: "far-end" in names(p), "its threads have their name")
        for task in os.listdir("/proc/%d/task" % process.pid):
            for name, wanted in (("CapEff", ""), ("CapPrm", ""), ("CapBnd", ""), ("NoNewPrivs", "1"), ("Seccomp", "2")):
                got = field(int(task), name)
                if (got.strip("0") if name.startswith("Cap") else got) != wanted:
                    wrong.append("%s, thread %s: %s %s" % (process.name, task, name, got))
    check_table(wrong)


@test("culvert serve becomes runtime.user, its ports below 1024 and its pings included", rows=["X9"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    pki = Pki(t)
    pki.server()
    for name in os.listdir(pki.dir):
        os.chmod(pki.path(name), 0o644)
    entry = {"listen": "%s:443" % at.PROXY[0], "certificate": pki.path("server.crt"), "private-key": pki.path("server.key"),
             "users": {"alice": "sesame"}, "allow": ["10.77.0.0/16", "fd77::/16"]}
    lab.srv.sysctl("net/ipv4/ping_group_range", "1 0")          # no ping sockets: a raw one is opened while root
    config = t.write("serve.yaml", gateways.config_text({"runtime": {"workers": 2, "user": "nobody"}, "serve": {"masque": entry}}), 0o644)
    p = Process(t, lab.srv, [gateways.program(t), "serve", "-c", config], "serve", env=gateways.sanitizer_env())
    t.own(gateways.NothingRefused(p), "check")
    p.wait_line("^ready:", t.slow(10))
    check(field(p.pid, "Uid").split()[0] != "0", "still root")
    check_equal(field(p.pid, "CapEff").strip("0"), "", "capabilities")
    far = fronts.Masque(at.PROXY[0], 443, "alice", "sesame", pki.ca, config, p)
    gw = lab.gateway(proxies=[far])
    client.download(lab.cli, at.TARGET[0], 100000)
    r = lab.cli.result(["ping", "-c", "2", "-W", "5", at.TARGET[0]], timeout=20)
    check_equal(r.returncode, 0, "ping: " + r.stdout)
    p.signal(signal.SIGHUP)
    p.wait_line("certificate, users, allow and limits are now as", t.slow(5))
    gw.check_alive()


@test("SIGHUP to culvert serve: a certificate renewed beside its old folder is taken, one of another folder takes a restart",
      rows=["X9"], limit=60)
def _(t):
    lab = t.lab()
    pki = Pki(t)
    pki.server()
    live, archive, other = elsewhere(t), elsewhere(t), elsewhere(t)
    for kind in ("crt", "key"):
        shutil.copy(pki.path("server." + kind), archive)
        os.symlink(os.path.join(archive, "server." + kind), os.path.join(live, kind))    # as certbot arranges them

    def text(folder, **more):
        entry = {"listen": "%s:8443" % at.PROXY[0], "certificate": os.path.join(folder, "crt"), "private-key": os.path.join(folder, "key"),
                 "users": {"alice": "sesame"}}
        return gateways.config_text(dict(more, serve={"masque": entry}))
    config = t.write("serve.yaml", text(live), 0o600)
    p = Process(t, lab.srv, [gateways.program(t), "serve", "-c", config], "serve", env=gateways.sanitizer_env())
    p.wait_line("^ready:", t.slow(10))
    for kind in ("crt", "key"):
        shutil.copy(pki.path("server." + kind), os.path.join(archive, "next." + kind))
        os.unlink(os.path.join(live, kind))
        os.symlink(os.path.join(archive, "next." + kind), os.path.join(live, kind))
        shutil.copy(pki.path("server." + kind), os.path.join(other, kind))
    p.signal(signal.SIGHUP)
    p.wait_line("certificate, users, allow and limits are now as", t.slow(5))
    write(config, text(other))
    p.signal(signal.SIGHUP)
    p.wait_line("crt is outside of the folders that the sandbox left readable at the start; restart needed", t.slow(5))
    write(config, text(live, log={"output": os.path.join(other, "log")}))
    p.signal(signal.SIGHUP)
    p.wait_line("log is outside of the folders that the sandbox left writable at the start; restart needed", t.slow(5))
    write(config, text(live))
    p.signal(signal.SIGHUP)
    within(t.slow(5), lambda: lines_with(p, "certificate, users, allow and limits are now as") == 2, "the old folder is taken again")


# ---- kernels that cannot ----

@test("sandbox: require does not start where a part is missing, and says which; true costs a line",
      rows=["X10"], cases={x: x for x in PARTS}, limit=60)
def _(t, part):
    lab = t.lab()
    forbid = ["/usr/bin/python3", FORBID, part]
    sections = {"serve": {"socks5": {"listen": "%s:1082" % at.PROXY[0]}}}
    config = t.write("serve.yaml", gateways.config_text(dict(sections, runtime={"sandbox": "require"})), 0o600)
    r = lab.srv.result([*forbid, gateways.program(t), "serve", "-c", config], timeout=t.slow(10))
    check(r.returncode == 1 and "runtime.sandbox: require: " + PARTS[part] in r.stderr, "serve: %d %s" % (r.returncode, r.stderr))
    gw = lab.gateway(runtime={"workers": 1, "sandbox": "require"}, rules=["MATCH,REJECT"], ready=False, prefix=forbid)
    gw.stopped = True
    check_equal(gw.process.wait(t.slow(10)), 1, "exit status of run")
    check("runtime.sandbox: require: " + PARTS[part] in gw.log, gw.log)
    gw = lab.gateway(rules=["MATCH,REJECT"], prefix=forbid, name="again")
    check_equal(lines_with(gw.process, PARTS[part]), 1, "lines about it")


@test("sandbox: require starts where all parts are there", rows=["X10"])
def _(t):
    lab = t.lab()
    gw = lab.gateway(runtime={"workers": 1, "sandbox": "require"}, rules=["MATCH,REJECT"])
    check_equal(field(gw.pid, "Seccomp"), "2", "seccomp mode")


def exec_argv(t, config, *command):
    return [gateways.program(t), "exec", "-c", config, "--dns", at.TARGET[0], "--", *command]


def exec_config(t, server, sandbox):
    return t.write("exec.yaml", gateways.config_text({"runtime": {"workers": 1, "sandbox": sandbox}, "proxies": [server.proxy("up")],
                                                      "rules": ["MATCH,up"]}), 0o600)


@test("exec with sandbox: require runs no command where a part is missing, and says which", rows=["X10"],
      cases={x: x for x in PARTS}, limit=60)
def _(t, part):
    lab = t.lab()
    config = exec_config(t, servers.microsocks(lab), "require")
    argv = ["/usr/bin/python3", FORBID, part, *exec_argv(t, config, "echo", "it ran")]
    r = lab.gw.result(argv, timeout=t.slow(15))
    check_equal(r.returncode, 1, "exit status: " + r.stderr)
    check("runtime.sandbox: require: " + PARTS[part] in r.stderr, r.stderr)
    check("it ran" not in r.stdout, "the command ran")


@test("exec does what runtime.sandbox says: require and true confine the gateway, false leaves it as it is", rows=["X9", "X10"],
      cases={"require": ("require", "2"), "true": (True, "2"), "false": (False, "0")}, limit=60)
def _(t, sandbox, mode):
    lab = t.lab()
    lab.services()
    config = exec_config(t, servers.microsocks(lab), sandbox)
    p = Process(t, lab.gw, exec_argv(t, config, "sh", "-c", "echo up; read go; exec curl -sS -o /dev/null -w '%%{size_download}' '%s'"
                                     % servers.Services.url(at.TARGET[0], "bytes/1000")), "exec", env=gateways.sanitizer_env(),
                stdin=subprocess.PIPE)
    p.wait_line("^up$", t.slow(10))
    check_equal(field(p.pid, "Seccomp"), mode, "seccomp mode of the gateway")
    p.process.stdin.write(b"go\n")
    p.process.stdin.flush()
    p.wait_line("^1000", t.slow(10))
    check_equal(p.wait(t.slow(10)), 0, "exit status")


@test("serve does what runtime.sandbox says: false leaves it as it is", rows=["X9"], cases={"true": (True, "2"), "false": (False, "0")})
def _(t, sandbox, mode):
    lab = t.lab()
    sections = {"runtime": {"workers": 1, "sandbox": sandbox}, "serve": {"socks5": {"listen": "%s:1082" % at.PROXY[0]}}}
    config = t.write("serve.yaml", gateways.config_text(sections), 0o600)
    p = Process(t, lab.srv, [gateways.program(t), "serve", "-c", config], "serve", env=gateways.sanitizer_env())
    p.wait_line("^ready:", t.slow(10))
    modes = {field(int(task), "Seccomp") for task in os.listdir("/proc/%d/task" % p.pid)}
    check_equal(modes, {mode}, "seccomp modes of its threads")


# ---- files of the configuration ----

@test("lists, secrets and the log may lie in folders of their own; a reload reads them as they are then", rows=["X9"], limit=60)
def _(t):
    lab = t.lab()
    lab.services()
    lab.direct_route()
    lists, secrets, logs, copies = (elsewhere(t) for _ in range(4))
    web = servers.Lists(lab)
    web.write("ads", "%s/32\n" % at.TARGET2[0])
    write(os.path.join(lists, "lan.txt"), "192.0.2.0/24\n")
    write(os.path.join(secrets, "token"), "first")
    os.chmod(os.path.join(secrets, "token"), 0o600)
    copy, log = os.path.join(copies, "below", "ads"), os.path.join(logs, "culvert.log")
    gw = lab.gateway(rules=["RULE-SET,lan,REJECT", "RULE-SET,ads,REJECT", "MATCH,DIRECT"], log={"level": "debug", "output": log},
                     runtime={"workers": 1, "state-dir": t.path("state")}, api={"unix": t.path("culvert.sock"), "secret": {"file": os.path.join(secrets, "token")}},
                     **{"rule-providers": {"lan": {"type": "file", "behavior": "ipcidr", "path": os.path.join(lists, "lan.txt")},
                                           "ads": {"type": "http", "behavior": "ipcidr", "url": web.url("ads"), "interval": "1s",
                                                   "path": copy}}})
    within(t.slow(10), lambda: os.path.exists(copy), "the copy was written")
    within(t.slow(5), lambda: client.outcome(lab.cli, at.TARGET2[0], 7000)[0] == "ECONNREFUSED", "the fetched list decides")
    fresh = write(os.path.join(lists, "fresh"), "%s/32\n" % at.TARGET[0])
    os.rename(fresh, os.path.join(lists, "lan.txt"))            # a new file, as an editor or a tool leaves it
    os.rename(log, log + ".1")
    gw.process.signal(signal.SIGHUP)
    within(t.slow(5), lambda: client.outcome(lab.cli, at.TARGET[0], 7000)[0] == "ECONNREFUSED", "the new list decides")
    within(t.slow(5), lambda: os.path.exists(log) and "reloaded: " in open(log).read(), "the log goes on in a new file")


@test("a state folder that is not there yet is made before that cannot be done any more", rows=["X9"],
      cases={"as root": {}, "as runtime.user": {"user": "nobody"}})
def _(t, more):
    lab = t.lab()
    state = os.path.join(elsewhere(t), "state")
    gw = lab.gateway(runtime=dict(more, workers=1, **{"state-dir": state}), rules=["MATCH,pick"],
                     **{"proxy-groups": [{"name": "pick", "type": "select", "proxies": ["REJECT", "DIRECT"]}]})
    r = lab.gw.result([gateways.program(t), "select", "pick", "DIRECT", "--api", gw.api])
    check_equal(r.returncode, 0, r.stderr)
    within(t.slow(5), lambda: os.path.exists(os.path.join(state, "select")), "the choice is kept")
    check_equal(os.stat(state).st_mode & 0o777, 0o700, "mode of the folder")
    gw.check_alive()


def outside(t, lab, gw, sections, word):
    text = "outside of the folders that the sandbox left %s at the start; restart needed" % word
    before = lines_with(gw.process, text)
    write(gw.config_path, gateways.config_text(sections))
    gw.process.signal(signal.SIGHUP)
    within(t.slow(5), lambda: lines_with(gw.process, text) == before + 1, text)
    check_equal(lines_with(gw.process, "reloaded: "), 0, "reloads")
    check_equal(client.outcome(lab.cli, at.TARGET[0], 7000)[0], "ECONNREFUSED")


@test("a reload that names a file of a new folder says that it takes a restart, and changes nothing", rows=["X9", "C9"], limit=60)
def _(t):
    lab = t.lab()
    folder = elsewhere(t)
    write(os.path.join(folder, "lan.txt"), "192.0.2.0/24\n")
    write(os.path.join(folder, "pw"), "secret")
    gw = lab.gateway(rules=["MATCH,REJECT"])
    lan = {"type": "file", "behavior": "ipcidr", "path": os.path.join(folder, "lan.txt")}
    ads = {"type": "http", "behavior": "ipcidr", "url": "http://%s:1/ads" % at.TARGET[0], "path": os.path.join(folder, "ads")}
    proxy = {"name": "p", "type": "socks5", "server": at.PROXY[0], "port": 1080, "username": "a", "password": {"file": os.path.join(folder, "pw")}}
    api = {"unix": gw.api}
    for more, word in (({"rule-providers": {"lan": lan}, "rules": ["RULE-SET,lan,REJECT", "MATCH,DIRECT"]}, "readable"),
                       ({"rule-providers": {"ads": ads}, "rules": ["RULE-SET,ads,REJECT", "MATCH,DIRECT"]}, "writable"),
                       ({"proxies": [proxy], "rules": ["MATCH,p"]}, "readable"),
                       ({"log": {"output": os.path.join(folder, "log")}, "rules": ["MATCH,DIRECT"]}, "writable")):
        outside(t, lab, gw, dict(gateways.config([]), api=api, **more), word)
    again = lab.gateway(rules=["RULE-SET,lan,REJECT", "MATCH,DIRECT"], name="again", tun={"name": "tun1", "address": ["198.18.1.1/30"]}, route=False,
                        **{"rule-providers": {"lan": lan}})
    again.check_alive()


@test("PROCESS rules that a reload brings see our own programs only, and it says so", rows=["C9", "X8"], limit=60)
def _(t):
    lab = t.lab()
    gw = lab.gateway(rules=["MATCH,REJECT"])
    sections = dict(gateways.config([]), api={"unix": gw.api}, rules=["UID,12345,REJECT", "MATCH,REJECT"])
    write(gw.config_path, gateways.config_text(sections))
    gw.process.signal(signal.SIGHUP)
    gw.says("reloaded: ", 5)
    check_equal(lines_with(gw.process, "PROCESS-"), 0, "warnings without such a rule")
    write(gw.config_path, gateways.config_text(dict(sections, rules=["PROCESS-NAME,nothing,DIRECT", "MATCH,REJECT"])))
    gw.process.signal(signal.SIGHUP)
    gw.says("PROCESS-[*] rules are new: until a restart", 5)
    again = lab.gateway(rules=["PROCESS-NAME,nothing,DIRECT", "MATCH,REJECT"], name="again", tun={"name": "tun1", "address": ["198.18.1.1/30"]},
                        route=False)
    again.process.signal(signal.SIGHUP)
    again.says("reloaded: ", 5)
    check_equal(lines_with(again.process, "PROCESS-"), 0, "warnings where the privilege was kept")
