"""gateway.py - culvert under test: its configuration, start, status, end, and what always holds of it (faults.md G1, G7)."""
import json
import os
import re
import signal
import subprocess

from . import net
from .core import Failure, check, check_equal, check_table, within
from .proc import Process

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
ROUTING_MARK = 0x1b6            # spared by the rules that lead packets of gw into the TUN
SECRET = "s3cr3t-never-print"      # the tests' password; no output may contain it
# The leak checker stops its own process with ptrace, which now and then fails; that says nothing about culvert.
LEAK_CHECK_BROKE = "LeakSanitizer has encountered a fatal error"
REFUSED = "sandbox: the system call"      # every test runs inside the sandbox, and nothing in it may need more (faults.md X9)
SANITIZER_NOISE = re.compile(r"runtime error:|(Address|Leak|Thread|UndefinedBehavior)Sanitizer|Assertion .* failed|"
                             r"stack smashing detected|double free|corrupted")


def program(context):
    path = os.path.abspath(context.options.program or
                           os.path.join(REPOSITORY, "build", context.options.preset, "culvert"))
    if not os.access(path, os.X_OK):
        raise Failure("%s is missing; cmake --preset %s && ninja -C build/%s culvert"
                      % (path, context.options.preset, context.options.preset))
    return path


def sanitizer_env():
    return {"ASAN_OPTIONS": "detect_leaks=1:halt_on_error=1:abort_on_error=0:exitcode=99",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "TSAN_OPTIONS": "halt_on_error=0:exitcode=99:second_deadlock_stack=1"}


def config_text(sections):
    """YAML whose values are in flow style: readable in a log, and made by json alone."""
    lines = []
    for key, value in sections.items():
        if isinstance(value, list):
            lines.append(key + ":")
            lines += ["  - " + json.dumps(x) for x in value]
        else:
            lines.append("%s: %s" % (key, json.dumps(value)))
    return "\n".join(lines) + "\n"


def config(proxies, rules=None, workers=2, tun=None, stack=None, **more):
    """The usual configuration of a test; `proxies` are maps or running servers, the first one takes what no rule names."""
    entries = [p.proxy("up%d" % i if i else "up") if hasattr(p, "proxy") else p for i, p in enumerate(proxies)]
    if rules is None:
        rules = ["MATCH,%s" % (entries[0]["name"] if entries else "DIRECT")]
    sections = {"version": 1, "runtime": {"workers": workers}, "log": {"level": "debug"},
                "tun": dict({"name": "tun0", "address": ["198.18.0.1/30", "fdfe:dcba:9876::1/126"], "mtu": 1500,
                             "auto-route": False, "routing-mark": ROUTING_MARK}, **(tun or {}))}
    if stack:
        sections["stack"] = stack
    if entries:
        sections["proxies"] = entries
    sections["rules"] = rules
    sections.update(more)
    return sections


class Gateway:
    """A running `culvert run`."""

    def __init__(self, lab, argv, api, env=None, prefix=(), namespace=None, name="culvert", user=None,
                 pass_fds=()):
        self.lab, self.context, self.api = lab, lab.context, api
        self.namespace = namespace or lab.gw
        self.stopped = False
        self.process = Process(self.context, self.namespace, [program(self.context)] + argv, name,
                               env=dict(sanitizer_env(), **(env or {})), prefix=prefix, user=user,
                               pass_fds=pass_fds)
        self.context.own(self, "finish")     # after the process registered itself: things end in reverse order

    @property
    def pid(self):
        """With a prefix such as taskset every step execs, so this is culvert."""
        return self.process.pid

    @property
    def log(self):
        return self.process.text

    def wait_ready(self, seconds=10):
        return self.process.wait_line("^ready:", self.context.slow(seconds))

    def status(self, *more, seconds=1):
        """`culvert status` as a map; it must answer within a second (G1)."""
        r = self.namespace.result([program(self.context), "status", "--api", self.api] + list(more),
                                  timeout=self.context.slow(seconds) + 1)
        check_equal(r.returncode, 0, "exit status of culvert status (%s)" % r.stderr.strip())
        return json.loads(r.stdout)

    def counter(self, name):
        """A counter by its name, such as "ip.short", summed over the workers."""
        counters = self.status()["counters"]
        check(name in counters, "no counter %s; there are: %s" % (name, " ".join(sorted(counters))))
        return counters[name]

    def settled_counters(self, seconds=5):
        """All counters, once every packet that one worker handed over has been taken by another: workers are not asked at one moment."""
        def taken():
            c = self.status()["counters"]
            return c if c["ip.handoff_out"] == c["ip.handoff_in"] else None
        return within(seconds, taken, "every hand-off was taken", every=0.1)

    def says(self, pattern, seconds=2):
        """A line of the log that matches, now or soon: a client may see an end before we have read the line about it."""
        return self.process.wait_line(pattern, self.context.slow(seconds))

    def resources(self):
        return self.process.resources()

    def flows(self, kind="tcp"):
        """Number of live flows; UDP mappings linger until their idle time-out, so most tests ask for TCP."""
        return self.status()["flows"][kind]

    def wait_no_flows(self, seconds=10, kind="tcp"):
        within(self.context.slow(seconds), lambda: self.flows(kind) == 0, "all %s flows ended" % kind, every=0.1)

    def check_alive(self):
        """G1: it runs and answers."""
        check(self.process.alive(), "culvert ended:\n" + self.log[-3000:])
        self.status()

    def terminate(self, number=signal.SIGTERM, seconds=2):
        """Exit status of a clean end; the promise is two seconds (X1), more only under a sanitizer."""
        self.process.signal(number)
        status = self.process.wait(seconds * (4 if self.context.sanitized else 1))
        self.stopped = True
        self.check_log()
        return 0 if LEAK_CHECK_BROKE in self.log else status

    def check_log(self):
        broke = LEAK_CHECK_BROKE in self.log
        noise = [x for x in self.process.lines if SANITIZER_NOISE.search(x) and not (broke and "LeakSanitizer" in x)]
        at = self.log.find(noise[0]) if noise else 0
        check(not noise, "sanitizer or assertion:\n" + self.log[at:at + 3000])
        check(SECRET not in self.log, "the password is in the log (G7)")
        refused = [x for x in self.process.lines if REFUSED in x]
        check(not refused, "the sandbox refused what is needed (X9): %s" % " ".join(refused))

    def finish(self):
        """At the end of every test: still alive, ends cleanly, and said nothing that it should not."""
        if self.stopped:
            return
        self.stopped = True
        if not self.process.alive():
            self.check_log()
            raise Failure("culvert had ended by itself with status %s:\n%s"
                          % (self.process.process.returncode, self.log[-3000:]))
        self.process.signal(signal.SIGCONT)
        check_equal(self.terminate(seconds=4), 0, "exit status of culvert at SIGTERM")


def start(lab, proxies=(), rules=None, route=True, ready=True, argv=None, sections=None, env=None,
          prefix=(), name="culvert", **more):
    """Write a configuration, start culvert, wait for it, and lead cli's packets into its TUN."""
    api = lab.context.path(name + ".sock")
    more.setdefault("api", {"unix": api})
    sections = sections or config(list(proxies), rules, **more)
    conf = lab.context.write(name + ".yaml", config_text(sections), 0o600)
    gw = Gateway(lab, argv or ["run", "-c", conf], api, env=env, prefix=prefix, name=name)
    gw.config_path = conf
    if ready:
        gw.wait_ready()
    if ready and route:
        lab.route_into(sections["tun"]["name"])
    return gw


class NothingRefused:
    """At the end of a test: no far end's sandbox refused it a call (X9)."""

    def __init__(self, process):
        self.process = process

    def check(self):
        refused = [x for x in self.process.lines if REFUSED in x]
        check(not refused, "the sandbox of culvert serve refused what is needed (X9): %s" % " ".join(refused))


def check_file(context, text, name="checked.yaml"):
    """`culvert check` on a text: (exit status, lines of errors)."""
    path = context.write(name, text)
    r = subprocess.run([program(context), "check", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       timeout=20, env=dict(os.environ, **sanitizer_env()), stdin=subprocess.DEVNULL)
    return r.returncode, (r.stderr + r.stdout).strip().splitlines()


# What the kernel gives a link by itself, some time after it is up.
LINK_LOCAL = re.compile(r"(fe80:|ff00:).*(lan0|wan0)|inet6 fe80:")


def network_state(namespace):
    """What a clean end must put back: rules, routes of every table, links and addresses."""
    state = {}
    for family in ("-4", "-6"):
        for what in (["rule"], ["route", "show", "table", "all"], ["addr"]):
            text = net.command(["ip", family, "-n", namespace.name] + what)
            lines = [x for x in text.splitlines() if "lft" not in x and not x.startswith("Error:") and not LINK_LOCAL.search(x)]
            state[family + " " + what[0]] = sorted(re.sub(r" expires \S+", "", x).strip() for x in lines)
    state["nft"] = net.command(["ip", "netns", "exec", namespace.name, "nft", "list", "ruleset"])
    return state


def check_network(namespace, before):
    """The namespace's network is as network_state() found it before; what differs is named."""
    after, wrong = network_state(namespace), []
    for what, old in before.items():
        old, new = ([x.splitlines() if isinstance(x, str) else x for x in (old, after[what])])
        wrong += ["%s: gone: %s" % (what, x) for x in old if x not in new]
        wrong += ["%s: left: %s" % (what, x) for x in new if x not in old]
    check_table(wrong)
