"""Throughput between pods of two nodes through our VXLAN, beside the same devices made by hand with ip, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench import report

SECONDS = 3
ROUNDS = 5


@contextmanager
def namespaces(*names: str) -> Iterator[None]:
    """Network namespaces that go when the block ends."""
    try:
        for name in names:
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def by_hand(prefix: str) -> None:
    """Two nodes on a switch, each with a bridge, a pod and a VXLAN device, the way the ip manual page does it."""
    a, b = f"{prefix}a", f"{prefix}b"
    switch = f"{prefix}sw"
    _run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
    _run("ip", "-n", switch, "link", "set", "br0", "up")
    for n, node in enumerate((a, b), start=1):
        peer = 3 - n
        port = f"port{n}"
        _run("ip", "link", "add", port, "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", node)
        _run("ip", "-n", switch, "link", "set", port, "master", "br0", "up")
        _run("ip", "-n", node, "addr", "add", f"10.250.0.{n}/24", "dev", "eth0")
        _run("ip", "-n", node, "link", "set", "eth0", "up")
        _run(
            "ip",
            "-n",
            node,
            "link",
            "add",
            "vx",
            "type",
            "vxlan",
            "id",
            "7",
            "dstport",
            "4789",
            "local",
            f"10.250.0.{n}",
            "dev",
            "eth0",
            "nolearning",
        )
        _run("ip", "-n", node, "link", "set", "vx", "address", f"02:00:00:00:00:0{n}", "up")
        _run("ip", "-n", node, "addr", "add", f"10.251.{n}.0/32", "dev", "vx")
        _run(
            "ip",
            "-n",
            node,
            "neigh",
            "add",
            f"10.251.{peer}.0",
            "lladdr",
            f"02:00:00:00:00:0{peer}",
            "dev",
            "vx",
            "nud",
            "permanent",
        )
        _run("bridge", "-n", node, "fdb", "append", f"02:00:00:00:00:0{peer}", "dev", "vx", "dst", f"10.250.0.{peer}")
        _run("ip", "-n", node, "route", "add", f"10.251.{peer}.0/24", "via", f"10.251.{peer}.0", "dev", "vx", "onlink")
        _run("ip", "netns", "exec", node, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        _pod_by_hand(node, f"{node}p", n)


def _pod_by_hand(node: str, pod: str, n: int) -> None:
    _run("ip", "-n", node, "link", "add", "br0", "type", "bridge")
    _run("ip", "-n", node, "addr", "add", f"10.251.{n}.1/24", "dev", "br0")
    _run("ip", "-n", node, "link", "set", "br0", "up")
    _run(
        "ip",
        "link",
        "add",
        "veth0",
        "mtu",
        "1450",
        "netns",
        node,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "mtu",
        "1450",
        "netns",
        pod,
    )
    _run("ip", "-n", node, "link", "set", "veth0", "master", "br0", "up")
    _run("ip", "-n", pod, "addr", "add", f"10.251.{n}.2/24", "dev", "eth0")
    _run("ip", "-n", pod, "link", "set", "eth0", "up")
    _run("ip", "-n", pod, "route", "add", "default", "via", f"10.251.{n}.1")


SINK = """
import socket, sys
with socket.create_server(("0.0.0.0", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    connection, buffer, total = listener.accept()[0], bytearray(1 << 20), 0
    while count := connection.recv_into(buffer):
        total += count
print(total)
"""
SOURCE = """
import socket, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
with socket.create_connection((address, port), timeout=10) as connection:
    end, block = time.monotonic() + seconds, bytes(1 << 20)
    while time.monotonic() < end:
        connection.sendall(block)
"""


def gigabits(server: list[str], client: list[str], address: str) -> float:
    """Throughput of one TCP connection in Gbit/s, each side started with its prefix (`ip netns exec …`, `nsenter …`)."""
    python = [sys.executable, "-I", "-S", "-c"]
    with subprocess.Popen([*server, *python, SINK], stdout=subprocess.PIPE, text=True) as sink:
        assert sink.stdout is not None
        port = sink.stdout.readline().strip()
        subprocess.run([*client, *python, SOURCE, address, port, str(SECONDS)], check=True, timeout=SECONDS + 20)
        return int(sink.stdout.readline()) * 8 / SECONDS / 1e9


def measure() -> list[report.Section]:
    """Ours and hand-made in turn; our nodes and pods come from a cluster of two nodes."""
    from tests.bench.labcluster import LabCluster

    prefix = "hand"
    names = [f"{prefix}{x}" for x in ("a", "b", "ap", "bp", "sw")]
    ours, theirs = [], []
    with namespaces(*names), LabCluster(nodes=2) as cluster:
        by_hand(prefix)
        pods = [cluster.sleeping_pod(f"net-{n}", node) for n, node in enumerate(cluster.nodes)]
        ours_server, ours_client = (["nsenter", f"--net=/proc/{pod.pid}/ns/net"] for pod in pods)
        for _ in range(ROUNDS):
            ours.append(gigabits(ours_server, ours_client, pods[0].ip))
            theirs.append(gigabits(["ip", "netns", "exec", "handap"], ["ip", "netns", "exec", "handbp"], "10.251.1.2"))
    share = statistics.median(ours) / statistics.median(theirs)
    figures = [
        report.Figure(
            "pod to pod across nodes",
            f"{statistics.median(ours):.2f} Gbit/s",
            "",
            f"{ROUNDS} × {SECONDS} s, one TCP connection",
        ),
        report.Figure("the same devices made with ip", f"{statistics.median(theirs):.2f} Gbit/s"),
        report.Figure("ours / hand-made", f"{share:.2f}", "≥ 0.97"),
    ]
    return [
        report.Section(
            "VXLAN throughput",
            "One TCP connection between two pods on two nodes, sent and received in blocks of 1 MiB.",
            figures,
        )
    ]


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
