"""Pods that this node refuses although they were bound to it: what would reach beyond the pod if it were tried.

Pure. The order of work is the kubelet's: a refused pod is Failed at once, without a sandbox, and stays so. What does not
fit (cpu, memory, ports) is the scheduler's to know.
"""

from __future__ import annotations

import msgspec

from minikube_raw.api.core import Pod

# k8s.io/kubernetes/pkg/kubelet/sysctl, SafeSysctlAllowlist: parameters of the pod's own namespaces that cannot hurt others.
SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)


class Refusal(msgspec.Struct, frozen=True):
    """Why a pod is not run: the reason and message of its Event; status shows the message after "Pod was rejected: "."""

    reason: str
    message: str


def refusal(pod: Pod) -> Refusal | None:
    """What speaks against running the pod here; None when it is admitted."""
    spec = pod.spec
    for wanted in spec.security_context.sysctls:
        name = wanted.name.replace("/", ".")
        if name not in SAFE_SYSCTLS:
            return _forbidden(f'forbidden sysctl: "{wanted.name}" not allowlisted')
        if spec.host_network and name.startswith("net."):
            return _forbidden(f'forbidden sysctl: "{wanted.name}" not allowed with host net enabled')
        if spec.host_ipc and name.startswith("kernel."):
            return _forbidden(f'forbidden sysctl: "{wanted.name}" not allowed with host ipc enabled')
    return None


def _forbidden(message: str) -> Refusal:
    return Refusal("SysctlForbidden", message)
