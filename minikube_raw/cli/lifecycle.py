"""A cluster on this host, from nothing to Ready and back to nothing: the steps behind up, start, stop and down.

Every step looks first and does what is missing, so `start` is `up` on a record that exists, and a step that a crash cut
short is done again. The record is written before the first of them, which is how `down` knows what may be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from minikube_raw.apiserver import pki
from minikube_raw.cli import kubeconfig, readiness
from minikube_raw.cli.errors import Failure
from minikube_raw.cli.masteroptions import MasterOptions
from minikube_raw.client.http import HTTPTransport, client_context
from minikube_raw.client.rest import Client
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.linux.cgroups import Limits, manager
from minikube_raw.linux.durability import write_file
from minikube_raw.machine import machine, processes, underlay
from minikube_raw.machine.layout import ClusterRecord, Layout, NodeRecord, clusters
from minikube_raw.runtime import userids
from minikube_raw.runtime.launching import launcher_argv

MASTER_GRACE = 10.0  # seconds: what is acknowledged is on disk already, this is for ending watches politely
READINESS_PAUSE = 0.02  # seconds between two looks at a master that neither answers nor has ended
CLUSTER_DOMAIN = "cluster.local"
DNS_ADDRESS_INDEX = 10  # of the service network, as kubeadm has it


class Cluster:
    """One cluster of this host. `say` is told, in a few words, what is being done."""

    def __init__(self, layout: Layout, record: ClusterRecord, say: Callable[[str], None]) -> None:
        self.layout = layout
        self.record = record
        self._say = say
        self._underlay = underlay.Underlay(layout, record)

    def start(self, timeout: float) -> None:
        """Bring up whatever is missing and wait until every node is Ready. Raises Failure naming what did not come."""
        credentials = self._ensure_credentials()
        self._start_master()
        self._ensure_forwarding()
        self._underlay.ensure()
        booted = {node.name for node in self.record.nodes if self._start_machine(node, credentials)}
        self._say(f"waiting for {len(self.record.nodes)} nodes")
        master = self.layout.process("master")
        try:
            waiting = readiness.wait_for_nodes(
                self._admin_client(), self.record, booted, timeout, lambda: processes.find(master) is not None
            )
            pod_cidrs = asyncio.run(waiting)
        except readiness.NotReady as error:
            raise Failure(str(error), f"the logs are in {self.layout.logs}") from error
        self._underlay.route_pods(pod_cidrs)
        kubeconfig.merge(Path(self.record.kubeconfig), self.user_config())

    def stop(self) -> None:
        """Power the machines off, then end the master; records and state stay."""
        for node in self.record.nodes:
            self._say(f"powering {node.name} off")
            machine.power_off(self.layout, node)
        processes.end(self.layout.process("master"), grace=MASTER_GRACE)

    def remove(self) -> None:
        """Remove everything that `start` made, in reverse, whatever of it is there and whoever's record is damaged."""
        self.stop()
        processes.end_all_writing_to(self.layout.logs / "master.log", grace=MASTER_GRACE)
        self._underlay.remove()
        everything = manager(self.layout.cgroup())
        if everything.children():
            everything.kill_all()
        everything.remove()
        everyone = manager(self.layout.cgroup_root)
        if not everyone.children():
            everyone.remove()
        try:
            kubeconfig.remove(Path(self.record.kubeconfig), self.record.name, self._authority())
        except Failure as error:
            self._say(f"note: {error}; what it says of {self.record.name} stays")
        self._hand_over_forwarding()
        self.layout.remove()
        userids.sweep()
        if not clusters(self.layout.state_root):
            shutil.rmtree(self.layout.images, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.layout.state_root.rmdir()

    def _authority(self) -> bytes:
        certificate = self.layout.pki / "ca.crt"
        return certificate.read_bytes() if certificate.exists() else b""

    def user_config(self) -> dict[str, object]:
        """Return the administrator's kubeconfig."""
        made = self._ensure_credentials()
        server = f"https://127.0.0.1:{self.record.api_port}"
        return pki.kubeconfig(server, made.ca.read_bytes(), pki.read_pair(made.admin), name=self.record.name)

    def _ensure_credentials(self) -> pki.PKI:
        names = (self.record.host_ip, socket.gethostname())
        made = pki.load_or_create_pki(self.layout.pki, server_names=names, service_ip=service_ip(self.record, 1))
        for node in self.record.nodes:
            pki.client_files(made, f"node-{node.name}", f"system:node:{node.name}", ("system:nodes",))
            pki.server_files(made, f"node-{node.name}-serving", f"system:node:{node.name}", (node.name, node.ip))
        return made

    def apply(self, manifests: Path) -> None:
        """Apply the manifests of a YAML file as `kubectl apply --server-side` would."""
        asyncio.run(readiness.apply(self._admin_client(), manifests))

    def _admin_client(self) -> Client:
        made = self._ensure_credentials()
        context = client_context(ca_file=made.ca, cert_file=made.admin[0], key_file=made.admin[1])
        return Client(HTTPTransport(f"https://127.0.0.1:{self.record.api_port}", context))

    def _start_master(self) -> None:
        if self._master_serves():
            return
        self._say("starting the master")
        check_port_free(self.record.api_port)
        options = MasterOptions(
            store=str(self.layout.store),
            pki=str(self.layout.pki),
            addresses=("127.0.0.1", self.record.host_ip),
            port=self.record.api_port,
            pod_cidr=self.record.pod_cidr,
            service_cidr=self.record.service_cidr,
            node_monitor_grace=self.record.node_monitor_grace,
            eviction_after=self.record.eviction_after,
        )
        config = self.layout.state / "master.json"
        config.write_bytes(msgspec.json.encode(options))
        argv = [sys.executable, "-I", "-m", "minikube_raw", "master", "run", "--config", str(config)]
        processes.spawn(argv, self.layout.logs / "master.log", self.layout.process("master"))

    def _master_serves(self) -> bool:
        """Whether the recorded master answers; one that is about to end is waited for. Raises Failure for one that does neither."""
        deadline = time.monotonic() + MASTER_GRACE
        while (pid := processes.find(self.layout.process("master"))) is not None:
            if answers(self.record.api_port):
                return True
            if time.monotonic() > deadline:
                raise Failure(
                    f"the master of {self.record.name} (pid {pid}) does not answer on port {self.record.api_port}",
                    f"its log is {self.layout.logs / 'master.log'}; `minikube-raw stop`, then `start`, replaces it",
                )
            time.sleep(READINESS_PAUSE)
        return False

    def _start_machine(self, node: NodeRecord, credentials: pki.PKI) -> bool:
        """Power a node on unless it is; say whether it was off. Its kubelet's configuration is made whole either way."""
        options = self._kubelet_options(node, credentials)
        config = self.layout.node_state(node.name) / "kubelet.json"
        config.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(config, msgspec.json.encode(options))
        if machine.find(self.layout, node) is not None:
            return False
        self._say(f"starting {node.name}")
        needed = [options.images_dir, *(command[0] for command in options.runtime_commands.values())]
        services = (
            machine.Service("launcher", launcher_argv(options.run_dir, options.state_dir, *needed)),
            machine.Service(
                "kubelet", [sys.executable, "-I", "-m", "minikube_raw", "node", "run", "--config", str(config)]
            ),
        )
        limits = Limits.for_node(cpus=node.cpus, memory=node.memory)
        machine.power_on(self.layout, node, services, limits, self._underlay.plug)
        return True

    def _kubelet_options(self, node: NodeRecord, credentials: pki.PKI) -> KubeletOptions:
        directory = credentials.directory
        options = KubeletOptions(
            node_name=node.name,
            node_ip=node.ip,
            servers=(f"https://{self.record.host_ip}:{self.record.api_port}",),
            ca=str(credentials.ca),
            client_certificate=str(directory / f"node-{node.name}.crt"),
            client_key=str(directory / f"node-{node.name}.key"),
            serving_certificate=str(directory / f"node-{node.name}-serving.crt"),
            serving_key=str(directory / f"node-{node.name}-serving.key"),
            state_dir=str(self.layout.node_state(node.name)),
            run_dir=str(self.layout.node_run(node.name)),
            images_dir=str(self.layout.images),
            cgroup_root=self.layout.cgroup(node.name),
            cluster_cidr=self.record.pod_cidr,
            cluster_dns=(service_ip(self.record, DNS_ADDRESS_INDEX),),
            cluster_domain=CLUSTER_DOMAIN,
            uplink="eth0",
        )
        return msgspec.structs.replace(options, **self.record.kubelet)

    def _ensure_forwarding(self) -> None:
        before = underlay.enable_forwarding()
        if before is not None:
            self.record = msgspec.structs.replace(self.record, ip_forward=before)
            self.layout.save(self.record)

    def _hand_over_forwarding(self) -> None:
        """Restore ip_forward, unless another cluster still needs it: then that one will."""
        if self.record.ip_forward is None:
            return
        for name in clusters(self.layout.state_root):
            other = Layout(self.layout.state_root, self.layout.run_root, name)
            try:
                found = other.load() if name != self.record.name else None
            except ValueError as error:
                self._say(f"note: {error}; net.ipv4.ip_forward stays as that cluster needs it")
                return
            if found is not None:
                other.save(msgspec.structs.replace(found, ip_forward=self.record.ip_forward))
                return
        underlay.restore_forwarding(self.record.ip_forward)


def service_ip(record: ClusterRecord, index: int) -> str:
    """The index-th address of the service network: 1 is the API's, 10 DNS'."""
    return str(ipaddress.ip_network(record.service_cidr)[index])


def answers(port: int) -> bool:
    """Whether somebody accepts connections on 127.0.0.1:port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def check_port_free(port: int) -> None:
    """Raise Failure when somebody listens on 127.0.0.1:port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise Failure(
                f"port {port} of 127.0.0.1 is taken by another process",
                "end it (`ss -ltnp` shows who it is), or choose another with --api-port",
            ) from error
