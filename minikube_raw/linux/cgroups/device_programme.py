"""The eBPF programme (BPF_PROG_TYPE_CGROUP_DEVICE) that decides about devices, and the bpf(2) calls to attach it.

assemble() is pure: rules in, instructions out. The kernel calls the programme with the access, kind, major and minor
of each open and mknod; it returns 1 for yes, 0 for no (struct bpf_cgroup_dev_ctx, linux/bpf.h).
"""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import c_int, c_uint, c_void_p

from minikube_raw.linux.syscalls import bind_syscall, checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .devices import DeviceRule

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2

# Opcodes of the instructions used, linux/bpf_common.h and linux/bpf.h.
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOVE = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_MOVE_CONSTANT = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_AND_CONSTANT = 0x57  # BPF_ALU64 | BPF_AND | BPF_K
_SHIFT_RIGHT = 0x77  # BPF_ALU64 | BPF_RSH | BPF_K
_JUMP_UNLESS_EQUAL = 0x5D  # BPF_JMP | BPF_JNE | BPF_X
_JUMP_UNLESS_CONSTANT = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_EXIT = 0x95  # BPF_JMP | BPF_EXIT

_RESULT, _CONTEXT, _KIND, _ACCESS, _MAJOR, _MINOR = range(6)  # registers r0 to r5
_KINDS = {"b": 1, "c": 2}
_ACCESSES = {"m": 1, "r": 2, "w": 4}

_bpf = bind_syscall("bpf", c_int, c_void_p, c_uint)


def assemble(allowed: Sequence[DeviceRule]) -> bytes:
    """Returns the programme that says yes to what one of the rules allows entirely, else no."""
    code = [
        _instruction(_LOAD_WORD, _KIND, _CONTEXT, offset=0),
        _instruction(_MOVE, _ACCESS, _KIND),
        _instruction(_AND_CONSTANT, _KIND, constant=0xFFFF),
        _instruction(_SHIFT_RIGHT, _ACCESS, constant=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, offset=4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, offset=8),
    ]
    for rule in allowed:
        code += _rule(rule)
    return b"".join([*code, *_return(0)])


def _rule(rule: DeviceRule) -> list[bytes]:
    """Returns the tests of one rule; each that fails jumps over the rest to the next rule."""
    tests: list[tuple[int, int, int]] = []  # opcode, register, constant
    if rule.kind in _KINDS:
        tests.append((_JUMP_UNLESS_CONSTANT, _KIND, _KINDS[rule.kind]))
    for register, wanted in ((_MAJOR, rule.major), (_MINOR, rule.minor)):
        if wanted is not None:
            tests.append((_JUMP_UNLESS_CONSTANT, register, wanted))
    mask = sum(_ACCESSES[letter] for letter in set(rule.access))
    access = [
        _instruction(_MOVE, _RESULT, _ACCESS),
        _instruction(_AND_CONSTANT, _RESULT, constant=mask),
        _instruction(_JUMP_UNLESS_EQUAL, _RESULT, _ACCESS, offset=2),
    ]
    rest = [*access, *_return(1)]
    jumps = [
        _instruction(opcode, register, offset=len(tests) - 1 - index + len(rest), constant=constant)
        for index, (opcode, register, constant) in enumerate(tests)
    ]
    return [*jumps, *rest]


def _return(value: int) -> list[bytes]:
    return [_instruction(_MOVE_CONSTANT, _RESULT, constant=value), _instruction(_EXIT)]


def _instruction(opcode: int, target: int = 0, source: int = 0, *, offset: int = 0, constant: int = 0) -> bytes:
    """struct bpf_insn; x86_64 and aarch64 are little-endian, so the target register is the low half of its byte."""
    return struct.pack("<BBhi", opcode, source << 4 | target, offset, constant)


def replace(cgroup_fd: int, programme: bytes) -> None:
    """Loads and attaches a programme to a unified cgroup directory, then detaches the ones before it.

    In this order a process is never without a filter: the kernel allows only what all attached programmes allow.
    """
    before = _attached(cgroup_fd)
    loaded = _load(programme)
    try:
        _call(
            "BPF_PROG_ATTACH",
            BPF_PROG_ATTACH,
            struct.pack("=IIII", cgroup_fd, loaded, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI),
        )
    finally:
        os.close(loaded)
    for programme_id in before:
        old = _call("BPF_PROG_GET_FD_BY_ID", BPF_PROG_GET_FD_BY_ID, struct.pack("=III", programme_id, 0, 0))
        try:
            _call("BPF_PROG_DETACH", BPF_PROG_DETACH, struct.pack("=IIII", cgroup_fd, old, BPF_CGROUP_DEVICE, 0))
        finally:
            os.close(old)


def _load(programme: bytes) -> int:
    instructions = ctypes.create_string_buffer(programme, len(programme))
    licence = ctypes.create_string_buffer(b"Apache-2.0")  # calls no helper that is for GPL programmes only
    count, code, licence_text = len(programme) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)
    attributes = struct.pack("=IIQQ", BPF_PROG_TYPE_CGROUP_DEVICE, count, code, licence_text)
    return _call("BPF_PROG_LOAD", BPF_PROG_LOAD, attributes)


def _attached(cgroup_fd: int) -> list[int]:
    """Returns the ids of the device programmes attached to this very directory."""
    ids = (ctypes.c_uint32 * 64)()
    attributes = struct.pack("=IIIIQI4x", cgroup_fd, BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), len(ids))
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    checked("bpf", "BPF_PROG_QUERY", _bpf, BPF_PROG_QUERY, ctypes.addressof(buffer), len(attributes))
    (count,) = struct.unpack_from("=I", buffer.raw, 24)
    return list(ids[:count])


def _call(what: str, command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return checked("bpf", what, _bpf, command, ctypes.addressof(buffer), len(attributes))
