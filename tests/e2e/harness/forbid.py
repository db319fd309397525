"""forbid.py count|filter|uso|bpf|landlock|seccomp COMMAND... - run COMMAND where something is forbidden.

User namespaces, in one of two ways:

count   in a user namespace whose max_user_namespaces is 0: unshare says ENOSPC
filter  under a seccomp filter such as containers have: unshare and clone say EPERM

bpf     bpf() says EPERM, as to who has no CAP_BPF

A part of the sandbox: landlock says ENOSYS, or seccomp(2) and its prctl() say EINVAL, as a kernel without it would.
"""
import ctypes
import os
import struct
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LD_W_ABS, JEQ, JSET, RET = 0x20, 0x15, 0x45, 0x06
ALLOW, ERRNO = 0x7fff0000, 0x00050000
EPERM, EINVAL, ENOSYS = 1, 22, 38
NR_IOCTL, NR_CLONE, NR_PRCTL, NR_UNSHARE, NR_SECCOMP, NR_BPF, NR_CLONE3, NR_LANDLOCK = 16, 56, 157, 272, 317, 321, 435, 444      # x86-64
TUNSETOFFLOAD, USO4_USO6 = 0x400454d0, 0x60
NUMBER, ARGUMENT_0, ARGUMENT_1, ARGUMENT_2 = 0, 16, 24, 32        # where in struct seccomp_data

libc = ctypes.CDLL(None, use_errno=True)


def by_count():
    """The parent, who is root outside, writes the map; the child sets the limit of its own namespace."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child:
        os.read(ready[0], 1)
        for name in ("uid_map", "gid_map"):
            with open("/proc/%d/%s" % (child, name), "w") as f:
                f.write("0 0 100000\n")
        os.write(go[1], b"x")
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xff)
    if libc.unshare(CLONE_NEWUSER):
        os._exit(77)
    os.write(ready[1], b"x")
    os.read(go[0], 1)
    with open("/proc/sys/user/max_user_namespaces", "w") as f:
        f.write("0\n")


def op(code, yes, no, k):
    return struct.pack("HBBI", code, yes, no, k)


def install(*program):
    program = b"".join(program)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)), 16)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0):
        sys.exit("no seccomp: %s" % os.strerror(ctypes.get_errno()))


def by_filter():
    install(op(LD_W_ABS, 0, 0, NUMBER),
            op(JEQ, 0, 1, NR_UNSHARE), op(RET, 0, 0, ERRNO | EPERM),
            op(JEQ, 0, 1, NR_CLONE3), op(RET, 0, 0, ERRNO | ENOSYS),
            op(JEQ, 0, 3, NR_CLONE), op(LD_W_ABS, 0, 0, ARGUMENT_0),
            op(JSET, 0, 1, CLONE_NEWUSER), op(RET, 0, 0, ERRNO | EPERM),
            op(RET, 0, 0, ALLOW))


def without_uso():
    install(op(LD_W_ABS, 0, 0, NUMBER), op(JEQ, 0, 5, NR_IOCTL),
            op(LD_W_ABS, 0, 0, ARGUMENT_1), op(JEQ, 0, 3, TUNSETOFFLOAD),
            op(LD_W_ABS, 0, 0, ARGUMENT_2), op(JSET, 0, 1, USO4_USO6), op(RET, 0, 0, ERRNO | EINVAL),
            op(RET, 0, 0, ALLOW))


def without_bpf():
    install(op(LD_W_ABS, 0, 0, NUMBER), op(JEQ, 0, 1, NR_BPF), op(RET, 0, 0, ERRNO | EPERM), op(RET, 0, 0, ALLOW))


def without_landlock():
    install(op(LD_W_ABS, 0, 0, NUMBER), op(JEQ, 0, 1, NR_LANDLOCK), op(RET, 0, 0, ERRNO | ENOSYS), op(RET, 0, 0, ALLOW))


def without_seccomp():
    install(op(LD_W_ABS, 0, 0, NUMBER), op(JEQ, 0, 1, NR_SECCOMP), op(RET, 0, 0, ERRNO | EINVAL),
            op(JEQ, 0, 3, NR_PRCTL), op(LD_W_ABS, 0, 0, ARGUMENT_0), op(JEQ, 0, 1, PR_SET_SECCOMP), op(RET, 0, 0, ERRNO | EINVAL),
            op(RET, 0, 0, ALLOW))


{"count": by_count, "filter": by_filter, "uso": without_uso, "bpf": without_bpf,
 "landlock": without_landlock, "seccomp": without_seccomp}[sys.argv[1]]()
os.execvp(sys.argv[2], sys.argv[2:])
