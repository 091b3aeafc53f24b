"""libc and raw system calls by ctypes: bound once at import, called and checked in one place.

Nothing above this package sees ctypes. Every symbol is looked up here and now, so that a process which has already
pivoted into a container's file system can call all of it without a dlopen, an import or a look-up. Numbers below 424
differ between architectures; from 424 on (2019) all Linux architectures count alike.
"""

from __future__ import annotations

import ctypes
import os

from . import steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

# Numbers that differ, by machine as uname(2) names it: asm/unistd_64.h (x86_64), asm-generic/unistd.h (aarch64).
NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "rt_sigaction": 13,
        "clone": 56,
        "capget": 125,
        "capset": 126,
        "pivot_root": 155,
        "keyctl": 250,
        "ioprio_set": 251,
        "seccomp": 317,
        "bpf": 321,
    },
    "aarch64": {
        "ioprio_set": 30,
        "pivot_root": 41,
        "capget": 90,
        "capset": 91,
        "rt_sigaction": 134,
        "keyctl": 219,
        "clone": 220,
        "seccomp": 277,
        "bpf": 280,
    },
}
COMMON_NUMBERS: dict[str, int] = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}
MACHINE = os.uname().machine


def number(name: str) -> int:
    """Returns the system call's number on this machine's architecture."""
    try:
        return COMMON_NUMBERS.get(name) or NUMBERS[MACHINE][name]
    except KeyError:
        raise NotImplementedError(
            f"system call {name} has no number for {MACHINE} in minikube_raw/linux/syscalls.py"
        ) from None


libc = ctypes.CDLL(None, use_errno=True)
# Calls through this handle keep the interpreter's lock, as fork-like calls must: no other thread lives on in the child.
libc_holding_gil = ctypes.PyDLL(None, use_errno=True)


def bind(name: str, *argtypes: Any, restype: Any = ctypes.c_int, library: ctypes.CDLL = libc) -> Callable[..., int]:
    """Binds a libc function with its argument types; each call of bind gives a binding of its own."""
    function = library[name]
    function.argtypes = argtypes
    function.restype = restype
    return function


def bind_syscall(name: str, *argtypes: Any, library: ctypes.CDLL = libc) -> Callable[..., int]:
    """Binds a raw system call, for those that libc wraps not at all or only in newer releases."""
    function = library["syscall"]
    function.argtypes = (ctypes.c_long, *argtypes)
    function.restype = ctypes.c_long
    call_number = number(name)

    def call(*arguments: object) -> int:
        result: int = function(call_number, *arguments)
        return result

    return call


def raise_errno(call: str, *paths: object) -> NoReturn:
    """Raises the OSError for libc's errno: its text names the call, its filename the first path."""
    code = ctypes.get_errno()
    text = f"{call}: {os.strerror(code)}"
    if len(paths) > 1:
        raise OSError(code, text, paths[0], None, paths[1])
    raise OSError(code, text, *paths)


def checked(
    call: str,
    subject: object,
    function: Callable[..., int],
    *arguments: object,
    step: tuple[object, ...] | None = None,
) -> int:
    """Calls `function` and records the step; a negative result raises OSError naming `call` and `subject`.

    `step` are the call's arguments for the trace, where the subject alone would not say what was done.
    """
    began = steps.begin()
    result = function(*arguments)
    steps.end(began, call, subject if step is None else step)
    if result < 0:
        raise_errno(call, subject)
    return result
