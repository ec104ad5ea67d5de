"""The system calls a cell may make: two allow-lists, compiled in the registry, loaded in the cell.

`bubblewrap` loads the outer filter before the cell's first instruction; it still lets the cell start Python and give up its user.
The inner one is loaded by the cell itself once it has (`confine.py`), before anything third-party is imported: no program is run
and no process is made after that. What is not on a list fails with ENOSYS, as on an older kernel, because libraries cope with
that; what is plainly an attack fails with EPERM.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import JailMissing

if TYPE_CHECKING:
    from collections.abc import Iterable

_FILES = """access close close_range dup dup2 dup3 faccessat faccessat2 fadvise64 fstat fstatfs getcwd getdents64 lseek lstat
newfstatat open openat pread64 preadv preadv2 read readahead readlink readlinkat readv stat statfs statx write writev"""
_MEMORY = """brk get_mempolicy madvise mbind membarrier mincore mlock mlock2 mprotect munlock munmap pkey_alloc pkey_free
pkey_mprotect set_mempolicy"""
_THREADS = """exit exit_group futex futex_waitv get_robust_list getcpu getpid getppid gettid restart_syscall rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_setaffinity sched_yield set_robust_list set_tid_address
sigaltstack tgkill arch_prctl"""
_TIME = """clock_getres clock_gettime clock_nanosleep getitimer getrusage gettimeofday nanosleep time times"""
_WAITING = """epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd2 pipe pipe2 poll ppoll pselect6 select"""
_INHERITED_SOCKET = """getpeername getsockname getsockopt recvfrom recvmsg sendmsg sendto shutdown"""
_FACTS = """capget getegid geteuid getgid getgroups getpgrp getpriority getrandom getresgid getresuid getrlimit getsid getuid
sysinfo uname"""
_STARTING = """capset execve prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self setgroups setresgid
setresuid prlimit64 setrlimit wait4 waitid"""
_ATTACKS = """accept accept4 add_key adjtimex bind bpf chroot clock_settime connect delete_module execveat fanotify_init
finit_module fsconfig fsmount fsopen init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load
kexec_load keyctl listen memfd_create memfd_secret mknod mknodat mount mount_setattr move_mount mremap name_to_handle_at
open_by_handle_at open_tree perf_event_open personality pidfd_getfd pidfd_open pidfd_send_signal pivot_root process_madvise
process_vm_readv process_vm_writev ptrace quotactl reboot request_key sethostname setns settimeofday shmat shmget socket
socketpair swapoff swapon syslog umount2 unshare userfaultfd"""
_MORE_PROCESSES = """fork vfork kill"""

ALLOWED = tuple(f"{_FILES} {_MEMORY} {_THREADS} {_TIME} {_WAITING} {_INHERITED_SOCKET} {_FACTS}".split())
"""What PyTorch, transformers and tokenizers were seen to use on a CPU, and their near relatives."""
STARTING = tuple(_STARTING.split())
"""What only the outer filter allows: to start Python, to confine it, and to wait for it."""
ATTACKS = tuple(_ATTACKS.split())
"""Refused by name, and tried by each cell on itself; the list adds nothing to the allow-list but a plainer error."""

_MAP_GROWSDOWN = 0x0100
_CLONE_THREAD = 0x00010000
_CLONE_NEW_NAMESPACE = 0x7E020000 | 0x00000080
_HARMLESS_PRCTL = {
    "PR_GET_PDEATHSIG": 2,
    "PR_GET_DUMPABLE": 3,
    "PR_SET_NAME": 15,
    "PR_GET_NAME": 16,
    "PR_GET_SECCOMP": 21,
    "PR_CAPBSET_READ": 23,
    "PR_GET_NO_NEW_PRIVS": 39,
    "PR_SET_VMA": 0x53564D41,
}
_HARMLESS_IOCTL = {
    "TCGETS": 0x5401,
    "TIOCGWINSZ": 0x5413,
    "FIONREAD": 0x541B,
    "FIONBIO": 0x5421,
    "FIONCLEX": 0x5450,
    "FIOCLEX": 0x5451,
}
_HARMLESS_FCNTL = {
    "F_DUPFD": 0,
    "F_GETFD": 1,
    "F_SETFD": 2,
    "F_GETFL": 3,
    "F_SETFL": 4,
    "F_DUPFD_CLOEXEC": 1030,
    "F_GETPIPE_SZ": 1032,
    "F_GET_SEALS": 1034,
}
"""No locks: each byte that is locked, and be it of a file that is read, is memory of the kernel's, which no limit counts."""
_MAPPING = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_GROWSDOWN
"""Flags that tell by which limit, if any, a mapping counts."""
_COUNTED = (0, mmap.MAP_ANONYMOUS, mmap.MAP_SHARED)
"""Private memory, which RLIMIT_DATA counts, and a file or a device, shared."""
_UNCOUNTED = (mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, _MAP_GROWSDOWN)
"""Shared anonymous memory, and what is marked as a stack; a stack that is moved (`mremap`) may grow beyond its own limit, too.

On a CPU nothing was seen to need them; an allocator that cannot move a block copies it. A GPU's driver maps its device nodes,
shared. It may also want shared anonymous memory for what both processors read: that was not seen, as no cell ran on a GPU yet.
Such a cell would not start, rather than start without its limit.
"""
_LOW_32 = 0xFFFFFFFF
"""The kernel reads the number of an ioctl or fcntl from the low half of its register, so the filter must too."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Two classic BPF programs, as the kernel takes them."""

    outer: bytes
    inner: bytes


@functools.cache
def filters(*, device_control: bool = False) -> Filters:
    """Compile both filters; once per process and kind, as it takes some milliseconds.

    Args:
        device_control: Let every ioctl pass, as a GPU's driver needs; Landlock still names the device nodes.

    Raises:
        JailMissing: libseccomp is not installed.
    """
    try:
        import pyseccomp  # noqa: F401 - it looks for libseccomp when it is imported
    except (ImportError, RuntimeError, OSError) as error:
        msg = "libseccomp is missing, so cells cannot be jailed; install it (Debian: `apt install libseccomp2`)."
        raise JailMissing(msg) from error
    return Filters(*(_program(starting=starting, device_control=device_control) for starting in (True, False)))


def numbers(names: Iterable[str]) -> dict[str, int]:
    """Look up the system call numbers of this machine; names it lacks are left out."""
    import pyseccomp as sec

    found = {name: sec.resolve_syscall(sec.system_arch(), name) for name in names}
    return {name: number for name, number in found.items() if number >= 0}


def _program(*, starting: bool, device_control: bool) -> bytes:
    import pyseccomp as sec

    rules = sec.SyscallFilter(sec.ERRNO(errno.ENOSYS))
    rules.set_attr(sec.Attr.CTL_OPTIMIZE, 2)  # a binary tree: the cost of a call does not grow with the list

    def add(action: int, name: str, *conditions: object) -> None:
        # Architectures differ in what they have; a name this one lacks needs no rule.
        if sec.resolve_syscall(sec.system_arch(), name) >= 0:
            rules.add_rule_exactly(action, name, *conditions)

    for name in (*ALLOWED, *(STARTING if starting else ())):
        add(sec.ALLOW, name)
    for name in (*ATTACKS, *_MORE_PROCESSES.split()):
        add(sec.ERRNO(errno.EPERM), name)
    thread = sec.Arg(0, sec.MASKED_EQ, _CLONE_THREAD | _CLONE_NEW_NAMESPACE, _CLONE_THREAD)
    add(sec.ALLOW, "clone", thread)
    add(sec.ERRNO(errno.EPERM), "clone", sec.Arg(0, sec.MASKED_EQ, _CLONE_THREAD, 0))
    mappings = [(sec.ALLOW, _MAPPING, flags) for flags in _COUNTED]
    mappings += [(sec.ERRNO(errno.EPERM), flags, flags) for flags in _UNCOUNTED]
    for action, mask, flags in mappings:
        add(action, "mmap", sec.Arg(3, sec.MASKED_EQ, mask, flags))
    if device_control:
        add(sec.ALLOW, "ioctl")
    controls = [("fcntl", _HARMLESS_FCNTL), ("ioctl", {} if device_control else _HARMLESS_IOCTL)]
    for name, number in ((name, number) for name, harmless in controls for number in harmless.values()):
        add(sec.ALLOW, name, sec.Arg(1, sec.MASKED_EQ, _LOW_32, number))
    if not starting:
        add(sec.ERRNO(errno.EPERM), "execve")
        add(sec.ALLOW, "prlimit64", sec.Arg(2, sec.EQ, 0))  # reading a limit, not setting one
        for value in _HARMLESS_PRCTL.values():
            add(sec.ALLOW, "prctl", sec.Arg(0, sec.EQ, value))
    scratch = os.memfd_create("filter", os.MFD_CLOEXEC)
    with os.fdopen(scratch, "w+b") as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
