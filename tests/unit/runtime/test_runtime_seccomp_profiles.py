"""Which profile a container has: the default by its capabilities, a file in Docker's or the OCI's words, or none."""

from __future__ import annotations

from typing import Any

import pytest

from minikube_raw.runtime import filters, seccomp, seccomp_default
from minikube_raw.runtime.cri import ProfileType, RuntimeServiceError, SecurityContext, SecurityProfile


def allowed(capabilities: tuple[str, ...], machine: str = "x86_64") -> set[str]:
    rules = seccomp_default.document(capabilities, machine)["syscalls"]
    return {
        name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule for name in rule["names"]
    }


@pytest.mark.parametrize(
    ("capabilities", "names"),
    [
        ((), {"read", "ptrace", "process_vm_readv", "futex_waitv", "arch_prctl"}),
        (("CAP_SYS_ADMIN",), {"mount", "clone", "clone3", "unshare", "setns", "bpf"}),
        (("CAP_SYS_CHROOT",), {"chroot"}),
        (("CAP_SYS_NICE",), {"mbind"}),
        (("CAP_BPF",), {"bpf"}),
        (("CAP_SYS_TIME",), {"clock_settime"}),
    ],
)
def test_a_capability_brings_its_system_calls(capabilities: tuple[str, ...], names: set[str]) -> None:
    assert names <= allowed(capabilities)


def test_without_capabilities_what_they_are_for_is_not_allowed() -> None:
    refused = {name for names in seccomp_default.BY_CAPABILITY.values() for name in names}
    assert not allowed(()) & refused
    assert not allowed(()) & {
        "keyctl",
        "add_key",
        "request_key",
        "io_uring_setup",
        "userfaultfd",
        "kexec_load",
        "swapon",
    }


def test_each_system_call_stands_in_the_table_once() -> None:
    assert len(seccomp_default.ALWAYS) == len(set(seccomp_default.ALWAYS))


@pytest.mark.parametrize("security", [
    SecurityContext(privileged=True),
    SecurityContext(seccomp=SecurityProfile(ProfileType.UNCONFINED)),
])  # fmt: skip
def test_privileged_and_unconfined_containers_have_none(security: SecurityContext) -> None:
    assert seccomp.document(security, (), "x86_64") is None


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({}, True),
        ({"includes": {"caps": ["CAP_BPF"]}}, True),
        ({"includes": {"caps": ["CAP_BPF", "CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_BPF"]}}, False),
        ({"includes": {"arches": ["amd64"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "6.13"}}, False),
        ({"excludes": {"minKernel": "6.12"}}, False),
    ],
)
def test_dockers_conditions_are_decided(rule: dict[str, Any], kept: bool) -> None:
    found = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"name": "read", "action": "SCMP_ACT_ALLOW", **rule}]}
    rules = seccomp.resolve(found, ["CAP_BPF"], "x86_64", "6.12.3-generic")["syscalls"]
    assert rules == ([{"names": ["read"], "action": "SCMP_ACT_ALLOW"}] if kept else [])


@pytest.mark.parametrize(
    "document",
    [
        {"defaultAction": "SCMP_ACT_MAYBE"},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]},
    ],
)
def test_a_profile_that_makes_no_sense_is_an_error_and_no_crash(document: dict[str, Any]) -> None:
    with pytest.raises(RuntimeServiceError, match="seccomp profile cannot be compiled"):
        filters.compile(document)


def test_a_filter_is_compiled_once() -> None:
    document = seccomp_default.document(["CAP_CHOWN"], "x86_64")
    assert filters.compile(document) is filters.compile(dict(document))
