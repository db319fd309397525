"""core.py - how a test is declared, what it may call, and what it owns while it runs.

A test is a function with a decorator; it takes one argument, a Context, and fails by raising:

    @test("a refused target looks refused", rows=["S8", "G8"], limit=20)
    def _(t):
        lab = t.lab()
        ...
        check_equal(errno, "ECONNREFUSED")

Everything a test makes is registered with its Context, which undoes it in reverse order whatever happened.
"""
import contextlib
import errno
import os
import time

REGISTRY = []


class Failure(AssertionError):
    """The promise does not hold."""


class Skip(Exception):
    """The machine cannot show it; the message says why."""


class TimeLimit(Failure):
    """The test took longer than it may."""


class Spec:
    """A declared test: its sentence, the spec rows it proves, and when it may run."""

    def __init__(self, name, function, rows, limit, long, culvert, quick, minutes, arguments):
        self.name, self.function, self.rows, self.limit, self.minutes = name, function, rows, limit, minutes
        self.long, self.culvert, self.quick, self.arguments = long, culvert, quick, arguments
        self.module = function.__module__

    def run(self, context):
        self.function(context, *self.arguments)


def test(name, rows=(), limit=30, long=False, culvert=True, quick=False, minutes=False, cases=None):
    """Declare a test.

    rows     ids of faults.md and of the other specs that it proves
    limit    seconds, tripled for builds with sanitizers
    long     only with --long
    culvert  False: needs no program, it proves the harness
    quick    True: also part of the few that run with the thread sanitizer
    minutes  True: takes --minutes beside its limit
    cases    {label: arguments}: one test each, named "name [label]"
    """
    def declare(function):
        for label, arguments in (cases or {"": ()}).items():
            full = "%s [%s]" % (name, label) if label else name
            arguments = arguments if isinstance(arguments, tuple) else (arguments,)
            REGISTRY.append(Spec(full, function, list(rows), limit, long, culvert, quick, minutes, arguments))
        return function
    return declare


def check(condition, message):
    if not condition:
        raise Failure(message)


def check_equal(seen, wanted, what=""):
    if seen != wanted:
        raise Failure("%s%s, not %s" % (what + ": " if what else "", short(seen), short(wanted)))


def short(value, limit=400):
    """repr() that fits into a report."""
    text = repr(value)
    return text if len(text) <= limit else "%s... (%d)" % (text[:limit], len(value))


def check_table(wrong):
    """Fail with every wrong row of a table, not only the first."""
    if wrong:
        raise Failure("%d wrong:\n  %s" % (len(wrong), "\n  ".join(wrong)))


def errno_name(e):
    """The name of an OSError's number, or "timed out"."""
    if isinstance(e, TimeoutError) and e.errno is None:
        return "timed out"
    return errno.errorcode.get(e.errno, str(e))


def within(seconds, condition, what, every=0.02):
    """Wait until condition() is true, at most so long; for states of the system that give no event. Returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure("not within %g s: %s" % (seconds, what))
        time.sleep(every)


class Context:
    """What a running test owns."""

    def __init__(self, options, tag, directory):
        self.options, self.tag, self.dir = options, tag, directory
        self.stack = contextlib.ExitStack()
        self.notes = []
        self.labs = 0

    @property
    def sanitized(self):
        return self.options.preset in ("asan", "tsan", "dev-asan")

    def slow(self, seconds):
        """A time-out that allows for sanitizers and a busy machine."""
        return seconds * (4 if self.sanitized else 1.5)

    def note(self, text):
        """One line that is printed beside the result, for figures."""
        self.notes.append(text)

    def own(self, thing, undo=None):
        """Register what must be undone; `undo` is a method's name, "stop" by default."""
        self.stack.callback(getattr(thing, undo or "stop"))
        return thing

    def enter(self, manager):
        return self.stack.enter_context(manager)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text, mode=0o644):
        path = self.path(name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def lab(self, **kw):
        from .lab import Lab
        self.labs += 1
        return self.own(Lab(self, "%s%s" % (self.tag, "abcdefgh"[self.labs - 1]), **kw), "close")
