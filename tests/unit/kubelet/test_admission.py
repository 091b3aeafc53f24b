"""What a node refuses, with the texts of a real kubelet."""

from __future__ import annotations

from typing import Any

import pytest
from pod_builders import pod

from minikube_raw.kubelet.admission import HostSecurity, refusal


@pytest.mark.parametrize(
    ("name", "spec", "wanted"),
    [
        ("net.ipv4.ip_unprivileged_port_start", {}, None),
        ("kernel/shm_rmid_forced", {}, None),
        ("net.core.somaxconn", {}, 'forbidden sysctl: "net.core.somaxconn" not allowlisted'),
        ("kernel.core_pattern", {}, 'forbidden sysctl: "kernel.core_pattern" not allowlisted'),
        ("kernel/core_pattern", {}, 'forbidden sysctl: "kernel.core_pattern" not allowlisted'),
        ("vm.overcommit_memory", {}, 'forbidden sysctl: "vm.overcommit_memory" not allowlisted'),
        (
            "net.ipv4.tcp_syncookies",
            {"hostNetwork": True},
            'forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host Net enabled',
        ),
        (
            "kernel.shm_rmid_forced",
            {"hostIPC": True},
            'forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host IPC enabled',
        ),
    ],
)
def test_only_safe_sysctls_of_the_pods_own_namespaces_are_admitted(
    name: str, spec: dict[str, Any], wanted: str | None
) -> None:
    found = refusal(pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **spec))

    assert (found and (found.reason, found.message)) == (wanted and ("SysctlForbidden", wanted))


@pytest.mark.parametrize(
    ("allowed", "admitted"),
    [
        ((), False),
        (("kernel.sem",), False),
        (("kernel.msgmax",), True),
        (("kernel.msg*",), True),
        (("kernel.*",), True),
    ],
)
def test_a_node_may_allow_sysctls_that_are_not_safe(allowed: tuple[str, ...], admitted: bool) -> None:
    wish = pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]})
    found = refusal(wish, HostSecurity(allowed_unsafe_sysctls=allowed))
    assert (found is None) is admitted


def test_the_hosts_message_queues_are_not_set_by_a_pod_that_shares_them() -> None:
    wish = pod(hostIPC=True, securityContext={"sysctls": [{"name": "fs/mqueue/msg_max", "value": "100"}]})
    found = refusal(wish, HostSecurity(allowed_unsafe_sysctls=("fs.mqueue.*",)))
    assert found is not None
    assert found.message == 'forbidden sysctl: "fs.mqueue.msg_max" not allowed with host IPC enabled'


@pytest.mark.parametrize("level", ["pod", "container"])
@pytest.mark.parametrize(
    ("profile", "host", "message"),
    [
        ("RuntimeDefault", False, "Cannot enforce AppArmor: AppArmor is not enabled on the host"),
        ("Localhost", False, "Cannot enforce AppArmor: AppArmor is not enabled on the host"),
        ("Unconfined", False, None),
        ("Localhost", True, None),
        ("RuntimeDefault", True, None),
    ],
)
def test_a_pod_whose_apparmor_profile_cannot_be_enforced_is_rejected(
    level: str, profile: str, host: bool, message: str | None
) -> None:
    context = {"appArmorProfile": {"type": profile, "localhostProfile": "p" if profile == "Localhost" else ""}}
    wish = (
        pod(securityContext=context) if level == "pod" else pod(containers=[{"name": "c", "securityContext": context}])
    )
    found = refusal(wish, HostSecurity(apparmor=host))
    assert (found and (found.reason, found.message)) == (message and ("AppArmor", message))


def test_a_pod_for_another_operating_system_is_rejected() -> None:
    found = refusal(pod(os={"name": "windows"}))

    assert found is not None
    assert (found.reason, found.message) == (
        "PodOSNotSupported",
        "Failed to admit pod as the OS field doesn't match node OS",
    )
    assert refusal(pod(os={"name": "linux"})) is None
