"""Throughput between pods, of two nodes through our VXLAN and on one bridge, beside the same devices made by hand with ip, in turn.

The figures are about devices, so all else is the same on both sides: sender and receiver are processes of the bench, outside of any
pod's cgroups, in turn and in an order drawn for each round. They run at a real-time priority, so that the machine's other work does not
show, and with one congestion control: bbr, which some hosts have by default, paces a stream by its own estimate of the path and
tells the paths' difference worse than any.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from tests.bench import handmade, report
from tests.bench.handmade import Path

SECONDS = 0.4  # shorter than what the kernel leaves real-time processes of a second
ROUNDS = 25
CONGESTION_CONTROL = "cubic"
BARE, MASQUERADED = "the same devices made with ip", "and with one nft rule that masquerades"
REALTIME = """
import contextlib, os, socket, sys, time
def realtime():
    with contextlib.suppress(PermissionError): # a cgroup (v1) without a share of real time
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
"""
SINK = f"""{REALTIME}
with socket.create_server(("0.0.0.0", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    connection, buffer, total = listener.accept()[0], bytearray(1 << 20), 0
realtime()
began = time.monotonic()
while count := connection.recv_into(buffer):
    total += count
print(total * 8 / (time.monotonic() - began))
"""
SOURCE = f"""{REALTIME}
address, port, seconds, congestion_control = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
with socket.socket() as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion_control.encode())
    connection.settimeout(10)
    connection.connect((address, port))
    connection.settimeout(None)
    realtime()
    end, block = time.monotonic() + seconds, bytes(1 << 20)
    while time.monotonic() < end:
        connection.sendall(block)
"""


def gigabits(path: Path) -> float:
    """Throughput of one TCP connection in Gbit/s, as its receiver sees it."""
    python = [sys.executable, "-I", "-S", "-c"]
    with subprocess.Popen([*path.server, *python, SINK], stdout=subprocess.PIPE, text=True) as sink:
        assert sink.stdout is not None
        port = sink.stdout.readline().strip()
        source = [*path.client, *python, SOURCE, path.address, port, str(SECONDS), CONGESTION_CONTROL]
        subprocess.run(source, check=True, timeout=SECONDS + 20)
        return float(sink.stdout.readline()) / 1e9


def in_turn(paths: Mapping[str, Path], measured_by: Callable[[Path], float]) -> dict[str, list[float]]:
    """What each path gave, one figure of every round; the order is drawn anew for each."""
    measured: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(ROUNDS):
        for name in random.sample(list(paths), len(paths)):
            measured[name].append(measured_by(paths[name]))
    return measured


def measure() -> list[report.Section]:
    """Ours and hand-made in turn; our nodes and pods come from a cluster of two nodes."""
    from tests.bench.labcluster import LabCluster

    with ExitStack() as stack:
        by_hand = {
            "across nodes": [stack.enter_context(handmade.across_nodes(f"x{n}", masquerade=n > 0)) for n in (0, 1)],
            "on one bridge": [stack.enter_context(handmade.on_one_bridge(f"o{n}", masquerade=n > 0)) for n in (0, 1)],
        }
        cluster = stack.enter_context(LabCluster(nodes=2))
        first, second = cluster.nodes
        pods = [cluster.sleeping_pod(f"net-{n}", node) for n, node in enumerate((first, second, first))]
        server, *clients = (["nsenter", f"--net=/proc/{pod.pid}/ns/net"] for pod in pods)
        figures = []
        for client, (where, (bare, masqueraded)) in zip(clients, by_hand.items(), strict=True):
            ours = f"pod to pod {where}"
            paths = {ours: Path(server, client, pods[0].ip), BARE: bare, MASQUERADED: masqueraded}
            figures += _figures(in_turn(paths, gigabits))
    intro = (
        f"One TCP connection ({CONGESTION_CONTROL}), sent and received in blocks of 1 MiB by processes at real-time priority "
        f"in no pod's cgroups; {ROUNDS} × {SECONDS} s each, in turn. Load average {report.load()} at the end."
    )
    return [report.Section("Throughput between pods", intro, figures)]


def _figures(measured: dict[str, list[float]]) -> list[report.Figure]:
    ours, bare, masqueraded = measured.values()
    return [
        *(report.Figure(name, f"{statistics.median(each):.1f} Gbit/s") for name, each in measured.items()),
        report.Figure("ours / hand-made", f"{report.ratio(ours, bare):.2f}", "≥ 0.97", "by hand no packet is tracked"),
        report.Figure("ours / hand-made with masquerading", f"{report.ratio(ours, masqueraded):.2f}", "≥ 0.97"),
    ]
