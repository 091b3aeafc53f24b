"""What a node refuses, with the texts of a real kubelet."""

from __future__ import annotations

from typing import Any

import pytest
from pod_builders import pod

from minikube_raw.kubelet.admission import refusal


@pytest.mark.parametrize(
    ("name", "spec", "wanted"),
    [
        ("net.ipv4.ip_unprivileged_port_start", {}, None),
        ("kernel/shm_rmid_forced", {}, None),
        ("net.core.somaxconn", {}, 'forbidden sysctl: "net.core.somaxconn" not allowlisted'),
        ("kernel.core_pattern", {}, 'forbidden sysctl: "kernel.core_pattern" not allowlisted'),
        ("kernel/core_pattern", {}, 'forbidden sysctl: "kernel/core_pattern" not allowlisted'),
        ("vm.overcommit_memory", {}, 'forbidden sysctl: "vm.overcommit_memory" not allowlisted'),
        (
            "net.ipv4.tcp_syncookies",
            {"hostNetwork": True},
            'forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host net enabled',
        ),
        (
            "kernel.shm_rmid_forced",
            {"hostIPC": True},
            'forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host ipc enabled',
        ),
    ],
)
def test_only_safe_sysctls_of_the_pods_own_namespaces_are_admitted(
    name: str, spec: dict[str, Any], wanted: str | None
) -> None:
    found = refusal(pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **spec))

    assert (found and (found.reason, found.message)) == (wanted and ("SysctlForbidden", wanted))
