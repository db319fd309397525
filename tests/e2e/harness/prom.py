"""The text format of Prometheus (version 0.0.4), checked as promtool does: what is wrong with it, line by line."""
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(r"^(%s)(?:\{(.*)\})? ([^ ]+)(?: -?[0-9]+)?$" % NAME)
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')
TYPES = {"counter", "gauge", "histogram", "summary", "untyped"}


def labels_of(text):
    """{name: value} of what stands between the braces; None: it is not well formed."""
    found, at = {}, 0
    while at < len(text):
        m = LABEL.match(text, at)
        if m is None or m.group(1) in found:
            return None
        found[m.group(1)] = m.group(2)
        at = m.end()
    return found


def number(text):
    try:
        return float(text)
    except ValueError:
        return None


class Check:
    def __init__(self):
        self.wrong, self.types, self.helps = [], {}, set()
        self.closed, self.family, self.seen, self.samples = set(), None, set(), {}

    def enter(self, family, say):
        if family != self.family:
            if family in self.closed:
                say("%s: its series are not together" % family)
            if self.family:
                self.closed.add(self.family)
            self.family = family

    def comment(self, line, say):
        words = line.split(" ", 3)
        if len(words) < 4 or words[1] not in ("HELP", "TYPE") or not re.fullmatch(NAME, words[2]):
            return say("no HELP and no TYPE")
        kind, name = words[1], words[2]
        self.enter(name, say)
        if name in (self.helps if kind == "HELP" else self.types):
            say("%s: a second %s" % (name, kind))
        if kind == "HELP":
            self.helps.add(name)
        elif words[3] not in TYPES:
            say("%s: type %s" % (name, words[3]))
        else:
            self.types[name] = words[3]
            if (words[3] == "counter") != name.endswith("_total"):
                say("%s: a counter's name ends in _total, and no other's" % name)

    def family_of(self, name):
        for end in ("_bucket", "_sum", "_count"):
            if name.endswith(end) and self.types.get(name[:-len(end)]) == "histogram":
                return name[:-len(end)]
        return name

    def sample(self, line, say):
        m = SAMPLE.match(line)
        labels = labels_of(m.group(2) or "") if m else None
        if m is None or labels is None:
            return say("no sample")
        name, value = m.group(1), number(m.group(3))
        family = self.family_of(name)
        self.enter(family, say)
        if family not in self.types or family not in self.helps:
            say("%s: no HELP or TYPE before it" % name)
        if value is None or (self.types.get(family) == "counter" and not value >= 0):
            say("%s: value %s" % (name, m.group(3)))
        series = (name, tuple(sorted(labels.items())))
        if series in self.seen:
            say("%s: this series is here twice" % name)
        self.seen.add(series)
        self.samples[series] = value


def check(text):
    """(what is wrong, {(name, labels): value})"""
    c = Check()
    if not text.endswith("\n"):
        c.wrong.append("the last line has no end")
    for n, line in enumerate(text.split("\n")[:-1], 1):
        def say(what, n=n):
            c.wrong.append("line %d: %s" % (n, what))
        if line.startswith("#"):
            c.comment(line, say)
        elif line:
            c.sample(line, say)
    histograms(c)
    return c.wrong, c.samples


def histograms(c):
    """Buckets of one series only grow, and the last is its count."""
    rows = {}
    for (name, labels), value in c.samples.items():
        if name.endswith("_bucket") and c.types.get(name[:-7]) == "histogram":
            rest = tuple(x for x in labels if x[0] != "le")
            rows.setdefault((name[:-7], rest), []).append((float(dict(labels)["le"]), value))
    for (family, rest), buckets in rows.items():
        buckets.sort()
        counts = [v for _, v in buckets]
        if counts != sorted(counts) or buckets[-1][0] != float("inf"):
            c.wrong.append("%s: buckets do not add up" % family)
        elif c.samples.get((family + "_count", rest)) != counts[-1]:
            c.wrong.append("%s: _count is not the last bucket" % family)
