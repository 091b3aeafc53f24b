"""What the agent knows of its own node: what it has, what of that is for pods, its object on the API server, and Events about it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from minikube_raw.api.core import Node, ObjectReference
from minikube_raw.api.storage import LOCAL_VOLUMES
from minikube_raw.client.clock import Clock
from minikube_raw.client.events import NORMAL, WARNING, EventRecorder
from minikube_raw.kubelet import admission, convert, dns, node, nodecgroup, reserved, runtimeclasses
from minikube_raw.kubelet.images import NodeImage
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.kubelet.room import NodeView
from minikube_raw.linux import apparmor

Json = dict[str, Any]


class OwnNode:
    """Read when the agent begins, but for `object`, which is the newest that the informer brought."""

    def __init__(self, options: KubeletOptions, recorder: EventRecorder, clock: Clock) -> None:
        self.object = Node()
        self.not_ready = "the pod network is not up yet"
        self._options, self._recorder, self._clock = options, recorder, clock
        self._system = node.read_system()
        self._capacity = node.read_capacity(options.cgroup_root, options.state_dir, options.max_pods)
        hard = options.eviction_hard
        self.allocatable = reserved.allocatable(self._capacity.amounts(), options.reserved, hard)
        self._handlers = runtimeclasses.described(options)
        self.facts = self._read_facts()

    def wanted(self) -> Json:
        """The Node as it is registered."""
        notes = {LOCAL_VOLUMES: str(self._options.volumes_dir)}
        return node.new_node(self._options.node_name, self._system, self._options.labels, notes)

    def enforce_allocatable(self) -> None:
        """Bound the cgroup of all pods by what is for them."""
        options = self._options
        wanted = nodecgroup.limits(
            self._capacity.amounts(), options.reserved, node.most_pids(), swaps=bool(self.facts.kernel.swap)
        )
        nodecgroup.enforce(options.cgroup_root, wanted, self.tell)

    def view(self, pressures: Collection[str], *, pinning: tuple[str, ...], shutting_down: bool) -> NodeView:
        """The node as admission sees it."""
        return NodeView(
            self._options.node_name,
            self.allocatable,
            self.object.metadata.labels or self._options.labels,
            self.object.spec.taints,
            pressures,
            pinning,
            shutting_down,
        )

    def status(
        self, before: dict[str, Json], images: Iterable[NodeImage], pressures: Collection[str], not_ready: str = ""
    ) -> Json:
        """NodeStatus; `before` are the conditions shown last, by type; `not_ready` is what keeps it from that just now."""
        return node.node_status(
            self._options.node_name,
            self._options.node_ip,
            self._options.port,
            self._capacity,
            self.allocatable,
            self._system,
            [node.NodeImage(tuple(each.references), each.size) for each in images],
            not_ready or self.not_ready,
            before,
            self._clock.now(),
            pressures,
            self._handlers,
        )

    # -- Events about it ---------------------------------------------------------------------------------------------

    def tell(self, kind: str, reason: str, message: str) -> None:
        """Record an Event about the node."""
        name = self._options.node_name
        about = ObjectReference(api_version="v1", kind="Node", name=name, uid=name)
        self._recorder.event(about, kind, reason, message)

    def warn(self, reason: str, message: str) -> None:
        """Record a Warning about the node."""
        self.tell(WARNING, reason, message)

    def tell_pressures(self, before: Collection[str], now: Collection[str]) -> None:
        """Record which pressures have come and gone."""
        for kind, words in node.PRESSURE_EVENTS.items():
            if (kind in before) != (kind in now):
                message = f"Node {self._options.node_name} status is now: {words[kind in now]}"
                self.tell(NORMAL, words[kind in now], message)

    def _read_facts(self) -> convert.NodeFacts:
        options = self._options
        return convert.NodeFacts(
            name=options.node_name,
            ip=options.node_ip,
            cluster=dns.ClusterDNS(options.cluster_dns, options.cluster_domain),
            resolver=dns.parse_resolv_conf(Path("/etc/resolv.conf").read_text()),
            memory_capacity=self._capacity.memory,
            pod_pids_limit=options.pod_pids_limit,
            allocatable=self.allocatable,
            kernel=node.kernel(options, self._capacity.memory, self.allocatable),
            seccomp_root=f"{options.state_dir}/seccomp",
            security=admission.HostSecurity(apparmor.is_enabled(), options.allowed_unsafe_sysctls),
        )
