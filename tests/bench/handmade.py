"""Networks of pods made by hand with ip(8), to hold beside ours: two nodes with a VXLAN between them, and two pods on one bridge.

With `masquerade` a node has the one rule besides that lets pods out into the world (nft(8), what OverlayNetwork keeps too).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

PODS = "10.251.0.0/16"
MTU = 1450  # what a VXLAN leaves of 1500


class Path(NamedTuple):
    """Two ends of a stream: how a program is started in either network namespace, and the server's address."""

    server: list[str]
    client: list[str]
    address: str


@contextmanager
def namespaces(*names: str) -> Iterator[None]:
    """Network namespaces that go when the block ends."""
    try:
        for name in names:
            _run("ip", "netns", "add", name)
            _ip(name, "link set lo up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


@contextmanager
def across_nodes(prefix: str, *, masquerade: bool) -> Iterator[Path]:
    """Two nodes on a switch, each with a bridge, a pod and a VXLAN device, the way the manual page does it."""
    switch, nodes = f"{prefix}switch", [f"{prefix}node{n}" for n in (1, 2)]
    pods = [f"{prefix}pod{n}" for n in (1, 2)]
    with namespaces(switch, *nodes, *pods):
        _ip(switch, "link add br0 type bridge", "link set br0 up")
        for n, node, pod in zip((1, 2), nodes, pods, strict=True):
            _ip(switch, f"link add port{n} type veth peer name eth0 netns {node}", f"link set port{n} master br0 up")
            _ip(node, f"addr add 10.250.0.{n}/24 dev eth0", "link set eth0 up")
            _tunnel(node, n, peer=3 - n)
            _bridge(node, f"10.251.{n}.1/24", masquerade=masquerade)
            _plug(node, "veth0", pod, f"10.251.{n}.2", gateway=f"10.251.{n}.1")
        yield Path(_inside(pods[0]), _inside(pods[1]), "10.251.1.2")


@contextmanager
def on_one_bridge(prefix: str, *, masquerade: bool) -> Iterator[Path]:
    """One node with a bridge and two pods."""
    node, pods = f"{prefix}node", [f"{prefix}pod{n}" for n in (1, 2)]
    with namespaces(node, *pods):
        _bridge(node, "10.251.1.1/24", masquerade=masquerade)
        for n, pod in enumerate(pods, start=2):
            _plug(node, f"veth{n}", pod, f"10.251.1.{n}", gateway="10.251.1.1")
        yield Path(_inside(pods[0]), _inside(pods[1]), "10.251.1.2")


def _tunnel(node: str, n: int, *, peer: int) -> None:
    mac = "02:00:00:00:00:0{}".format
    _ip(
        node,
        f"link add vx type vxlan id 7 dstport 8472 local 10.250.0.{n} dev eth0 nolearning",
        f"link set vx address {mac(n)} up",
        f"addr add 10.251.{n}.0/32 dev vx",
        f"neigh add 10.251.{peer}.0 lladdr {mac(peer)} dev vx nud permanent",
        f"route add 10.251.{peer}.0/24 via 10.251.{peer}.0 dev vx onlink",
    )
    _run("bridge", "-n", node, "fdb", "append", mac(peer), "dev", "vx", "dst", f"10.250.0.{peer}")


def _bridge(node: str, address: str, *, masquerade: bool) -> None:
    _ip(node, "link add br0 type bridge", f"addr add {address} dev br0", "link set br0 up")
    _run("ip", "netns", "exec", node, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    if masquerade:
        rules = f"add rule ip node out ip saddr {PODS} ip daddr != {PODS} masquerade"
        chain = "add chain ip node out { type nat hook postrouting priority srcnat; }"
        _run("ip", "netns", "exec", node, "nft", f"add table ip node; {chain}; {rules}")


def _plug(node: str, port: str, pod: str, address: str, *, gateway: str) -> None:
    _ip(
        node,
        f"link add {port} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {pod}",
        f"link set {port} master br0 up",
    )
    _ip(pod, f"addr add {address}/24 dev eth0", "link set eth0 up", f"route add default via {gateway}")


def _inside(name: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{name}"]


def _ip(name: str, *commands: str) -> None:
    subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(commands), text=True, check=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
