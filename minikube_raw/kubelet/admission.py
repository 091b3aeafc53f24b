"""Pods that this node refuses although they were bound to it: what would reach beyond the pod if it were tried.

Pure. The order of work is the kubelet's: a refused pod is Failed at once, without a sandbox, and stays so. What does not
fit (cpu, memory, ports) is the scheduler's to know.
"""

from __future__ import annotations

from collections.abc import Collection

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
# Prefixes of what belongs to an IPC namespace (k8s.io/component-helpers/node/util/sysctl); all else of a pod is its network's.
_OF_IPC = ("kernel.", "fs.mqueue.")


class Refusal(msgspec.Struct, frozen=True):
    """Why a pod is not run: the reason and message of its Event; status shows the message after "Pod was rejected: "."""

    reason: str
    message: str


class HostSecurity(msgspec.Struct, frozen=True):
    """What the node can and may do beyond the usual: enforce AppArmor, set sysctls (or patterns ending in *) that are not safe."""

    apparmor: bool = False
    allowed_unsafe_sysctls: tuple[str, ...] = ()


def refusal(pod: Pod, host: HostSecurity | None = None) -> Refusal | None:
    """What speaks against running the pod here; None when it is admitted."""
    host = host or HostSecurity()
    if pod.spec.os.name not in ("", "linux"):
        return Refusal("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    return _sysctl_refusal(pod, host.allowed_unsafe_sysctls) or _apparmor_refusal(pod, host)


def _apparmor_refusal(pod: Pod, host: HostSecurity) -> Refusal | None:
    """A profile that cannot be enforced is worse than none: whoever asked relies on it."""
    contexts = [each.security_context for each in (*pod.spec.init_containers, *pod.spec.containers)]
    profiles = [pod.spec.security_context.app_armor_profile, *(each.app_armor_profile for each in contexts if each)]
    asked = {profile.type for profile in profiles if profile is not None} - {"Unconfined", ""}
    if not asked or host.apparmor:
        return None
    return Refusal("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")


def _sysctl_refusal(pod: Pod, allowed: Collection[str]) -> Refusal | None:
    spec = pod.spec
    for wanted in spec.security_context.sysctls:
        name = wanted.name.replace("/", ".")
        if name not in SAFE_SYSCTLS and not _matches(name, allowed):
            return _forbidden(f'forbidden sysctl: "{name}" not allowlisted')
        if spec.host_network and name.startswith("net."):
            return _forbidden(f'forbidden sysctl: "{name}" not allowed with host Net enabled')
        if spec.host_ipc and name.startswith(_OF_IPC):
            return _forbidden(f'forbidden sysctl: "{name}" not allowed with host IPC enabled')
    return None


def _matches(name: str, patterns: Collection[str]) -> bool:
    """A pattern is a name, or the beginning of names with a * at its end (kernel.shm*)."""
    return any(name.startswith(each[:-1]) if each.endswith("*") else name == each for each in patterns)


def _forbidden(message: str) -> Refusal:
    return Refusal("SysctlForbidden", message)
