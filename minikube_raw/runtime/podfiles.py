"""The files of a pod that its containers see as /etc/hostname, /etc/hosts and /etc/resolv.conf, and their texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from . import atomic
from .cri import Device, DNSConfig, Mount, NamespaceMode, PodSandboxConfig

_NAMES = ("hostname", "hosts", "resolv.conf")
_LOCAL = """# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def hosts(config: PodSandboxConfig, ips: Sequence[str], node_hosts: str = "") -> str:
    """Returns /etc/hosts as the kubelet writes it: the pod's own name, or with hostNetwork the node's file; then hostAliases."""
    aliases = "".join(f"{address}\t" + "\t".join(names) + "\n" for address, names in config.hosts)
    added = f"\n# Entries added by HostAliases.\n{aliases}" if aliases else ""
    if config.namespaces.network is NamespaceMode.NODE:
        return f"# Kubernetes-managed hosts file (host network).\n{node_hosts}{added}"
    names = config.hostname
    if config.qualified_name:
        names = f"{config.qualified_name}\t{config.qualified_name.partition('.')[0]}"
    return _LOCAL + "".join(f"{ip}\t{names}\n" for ip in ips) + added


def resolv_conf(dns: DNSConfig) -> str:
    """Returns /etc/resolv.conf in the order the kubelet uses."""
    lines = [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"nameserver {server}" for server in dns.servers]
    lines += [f"options {' '.join(dns.options)}"] if dns.options else []
    return "".join(f"{line}\n" for line in lines)


def write(directory: str, config: PodSandboxConfig, ips: Sequence[str]) -> None:
    """Writes the three files of a sandbox."""
    node_hosts = _node_hosts() if config.namespaces.network is NamespaceMode.NODE else ""
    texts = {"hostname": f"{config.hostname}\n", "resolv.conf": _resolv_conf(config)}
    texts["hosts"] = hosts(config, ips, node_hosts)
    for name, text in texts.items():
        atomic.write(f"{directory}/{name}", text.encode(), mode=0o644)
        os.chmod(f"{directory}/{name}", 0o644)


def _node_hosts() -> str:
    try:
        with open("/etc/hosts", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def make_mount_points(directory: str) -> None:
    """Makes a tree of the places that every container has something mounted on: a layer below all images of a node.

    An image that lacks them would else get them made in each container's writable layer: four files and directories to
    allocate at its start, and to delete after its end.
    """
    for name in ("dev", "etc", "proc", "sys"):
        os.makedirs(f"{directory}/{name}", exist_ok=True)
        os.chmod(f"{directory}/{name}", 0o755)  # whatever the umask is
    for name in _NAMES:
        atomic.write(f"{directory}/etc/{name}", b"", mode=0o644)


def _resolv_conf(config: PodSandboxConfig) -> str:
    """Without a DNS configuration a pod gets the node's, as with dnsPolicy Default."""
    if config.dns != DNSConfig():
        return resolv_conf(config.dns)
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def mounts(
    directory: str, config: PodSandboxConfig, shm: str, given: Iterable[Mount], devices: Iterable[Device] = ()
) -> list[Mount]:
    """Returns a container's mounts: the pod's files and shared memory, unless something given takes their place.

    A device is the node's own, mounted: a container in a user namespace could not make one.
    """
    given = [*given, *(Mount(each.container_path, each.host_path) for each in devices)]
    taken = {mount.container_path for mount in given}
    own = [Mount(f"/etc/{name}", f"{directory}/{name}") for name in _NAMES]
    own.append(Mount("/dev/shm", "/dev/shm" if config.namespaces.ipc is NamespaceMode.NODE else shm))
    return [*(mount for mount in own if mount.container_path not in taken), *given]
