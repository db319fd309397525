"""clocks.py FILE COMMAND... - run COMMAND where the wall clock is FILE's number of seconds away from the machine's (x86-64, root).

Nothing is preloaded and no clock is set. COMMAND finds no vDSO (its auxiliary vector is changed before its first instruction), so it
asks the kernel for the time by system calls; those for CLOCK_REALTIME, gettimeofday() and time() come to us by seccomp's
user notification, and we answer. Other clocks are the machine's. FILE is read at each question, so the clock jumps when FILE is written.
"""
import ctypes
import fcntl
import os
import select
import signal
import struct
import sys
import time

NEW_LISTENER, SET_MODE_FILTER = 8, 1
LD_W_ABS, JEQ, RET = 0x20, 0x15, 0x06
ALLOW, USER_NOTIF = 0x7fff0000, 0x7fc00000
NR_PTRACE_TRACEME, PTRACE_SETOPTIONS, PTRACE_O_TRACEEXEC, PTRACE_DETACH, PTRACE_GETREGS = 0, 0x4200, 0x10, 17, 12
NR_GETTIMEOFDAY, NR_TIME, NR_CLOCK_GETTIME, NR_SECCOMP, NR_PIDFD_GETFD = 96, 201, 228, 317, 438
NOTIF_RECV, NOTIF_SEND = 0xc0502100, 0xc0182101
AT_SYSINFO_EHDR, AT_IGNORE = 33, 1
CLOCK_REALTIME, CLOCK_REALTIME_COARSE = 0, 5

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def fail(what):
    sys.exit("clocks.py: %s: %s" % (what, os.strerror(ctypes.get_errno())))


def op(code, yes, no, k):
    return struct.pack("HBBI", code, yes, no, k)


def listen():
    """Install the filter in this process; the descriptor of its questions."""
    program = b"".join([
        op(LD_W_ABS, 0, 0, 0), op(JEQ, 4, 0, NR_GETTIMEOFDAY), op(JEQ, 3, 0, NR_TIME), op(JEQ, 0, 3, NR_CLOCK_GETTIME),
        op(LD_W_ABS, 0, 0, 16), op(JEQ, 0, 1, CLOCK_REALTIME), op(RET, 0, 0, USER_NOTIF),
        op(RET, 0, 0, ALLOW)])
    buffer = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)), 16)
    fd = libc.syscall(NR_SECCOMP, SET_MODE_FILTER, NEW_LISTENER, header)
    if fd < 0:
        fail("seccomp")
    return fd


def hide_vdso(pid):
    """At its exec stop: the stack holds argc, argv, NULL, envp, NULL, and pairs of the auxiliary vector."""
    regs = ctypes.create_string_buffer(27 * 8)
    if libc.ptrace(PTRACE_GETREGS, pid, None, ctypes.addressof(regs)):
        fail("ptrace")
    at = struct.unpack_from("Q", regs, 19 * 8)[0]                  # rsp
    with open("/proc/%d/mem" % pid, "r+b", buffering=0) as mem:
        def word(where):
            mem.seek(where)
            return struct.unpack("Q", mem.read(8))[0]
        at += 8 * (word(at) + 2)
        while word(at):
            at += 8
        at += 8
        while word(at):
            if word(at) == AT_SYSINFO_EHDR:
                mem.seek(at)
                mem.write(struct.pack("Q", AT_IGNORE))
            at += 16


def answer(fd, offset_path):
    question = bytearray(80)
    fcntl.ioctl(fd, NOTIF_RECV, question, True)
    number, pid = struct.unpack_from("QI", question)
    nr, where = struct.unpack_from("I", question, 16)[0], struct.unpack_from("QQ", question, 32)
    with open(offset_path, encoding="utf-8") as f:
        now = time.time_ns() + int(f.read() or 0) * 10**9
    value, data = 0, struct.pack("qq", now // 10**9, now % 10**9 // (1000 if nr == NR_GETTIMEOFDAY else 1))
    to = where[1] if nr == NR_CLOCK_GETTIME else where[0]
    if nr == NR_TIME:
        value, data = now // 10**9, data[:8]
    if to:
        with open("/proc/%d/mem" % pid, "r+b", buffering=0) as mem:
            mem.seek(to)
            mem.write(data)
    fcntl.ioctl(fd, NOTIF_SEND, bytearray(struct.pack("QqiI", number, value, 0, 0)), True)


def main(offset_path, argv):
    ready = os.pipe()
    child = os.fork()
    if child == 0:
        os.set_inheritable(ready[1], False)
        libc.ptrace(NR_PTRACE_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        fd = listen()
        os.set_inheritable(fd, False)
        os.write(ready[1], struct.pack("i", fd))
        os.kill(os.getpid(), signal.SIGSTOP)                # until our parent has the descriptor
        os.execvp(argv[0], argv)
    os.waitpid(child, 0)
    libc.ptrace(PTRACE_SETOPTIONS, child, None, PTRACE_O_TRACEEXEC)
    libc.ptrace(7, child, None, None)                       # PTRACE_CONT
    number = struct.unpack("i", os.read(ready[0], 4))[0]
    fd = libc.syscall(NR_PIDFD_GETFD, os.pidfd_open(child), number, 0)
    if fd < 0:
        fail("pidfd_getfd")
    os.waitpid(child, 0)
    libc.ptrace(7, child, None, None)
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        sys.exit("clocks.py: %s did not start" % argv[0])
    hide_vdso(child)
    libc.ptrace(PTRACE_DETACH, child, None, None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, _: os.kill(child, n))
    ended = os.pidfd_open(child)
    while True:
        readable, _, _ = select.select([fd, ended], [], [])
        if ended in readable:
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status)
        try:
            answer(fd, offset_path)
        except (OSError, ValueError):
            continue                                        # who asked is gone


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
