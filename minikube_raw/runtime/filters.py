"""OCI's linux.seccomp compiled to the kernel's filter, by libseccomp, here in the kubelet and nowhere else.

Compiling takes some milliseconds, so results are kept, by the digest of what they depend on, as long as the process (and
with it the library) lives; launcher, keepers and
containers get bytes and know no library. A short programme of our own goes before libseccomp's: system calls newer than
every name in the profile answer ENOSYS instead of the profile's refusal, as under runc (a C library that meets EPERM
believes that it may not, one that meets ENOSYS uses the older call).
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from functools import cache
from types import ModuleType
from typing import Any

import msgspec

from minikube_raw.linux import capabilities

from . import seccomp_default
from .cri import RuntimeServiceError

Json = dict[str, Any]

_OPERATORS = {"NE": "NE", "LT": "LT", "LE": "LE", "EQ": "EQ", "GE": "GE", "GT": "GT", "MASKED_EQ": "MASKED_EQ"}
_BINARY_TREE = 2  # SCMP_FLTATR_CTL_OPTIMIZE: a search tree over the numbers instead of a list
_CTL_OPTIMIZE = 8
_X32_BIT = 0x40000000
# AUDIT_ARCH_… (linux/audit.h) of the architectures that a node of ours may meet; x32 shares that of x86_64.
_AUDIT = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
# Instructions of classic BPF (linux/bpf_common.h, linux/filter.h).
_LOAD, _EQUAL, _AT_LEAST, _MORE, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x06
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_RET_ERRNO = 0x00050000

_compiled: dict[bytes, bytes] = {}


def compile(document: Json) -> bytes:
    """Returns the programme (struct sock_filter, one after the other) of OCI's linux.seccomp.

    Raises RuntimeServiceError (CreateContainerError) for what libseccomp does not know, and where it is not installed.
    """
    key = hashlib.sha256(msgspec.json.encode((document, os.uname().machine))).digest()
    known = _compiled.get(key)
    if known is None:
        known = _compiled[key] = _compile(document)
    return known


def warm_up() -> None:
    """Compiles what most containers will have, so that no pod waits for it. Raises as compile() does."""
    compile(seccomp_default.document(capabilities.DEFAULT, os.uname().machine))


@cache
def _library() -> ModuleType:
    """Imported when the first filter is compiled: finding the library runs ldconfig, which takes 20 ms."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        text = f"seccomp needs libseccomp (apt install libseccomp2): {error}"
        raise RuntimeServiceError("CreateContainerError", text) from None
    library: ModuleType = pyseccomp
    return library


def _compile(document: Json) -> bytes:
    library = _library()
    try:
        default = _action(library, document["defaultAction"], document.get("defaultErrnoRet"))
        built = library.SyscallFilter(default)
        built.set_attr(_CTL_OPTIMIZE, _BINARY_TREE)
        for name in document.get("architectures") or ():
            if not built.exist_arch(_architecture(library, name)):  # the native one is there from the start
                built.add_arch(_architecture(library, name))
        for rule in document.get("syscalls") or ():
            _add(library, built, rule, default)
        return _stub(library, document) + _exported(built)
    except (OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise RuntimeServiceError("CreateContainerError", f"seccomp profile cannot be compiled: {error}") from error


def _exported(built: Any) -> bytes:
    memory = os.memfd_create("seccomp")
    try:
        with os.fdopen(memory, "w+b", closefd=False) as file:
            built.export_bpf(file)
        return os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)


def _architecture(library: ModuleType, name: str) -> int:
    number: int = getattr(library.Arch, name.removeprefix("SCMP_ARCH_"))
    return number


def _action(library: ModuleType, name: str, errno_ret: int | None) -> int:
    value = errno.EPERM if errno_ret is None else errno_ret
    plain = name.removeprefix("SCMP_ACT_")
    if plain in ("ERRNO", "TRACE"):
        made: int = getattr(library, plain)(value)
        return made
    if plain in ("ALLOW", "KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "LOG"):
        constant: int = getattr(library, plain)
        return constant
    raise ValueError(f"action {name} is not supported")


def _add(library: ModuleType, built: Any, rule: Json, default: int) -> None:
    """Adds a rule for each of its names; names that this libseccomp does not know are passed over, as runc does."""
    action = _action(library, rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    conditions = [
        library.Arg(each["index"], _operator(library, each["op"]), each["value"], each.get("valueTwo", 0))
        for each in rule.get("args") or ()
    ]
    indices = [each["index"] for each in rule.get("args") or ()]
    for name in rule["names"]:
        if library.resolve_syscall(library.Arch.NATIVE, name) == -1:  # __NR_SCMP_ERROR
            continue
        if len(set(indices)) == len(indices):
            built.add_rule(action, name, *conditions)
        else:  # libseccomp takes an argument once a rule: one rule each, any of which suffices
            for condition in conditions:
                built.add_rule(action, name, condition)


def _operator(library: ModuleType, name: str) -> int:
    number: int = getattr(library, _OPERATORS[name.removeprefix("SCMP_CMP_")])
    return number


def _stub(library: ModuleType, document: Json) -> bytes:
    """Returns what goes before libseccomp's programme; nothing for a profile that allows what it does not name."""
    if document["defaultAction"] in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"):
        return b""
    names = {name for rule in document.get("syscalls") or () for name in rule["names"]}
    architectures = document.get("architectures") or []
    x32 = _newest(library, names, "SCMP_ARCH_X32") if "SCMP_ARCH_X32" in architectures else 0
    code = b""
    for name in architectures:
        newest = _newest(library, names, name)
        if name in _AUDIT and newest > 0:
            code += _newer_is_unknown(_AUDIT[name], newest, x32 if name == "SCMP_ARCH_X86_64" else 0)
    return code


def _newest(library: ModuleType, names: set[str], architecture: str) -> int:
    number = _architecture(library, architecture)
    return max((library.resolve_syscall(number, name) for name in names), default=0)


def _newer_is_unknown(audit: int, newest: int, x32: int) -> bytes:
    """One architecture: above its newest number (and above x32's among those with its bit) the answer is ENOSYS."""
    refuse = _instruction(_RETURN, _RET_ERRNO | errno.ENOSYS)
    tests = [_instruction(_MORE, newest, otherwise=1)]
    if x32:
        tests = [
            _instruction(_AT_LEAST, _X32_BIT, otherwise=1),
            _instruction(_MORE, x32, then=1, otherwise=2),
            *tests,
        ]
    body = [_instruction(_LOAD, _NUMBER), *tests, refuse]
    head = [_instruction(_LOAD, _ARCHITECTURE), _instruction(_EQUAL, audit, otherwise=len(body))]
    return b"".join([*head, *body])


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """struct sock_filter; the jumps count instructions to pass over."""
    return struct.pack("=HBBI", code, then, otherwise, value)
