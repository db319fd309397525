"""runner.py - finds the tests, runs each in a process of its own, prints one line each and a plain last line."""
import argparse
import fnmatch
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

from . import core

EXIT_OK, EXIT_FAILED, EXIT_SKIPPED = 0, 1, 77


def arguments(argv):
    p = argparse.ArgumentParser(prog="tests/e2e/run", description="End-to-end tests in network namespaces of their own.")
    p.add_argument("--preset", default="release", help="which build/<preset>/culvert to test (default: release)")
    p.add_argument("--again", type=int, default=0, metavar="N",
                   help="up to N tests that fail beside others run once more, alone; the first failure is shown, the second counts")
    p.add_argument("--program", help="a program elsewhere, instead of build/<preset>/culvert")
    p.add_argument("-k", action="append", default=[], metavar="TEXT",
                   help="only tests whose file, name or row ids contain this (wildcards allowed); may be repeated")
    p.add_argument("-j", type=int, default=1, metavar="N", help="run so many at once")
    p.add_argument("--long", action="store_true", help="also what takes minutes")
    p.add_argument("--minutes", type=float, default=1, metavar="N", help="how long a soak takes (default: 1)")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="of the tests that throw dice")
    p.add_argument("--quick", action="store_true", help="only the few marked quick")
    p.add_argument("--harness", action="store_true", help="only tests of the harness, which need no culvert")
    p.add_argument("--list", action="store_true", help="print the tests and end")
    p.add_argument("--rows", action="store_true", help="print the row ids that have a test and end")
    p.add_argument("--keep", action="store_true", help="keep the logs of every test")
    p.add_argument("--times", action="store_true", help="print the slowest tests at the end")
    return p.parse_args(argv)


def discover(folder):
    for name in sorted(os.listdir(folder)):
        if name.startswith("test_") and name.endswith(".py"):
            spec = importlib.util.spec_from_file_location(name[:-3], os.path.join(folder, name))
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return core.REGISTRY


def matches(test, pattern):
    text = " ".join([test.module, test.name]).lower()
    p = pattern.lower()
    return p in text or fnmatch.fnmatch(text, "*" + p + "*") or pattern.upper() in test.rows


def selected(tests, options):
    for t in tests:
        if options.k and not any(matches(t, k) for k in options.k):
            continue
        if (t.long and not options.long) or (options.quick and not t.quick) or (options.harness and t.culvert):
            continue
        yield t


def run_child(test, options, tag, directory):
    """In the child: run one test, write the result, exit."""
    context = core.Context(options, tag, directory)
    result, status = {"notes": context.notes}, EXIT_OK

    def too_late(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise core.TimeLimit("longer than its limit of %g s" % limit_of(test, options))
    signal.signal(signal.SIGTERM, too_late)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        try:
            test.run(context)
        except core.Skip as e:
            result["why"], status = str(e), EXIT_SKIPPED
        except BaseException as e:                       # pylint: disable=broad-except
            result["why"], status = failure_text(e), EXIT_FAILED
        context.stack.close()
    except BaseException as e:                           # pylint: disable=broad-except
        result["why"] = "\n".join(filter(None, [result.get("why"), "while ending: " + failure_text(e)]))
        status = EXIT_FAILED
    with open(os.path.join(directory, "result.json"), "w") as f:
        json.dump(result, f)
    sys.stdout.flush()
    os._exit(status)


def failure_text(e):
    if isinstance(e, core.Failure):
        at = traceback.extract_tb(e.__traceback__)
        here = [x for x in at if os.path.basename(x.filename).startswith("test_")]
        where = "%s:%d: " % (os.path.basename(here[-1].filename), here[-1].lineno) if here else ""
        return where + str(e)
    at = traceback.extract_tb(e.__traceback__)[-4:]
    return "".join(traceback.format_list(at) + traceback.format_exception_only(type(e), e)).strip()


def limit_of(test, options):
    return test.limit * (3 if options.preset in ("asan", "tsan") else 1) + (options.minutes * 60 if test.minutes else 0)


class Job:
    """A test that runs in a child."""

    def __init__(self, test, options, number):
        self.test, self.tag = test, "cv%dx%d" % (os.getpid() % 100000, number)
        self.dir = tempfile.mkdtemp(prefix="culvert-e2e-")
        os.chmod(self.dir, 0o755)
        self.start = time.monotonic()
        self.deadline = self.start + limit_of(test, options)
        self.killed = self.second = False
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            out = os.open(os.path.join(self.dir, "test.out"), os.O_WRONLY | os.O_CREAT, 0o644)
            os.dup2(out, 1)
            os.dup2(out, 2)
            run_child(test, options, self.tag, self.dir)
        self.fd = os.pidfd_open(self.pid)

    def too_late(self):
        """First ask, so that it cleans up; ten seconds later end it, and clean up here."""
        os.kill(self.pid, signal.SIGKILL if self.killed else signal.SIGTERM)
        self.killed, self.deadline = True, time.monotonic() + 10

    def finish(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        self.seconds = time.monotonic() - self.start
        code = os.waitstatus_to_exitcode(status)
        try:
            with open(os.path.join(self.dir, "result.json")) as f:
                self.result = json.load(f)
        except (OSError, ValueError):
            self.result = {"why": "the test's process ended with %d" % code, "notes": []}
            code = EXIT_FAILED
        remove_namespaces(self.tag)
        return code

    def logs(self):
        """The end of every log, for a failed test."""
        for name in sorted(os.listdir(self.dir)):
            if name.endswith((".log", ".out", ".plan", ".yaml")):
                with open(os.path.join(self.dir, name), errors="replace") as f:
                    text = f.read()
                if text.strip():
                    yield name, text[-4000:] if not name.startswith("culvert") else text[-12000:]


def remove_namespaces(tag):
    """What a test left behind: namespaces named after it, and the processes in them."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
        if name.startswith(tag):
            pids = subprocess.run(["ip", "netns", "pids", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for pid in pids.stdout.split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


class Report:
    """Prints as results come, and the last line."""

    def __init__(self, options):
        self.options, self.counts, self.times = options, {"passed": 0, "failed": 0, "skipped": 0}, []

    def add(self, test, code, seconds, why="", notes=(), logs=(), again=False):
        """again: it failed beside others and will run once more by itself; only that run is counted."""
        key = {EXIT_OK: "passed", EXIT_SKIPPED: "skipped"}.get(code, "failed")
        self.counts[key] += not again
        self.times.append((seconds, test.name))
        word = {"passed": "ok", "failed": "failed beside others, runs again alone" if again else "FAILED",
                "skipped": "skipped: %s" % why}[key]
        print("%-15s %s (%.1f s) %s" % (test.module[5:], test.name, seconds, word))
        for n in notes:
            print("    " + n)
        if key == "failed":
            print("    " + why.replace("\n", "\n    "))
            for name, text in logs:
                print("    --- " + name)
                print("    " + text.rstrip().replace("\n", "\n    "))
        sys.stdout.flush()

    def close(self):
        if self.options.times:
            for seconds, name in sorted(self.times, reverse=True)[:15]:
                print("%6.1f s  %s" % (seconds, name))
        print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % self.counts)
        return 1 if self.counts["failed"] else 0


def impossible():
    """Why nothing can run here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if subprocess.run(["ip", "netns", "list"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        return "needs iproute2"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    r = subprocess.run(["unshare", "-n", "true"], stderr=subprocess.DEVNULL)
    return "needs network namespaces" if r.returncode else None


def run_all(tests, options, report):
    waiting, running, number, again = list(tests), {}, 0, []
    poll = select.poll()
    try:
        while waiting or running or again:
            while waiting and len(running) < max(1, options.j):
                number += 1
                job = Job(waiting.pop(0), options, number)
                running[job.fd] = job
                poll.register(job.fd, select.POLLIN)
            if not running:
                number += 1
                job = Job(again.pop(0), options, number)
                job.second = True
                running[job.fd] = job
                poll.register(job.fd, select.POLLIN)
            next_deadline = min(j.deadline for j in running.values())
            for fd, _ in poll.poll(max(0, (next_deadline - time.monotonic()) * 1000) + 1):
                poll.unregister(fd)
                job = running.pop(fd)
                code = job.finish()
                once_more = code not in (EXIT_OK, EXIT_SKIPPED) and not job.second and len(again) < options.again
                if once_more:
                    again.append(job.test)
                report.add(job.test, code, job.seconds, job.result.get("why", ""), job.result.get("notes", ()),
                           job.logs() if code == EXIT_FAILED else (), once_more)
                if options.keep:
                    print("    logs: " + job.dir)
                else:
                    shutil.rmtree(job.dir, ignore_errors=True)
            for job in running.values():
                if time.monotonic() > job.deadline:
                    job.too_late()
    finally:
        for job in running.values():                     # interrupted: leave nothing behind
            os.kill(job.pid, signal.SIGTERM)
            job.finish()
            shutil.rmtree(job.dir, ignore_errors=True)


def main(folder, argv):
    options = arguments(argv)
    tests = list(selected(discover(folder), options))
    if options.rows:
        print("\n".join(sorted({r for t in tests for r in t.rows})))
        return 0
    if options.list:
        for t in tests:
            print("%-15s %s%s" % (t.module[5:], t.name, "  (%s)" % " ".join(t.rows) if t.rows else ""))
        return 0
    report, why = Report(options), impossible()
    if why:
        for t in tests:
            report.add(t, EXIT_SKIPPED, 0, why)
        return report.close()
    try:
        run_all(tests, options, report)
    except KeyboardInterrupt:
        print("interrupted")
        report.counts["failed"] += 1
    return report.close()
