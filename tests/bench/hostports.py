"""Connections per second to a host port that leads into a pod: our plugins, and the reference's beside them, in turn.

Either has a host, a pod and a client in network namespaces of their own. The client connects and resets, one connection after the
other, so that no port waits in TIME_WAIT.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from minikube_raw.cni import Network
from minikube_raw.netlink import addresses, links
from tests.bench import handmade, network, report
from tests.bench.peers import PLUGINS
from tests.netns import NetworkNamespace

CONNECTIONS = 2000
PORT, HOST_PORT = 80, 8080
SERVER = f"""{network.REALTIME}
with socket.create_server(("0.0.0.0", {PORT}), backlog=1024) as listener:
    print("ready", flush=True)
    realtime()
    for _ in range(int(sys.argv[1])):
        listener.accept()[0].close()
"""
CLIENT = f"""{network.REALTIME}
import struct
address, connections = sys.argv[1], int(sys.argv[2])
realtime()
began = time.monotonic()
for _ in range(connections):
    with socket.create_connection((address, {HOST_PORT}), timeout=10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
print(connections / (time.monotonic() - began))
"""


def measure() -> list[report.Section]:
    """Both in turn, ours alone where the reference plugins are not installed."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mkr-bench-")))
        paths = {"our portmap": _host(stack, folder / "ours", ())}
        if PLUGINS.is_dir():
            paths["the reference's"] = _host(stack, folder / "reference", [PLUGINS])
        measured = network.in_turn(paths, _rate)
    figures = [report.Figure(name, f"{statistics.median(each):,.0f}/s") for name, each in measured.items()]
    if len(measured) == 2:
        figures.append(report.Figure("ours / the reference's", f"{report.ratio(*measured.values()):.2f}", "≥ 0.97"))
    intro = (
        f"TCP connections through a host port into a pod, one after the other; {network.ROUNDS} × {CONNECTIONS}, in turn. "
        f"Load average {report.load()} at the end."
    )
    return [report.Section("Connections to a host port", intro, figures)]


def _host(stack: ExitStack, folder: Path, plugins: Sequence[Path]) -> handmade.Path:
    """A host with one pod behind a host port, and a client beside it."""
    host, pod, client = (stack.enter_context(NetworkNamespace()) for _ in range(3))
    host.request(links.add_veth("wire0", peer_name="wire1", peer_netns=client.fd))
    for namespace, device, address in ((host, "wire0", "192.0.2.1/24"), (client, "wire1", "192.0.2.2/24")):
        link = namespace.query(lambda netlink, device=device: links.get(netlink, device))
        namespace.request(links.change(link.index, up=True), addresses.add(link.index, address))
    ipam = {"type": "host-local", "dataDir": str(folder / "ipam"), "ranges": [[{"subnet": "10.1.0.0/24"}]]}
    bridge = {"type": "bridge", "isDefaultGateway": True, "ipam": ipam}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    conflist = {"cniVersion": "1.0.0", "name": "bench-ports", "plugins": [bridge, portmap]}
    ports = [{"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp"}]
    host.run(lambda: Network(conflist, plugins, folder).add("bench", pod.path, runtime_config={"portMappings": ports}))
    server, beside = (["nsenter", f"--net={namespace.path}"] for namespace in (pod, client))
    return handmade.Path(server, beside, "192.0.2.1")


def _rate(path: handmade.Path) -> float:
    """Connections per second, as the client counts them."""
    python = [sys.executable, "-I", "-S", "-c"]
    with subprocess.Popen([*path.server, *python, SERVER, str(CONNECTIONS)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        client = [*path.client, *python, CLIENT, path.address, str(CONNECTIONS)]
        return float(subprocess.run(client, check=True, capture_output=True, text=True, timeout=60).stdout)
