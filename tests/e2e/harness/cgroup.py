"""cgroup.py - a program under a limit of memory, with cgroups of version 1 or 2; where none can be made, the test is skipped."""
import os

from .core import Skip

V1, V2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"


class MemoryGroup:
    """A cgroup of the test's own; `prefix` starts a program in it."""

    def __init__(self, t, limit):
        self.v1 = os.path.isdir(V1)
        self.path = os.path.join(V1 if self.v1 else V2, t.tag)
        try:
            os.mkdir(self.path)
        except OSError as e:
            raise Skip("no cgroup of our own: %s" % e) from e
        t.stack.callback(os.rmdir, self.path)
        if not self.v1 and "memory" not in self._text("cgroup.controllers"):
            raise Skip("no memory controller for cgroups of ours")
        try:
            with open(os.path.join(self.path, "memory.limit_in_bytes" if self.v1 else "memory.max"), "w") as f:
                f.write(str(limit))
        except OSError as e:
            raise Skip("no limit of memory can be set: %s" % e) from e
        self.prefix = ["sh", "-c", 'echo $$ > %s/cgroup.procs && exec "$@"' % self.path, "sh"]

    def _text(self, name):
        with open(os.path.join(self.path, name)) as f:
            return f.read()

    def used(self):
        """Bytes that the kernel counts now, its cache of files included."""
        return int(self._text("memory.usage_in_bytes" if self.v1 else "memory.current"))

    def killed(self):
        """How many processes ended because memory was out."""
        words = self._text("memory.oom_control" if self.v1 else "memory.events").split()
        return int(words[words.index("oom_kill") + 1])
