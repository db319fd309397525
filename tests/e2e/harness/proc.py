"""proc.py - one process under test or beside it: its log, its lines as events, its end, its resources."""
import collections
import contextlib
import os
import re
import select
import signal
import subprocess
import threading
import time

from .core import Failure

Resources = collections.namedtuple("Resources", "rss_kib fds threads cpu_s")


def wait_pid(process, seconds):
    """Wait for the end by pidfd; True if it came in time."""
    if process.poll() is not None:
        return True
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(process.pid)
        try:
            ended = select.poll()           # select() knows no descriptor above 1,023
            ended.register(fd, select.POLLIN)
            if not ended.poll(seconds * 1000):
                return False
        finally:
            os.close(fd)
    process.wait()
    return True


class Process:
    """A program in a namespace, in a session of its own, whose output is kept and watched line by line."""

    def __init__(self, context, namespace, argv, name, env=None, user=None, stdin=subprocess.DEVNULL, prefix=(),
                 pass_fds=()):
        self.name, self.argv, self.user = name, argv, user
        self.log_path = context.path(name + ".log")
        self._log = open(self.log_path, "ab", buffering=0)
        self._lines, self._seen = [], threading.Condition()
        full = list(prefix)
        if user is not None:
            full += ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"]
        full = namespace.argv(full + argv) if namespace else full + argv
        self._log.write(("$ " + " ".join(full) + "\n").encode())
        self.process = subprocess.Popen(full, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        start_new_session=True, env=dict(os.environ, **(env or {})), pass_fds=pass_fds)
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        context.own(self)

    def _read(self):
        with self._log, self.process.stdout:
            for raw in self.process.stdout:
                self._log.write(raw)
                with self._seen:
                    self._lines.append(raw.decode("utf-8", "replace").rstrip("\n"))
                    self._seen.notify_all()
        with self._seen:
            self._lines.append(None)
            self._seen.notify_all()

    @property
    def lines(self):
        with self._seen:
            return [x for x in self._lines if x is not None]

    @property
    def text(self):
        return "\n".join(self.lines)

    def wait_line(self, pattern, seconds, after=0):
        """The first line that matches, waiting for it; fails at once when the program ends without it."""
        expression, end, at = re.compile(pattern), time.monotonic() + seconds, after
        with self._seen:
            while True:
                while at < len(self._lines):
                    line = self._lines[at]
                    if line is None:
                        raise Failure("%s ended without a line like %r" % (self.name, pattern))
                    if expression.search(line):
                        return line
                    at += 1
                if not self._seen.wait(max(0, end - time.monotonic())) and time.monotonic() >= end:
                    raise Failure("no line like %r from %s within %g s" % (pattern, self.name, seconds))

    def mark(self):
        """A position for wait_line(after=...)."""
        with self._seen:
            return len(self._lines)

    def alive(self):
        return self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds):
        """Exit status; a program that does not end in time is a failure."""
        if not wait_pid(self.process, seconds):
            raise Failure("%s (pid %d) still runs after %g s" % (self.name, self.pid, seconds))
        self._reader.join(2)
        return self.process.returncode

    def stop(self, grace=3):
        """End it and its children; used at the end of every test."""
        if self.alive():
            self.process.terminate()
            if not wait_pid(self.process, grace):
                self.process.kill()
                wait_pid(self.process, 5)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._reader.join(2)

    def resources(self):
        return resources(self.pid)


def resources(pid):
    """RSS, open descriptors, threads and CPU seconds of a process now."""
    status = {}
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            key, _, value = line.partition(":")
            status[key] = value.split()
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Resources(int(status["VmRSS"][0]), len(os.listdir("/proc/%d/fd" % pid)), int(status["Threads"][0]), cpu)


def wait_port(namespace, address, port, seconds=10, process=None):
    """Until a TCP port accepts a connection."""
    from .core import within
    import socket

    def accepts():
        if process is not None and not process.alive():
            raise Failure("%s ended before port %d was open:\n%s" % (process.name, port, process.text[-2000:]))
        s = namespace.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        with s:
            s.settimeout(1)
            return s.connect_ex((address, port)) == 0
    within(seconds, accepts, "port %d of %s" % (port, address))
