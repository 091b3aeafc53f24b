"""What is left on this host of a cluster whose record and its copy cannot be read: what the kernel and the directories show.

Enough to remove it by, not to start it: nodes have names and no addresses, and what the host had before (ip_forward) nobody
knows any more.
"""

from __future__ import annotations

import os
from pathlib import Path

from minikube_raw.linux.cgroups import manager
from minikube_raw.machine.layout import ClusterRecord, Layout, NodeRecord
from minikube_raw.netlink import links
from minikube_raw.netlink.transport import NetlinkSocket, socket_in

NOWHERE = "0.0.0.0/32"  # a network that nobody has


def find(layout: Layout, kubeconfig: Path) -> ClusterRecord:
    """A record to remove the cluster by; `link` is empty when the host has no cable into the cluster's underlay."""
    names = {*_names_in(layout.state / "nodes"), *_names_in(layout.run / "nodes"), *manager(layout.cgroup()).children()}
    return ClusterRecord(
        name=layout.name,
        link=_cable(layout.underlay_netns),
        underlay=NOWHERE,
        pod_cidr=NOWHERE,
        service_cidr=NOWHERE,
        api_port=0,
        kubeconfig=str(kubeconfig),
        nodes=tuple(NodeRecord(name, "") for name in sorted(names)),
    )


def _names_in(directory: Path) -> list[str]:
    return os.listdir(directory) if directory.is_dir() else []


def _cable(underlay: Path) -> str:
    """The host's end of the cable whose other end is `host` in the underlay's namespace."""
    try:
        netns = os.open(underlay, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        with socket_in(netns) as inside, NetlinkSocket() as host:
            end = links.get(inside, "host")
            ours = links.get(host, index=end.peer) if end is not None and end.peer else None
            back = links.get(inside, index=ours.peer) if ours is not None and ours.kind == "veth" else None
    except OSError:  # a plain file: the host was restarted, or somebody has unmounted the namespace
        return ""
    finally:
        os.close(netns)
    return ours.name if ours is not None and back == end else ""
