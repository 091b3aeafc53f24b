"""Signal dispositions and masks: what a program expects to find when it starts.

Python ignores SIGPIPE and SIGXFSZ, and an ignored signal stays ignored across exec: without reset() every shell
pipeline in a container breaks. The standard library's signal module brings enum (5 ms, 800 kB), so its C core is used here.
"""

from __future__ import annotations

import _signal
import ctypes
from ctypes import c_int, c_long, c_void_p

from .syscalls import bind, bind_syscall, checked

HIGHEST = 64
SIG_SETMASK = 2

# In order from 1, as x86_64 and aarch64 number them (signal(7)).
_NAMES = """
HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ
VTALRM PROF WINCH IO PWR SYS
"""
NUMBERS: dict[str, int] = {f"SIG{name}": number for number, name in enumerate(_NAMES.split(), start=1)}
SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGTERM, SIGCHLD, SIGSTOP, SIGWINCH = (
    NUMBERS[name] for name in ("SIGHUP", "SIGINT", "SIGKILL", "SIGPIPE", "SIGTERM", "SIGCHLD", "SIGSTOP", "SIGWINCH")
)

_rt_sigaction = bind_syscall("rt_sigaction", c_int, c_void_p, c_void_p, c_long)
_DEFAULT_ACTION = ctypes.create_string_buffer(
    32
)  # struct sigaction as the kernel has it: SIG_DFL, no flags, empty mask
_KERNEL_MASK_SIZE = 8
_pthread_sigmask = bind("pthread_sigmask", c_int, c_void_p, c_void_p)
_EMPTY_MASK = ctypes.create_string_buffer(128)  # sigset_t


def number(name: str) -> int:
    """Returns a signal's number by name, with or without SIG ("TERM", "SIGRTMIN+3"), or by digits; else ValueError."""
    upper = name.upper()
    if upper.isdigit() and 0 < int(upper) <= HIGHEST:
        return int(upper)
    full = upper if upper.startswith("SIG") else f"SIG{upper}"
    base, _, offset = full.partition("+")
    if base == "SIGRTMIN" and (not offset or offset.isdigit()) and int(offset or 0) <= 30:
        return 34 + int(offset or 0)
    if full not in NUMBERS:
        raise ValueError(f"unknown signal {name}")
    return NUMBERS[full]


def reset() -> None:
    """Gives every signal its default action and blocks none; for a process that is about to exec, or to start anew.

    Python's own table of handlers is not told: a process that lives on installs what it needs afterwards.
    """
    action = ctypes.addressof(_DEFAULT_ACTION)
    for signal_number in range(1, HIGHEST + 1):
        # Past glibc, which refuses 32 and 33: whoever started us may ignore them, and musl's threads live by them.
        # EINVAL is expected for SIGKILL and SIGSTOP.
        _rt_sigaction(signal_number, action, None, _KERNEL_MASK_SIZE)
    unblock_all()


def unblock_all() -> None:
    """Empties the signal mask of the calling thread."""
    checked("rt_sigprocmask", "empty", _pthread_sigmask, SIG_SETMASK, ctypes.addressof(_EMPTY_MASK), None)


def ignore(signal_number: int) -> None:
    """Ignores a signal in this process and its children until exec. For SIGCHLD the kernel then reaps children by itself."""
    _signal.signal(signal_number, _signal.SIG_IGN)


def wake_on(signal_number: int, fd: int) -> None:
    """Has a byte written to `fd` (non-blocking) whenever the signal arrives, and nothing else done."""
    _signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    _signal.signal(signal_number, _nothing)


def _nothing(_number: int, _frame: object) -> None:
    pass


def stop_waking() -> None:
    """Ends wake_on() in a forked child, whose descriptor is its parent's: no signal is handled by Python any more."""
    _signal.set_wakeup_fd(-1)
    _signal.signal(SIGCHLD, _signal.SIG_DFL)


def wait() -> None:
    """pause(2): sleeps until a signal arrives."""
    _signal.pause()
