"""The network between the nodes of one host: a switch in a namespace of its own, and the host's one cable into it.

Traffic between nodes passes a bridge that no firewall of the host sees: a `policy drop` forward chain of Docker, ufw or
firewalld would cut it, and an accept in a table of ours would not help (a drop elsewhere wins). The host itself gets one
veth, one route per node's podCIDR and one nftables table, which masquerades what leaves for the world.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from minikube_raw.linux import namespaces, sysctl
from minikube_raw.linux.mounts import MNT_DETACH, umount
from minikube_raw.machine.layout import ClusterRecord, Layout, NodeRecord
from minikube_raw.netlink import addresses, links, masquerade, routes
from minikube_raw.netlink.transport import NetlinkSocket, socket_in

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
SWITCH = "switch"
# br_netfilter's, by namespace since Linux 5.3; older kernels have them in the first namespace only
BRIDGE_NETFILTER = tuple(f"net/bridge/bridge-nf-call-{family}tables" for family in ("ip", "ip6", "arp"))


class Underlay:
    """The switch of one cluster; every verb may be repeated and repairs what it finds."""

    def __init__(self, layout: Layout, record: ClusterRecord) -> None:
        self._layout = layout
        self._record = record
        self._network = ipaddress.ip_network(record.underlay)

    def ensure(self) -> None:
        """Make the namespace, the bridge in it and the host's cable."""
        netns = self._ensure_namespace()
        try:
            namespaces.in_namespace(netns, _without_bridge_netfilter)
            with socket_in(netns) as inside, NetlinkSocket() as host:
                loopback = links.get(inside, "lo")
                assert loopback is not None
                inside.request(links.change(loopback.index, up=True))
                switch = links.ensure_bridge(inside, SWITCH)
                self._connect_host(inside, host, netns, switch.index)
        finally:
            os.close(netns)
        masquerade.ensure_subnet(
            self._record.underlay, exclude=(self._record.underlay, self._record.pod_cidr), table=self._table
        )

    def plug(self, node: NodeRecord, machine_netns: int) -> None:
        """Connect a machine: its end is eth0 with the node's address, and its default route is the host."""
        netns = self._ensure_namespace()
        try:
            with socket_in(netns) as inside, socket_in(machine_netns) as machine:
                switch = links.ensure_bridge(inside, SWITCH)
                port = f"port{node.ip.rsplit('.', 1)[-1]}"
                inside.request(links.delete(port))
                inside.request(links.add_veth(port, peer_name="eth0", peer_netns=machine_netns, master=switch.index))
                self._configure(machine, "eth0", node.ip)
                eth0, loopback = links.get(machine, "eth0"), links.get(machine, "lo")
                assert eth0 is not None and loopback is not None
                machine.request(
                    links.change(loopback.index, up=True),
                    routes.replace(routes.Route("0.0.0.0/0", eth0.index, gateway=self._record.host_ip)),
                )
        finally:
            os.close(netns)

    def route_pods(self, pod_cidrs: Iterable[tuple[str, str]]) -> None:
        """Let the host reach pods: one route per (podCIDR, node address), and none through our cable besides."""
        with NetlinkSocket() as host:
            cable = links.get(host, self._record.link)
            if cable is None:
                raise FileNotFoundError(
                    errno.ENODEV, f"{self._record.link}, the host's cable into the underlay, is gone"
                )
            wanted = {routes.Route(cidr, cable.index, gateway=node_ip) for cidr, node_ip in pod_cidrs}
            have = {route for route in routes.dump(host, index=cable.index) if route.gateway}
            host.request(*[routes.delete(route) for route in have - wanted], *[routes.replace(r) for r in wanted])

    def remove(self) -> None:
        """Take everything away again: the cable (its routes go with it), the table, the namespace. Missing parts are fine."""
        if self._record.link:
            with NetlinkSocket() as host:
                host.request(links.delete(self._record.link))
            masquerade.remove_subnet(table=self._table)
        with contextlib.suppress(FileNotFoundError, OSError):
            umount(str(self._layout.underlay_netns), MNT_DETACH)
        self._layout.underlay_netns.unlink(missing_ok=True)

    @property
    def _table(self) -> str:
        return f"minikube_raw_{self._record.link}"

    def _ensure_namespace(self) -> int:
        path = self._layout.underlay_netns
        if path.exists() and _is_namespace(path):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return namespaces.in_thread(lambda: _make_pinned(str(path)))

    def _connect_host(self, inside: NetlinkSocket, host: NetlinkSocket, netns: int, switch: int) -> None:
        if links.get(host, self._record.link) is None:
            host.request(links.add_veth(self._record.link, peer_name="host", peer_netns=netns))
        peer = links.get(inside, "host")
        if peer is None:  # a cable of our name that leads somewhere else, perhaps into a namespace that is gone
            host.request(
                links.delete(self._record.link), links.add_veth(self._record.link, peer_name="host", peer_netns=netns)
            )
            peer = links.get(inside, "host")
        assert peer is not None
        inside.request(links.change(peer.index, up=True, master=switch))
        self._configure(host, self._record.link, self._record.host_ip)

    def _configure(self, netlink: NetlinkSocket, name: str, ip: str) -> None:
        link = links.get(netlink, name)
        if link is None:
            raise FileNotFoundError(errno.ENODEV, f"device {name} vanished while it was being set up")
        netlink.request(links.change(link.index, up=True), addresses.add(link.index, f"{ip}/{self._network.prefixlen}"))


def _make_pinned(path: str) -> int:
    namespaces.unshare(namespaces.CLONE_NEWNET)
    namespaces.pin(path, "net")
    return namespaces.open_namespace("net")


def _without_bridge_netfilter() -> None:
    """Frames pass the switch without the hooks of IP firewalls: there are no rules, yet looking costs 4 % of a stream's throughput.

    A kernel without br_netfilter has no such parameter, and a switch that keeps its hooks only is slower.
    """
    with contextlib.suppress(OSError):
        for name in BRIDGE_NETFILTER:
            sysctl.ensure(name, "0")


def _is_namespace(path: Path) -> bool:
    return os.stat(path).st_dev != os.stat(path.parent).st_dev


def free_network(pool: str, taken: Iterable[str]) -> str:
    """The first /24 of `pool` that overlaps none of the networks `taken`. Raises ValueError when there is none."""
    others = [ipaddress.ip_network(network, strict=False) for network in taken]
    for candidate in ipaddress.ip_network(pool).subnets(new_prefix=24):
        if not any(candidate.version == other.version and candidate.overlaps(other) for other in others):
            return str(candidate)
    raise ValueError(f"every /24 of {pool} is in use on this host")


def taken_inside(network: str, taken: Iterable[str]) -> str | None:
    """The first of `taken` that is all or part of `network`; one that is wider does no harm, for the narrower route wins."""
    pool = ipaddress.ip_network(network, strict=False)
    others = ((text, ipaddress.ip_network(text, strict=False)) for text in taken)
    # typeshed wants one class on both sides of subnet_of, which comparing versions does not tell mypy
    return next((text for text, other in others if other.version == pool.version and other.subnet_of(pool)), None)  # type: ignore[arg-type]


def networks_in_use() -> list[str]:
    """Destinations of the host's routes, without the default one."""
    with NetlinkSocket() as host:
        return [route.destination for route in routes.dump(host) if not route.destination.endswith("/0")]


def device_names() -> set[str]:
    """Names of this network namespace's devices; /sys/class/net may show another's, that of whoever mounted /sys."""
    with NetlinkSocket() as host:
        return {link.name for link in links.dump(host)}


def enable_forwarding() -> str | None:
    """Turn IPv4 forwarding on; return the value it had, None if nothing had to be changed."""
    before = IP_FORWARD.read_text().strip()
    if before == "1":
        return None
    IP_FORWARD.write_text("1")
    return before


def restore_forwarding(before: str | None) -> None:
    """Put back what enable_forwarding() returned."""
    if before is not None:
        IP_FORWARD.write_text(before)
