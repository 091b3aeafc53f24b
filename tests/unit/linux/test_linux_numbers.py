"""Our numbers beside the kernel headers' (linux-libc-dev): system calls per architecture, flags, capabilities, signals."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from minikube_raw.linux import capabilities, mount_calls, namespaces, path_walk, process, signals, syscalls

INCLUDE = Path("/usr/include")
HEADERS = {
    "x86_64": [INCLUDE / "x86_64-linux-gnu/asm/unistd_64.h"],
    "aarch64": [INCLUDE / "asm-generic/unistd.h"],
}
pytestmark = pytest.mark.skipif(not (INCLUDE / "linux/mount.h").exists(), reason="needs linux-libc-dev's headers")


def definitions(*headers: Path) -> dict[str, int]:
    """Returns the plain numbers a header defines: `#define NAME 12`, `NAME = 12`, with << and 0x."""
    found: dict[str, int] = {}
    pattern = re.compile(
        r"^\s*(?:#\s*define\s+)?(\w+)\s*=?\s*\(?\s*((?:0x[0-9a-fA-F]+|\d+)(?:U?L{0,2})(?:\s*<<\s*\d+)?)\s*\)?", re.M
    )
    for header in headers:
        for name, value in pattern.findall(header.read_text()):
            number, _, shift = value.partition("<<")
            found.setdefault(name, int(number.strip().rstrip("UL"), 0) << int(shift or 0))
    return found


@pytest.mark.parametrize("machine", sorted(syscalls.NUMBERS))
def test_system_calls_have_the_numbers_of_the_kernels_headers(machine: str) -> None:
    header = next((path for path in HEADERS[machine] if path.exists()), None)
    if header is None:
        pytest.skip(f"no header for {machine} here")
    kernel = definitions(header)
    ours = syscalls.NUMBERS[machine] | syscalls.COMMON_NUMBERS
    assert {name: kernel[f"__NR_{name}"] for name in ours} == ours


def test_both_architectures_know_the_same_calls() -> None:
    assert {frozenset(numbers) for numbers in syscalls.NUMBERS.values()} == {frozenset(syscalls.NUMBERS["x86_64"])}


def test_a_call_without_a_number_says_so() -> None:
    with pytest.raises(NotImplementedError, match="nonsense"):
        syscalls.number("nonsense")


@pytest.mark.parametrize(
    ("module", "prefixes", "headers"),
    [
        (mount_calls, ("MS_", "MOUNT_ATTR_", "FSCONFIG_", "OPEN_TREE_CLONE"), ["mount.h"]),
        (namespaces, ("CLONE_",), ["sched.h"]),
        (path_walk, ("RESOLVE_",), ["openat2.h"]),
        (process, ("PR_", "KEYCTL_"), ["prctl.h", "keyctl.h"]),
        (capabilities, ("CAP_", "PR_"), ["capability.h", "prctl.h"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_constants_have_the_values_of_the_kernels_headers(
    module: object, prefixes: tuple[str, ...], headers: list[str]
) -> None:
    kernel = definitions(*(INCLUDE / "linux" / header for header in headers))
    ours = {name: value for name, value in vars(module).items() if name.startswith(prefixes) and isinstance(value, int)}
    known = {name: value for name, value in ours.items() if name in kernel}
    assert len(known) >= len(ours) * 0.8  # a few are defined by expressions
    assert {name: kernel[name] for name in known} == known


def test_capabilities_are_in_the_kernels_order() -> None:
    kernel = definitions(INCLUDE / "linux/capability.h")
    assert {name: kernel[name] for name in capabilities.NAMES} == capabilities.NUMBERS


def test_signals_have_the_numbers_of_the_standard_library() -> None:
    assert {name: int(signal.Signals[name]) for name in signals.NUMBERS} == signals.NUMBERS
