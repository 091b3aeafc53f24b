"""The topology manager: a pod is let in where its CPUs and its memory can be near each other, if the policy insists on that.

Whoever gives resources away says where it could (a Provider's hints), `topologyhints` merges, and each then takes what it gives
from there, at the pod's admission. With the policy none nobody is asked, and providers take from anywhere. Scopes, words and
order are the kubelet's (pkg/kubelet/cm/topologymanager).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from minikube_raw.api.core import Container, Pod
from minikube_raw.kubelet import numa
from minikube_raw.kubelet.admission import Refusal
from minikube_raw.kubelet.measures import Measure
from minikube_raw.kubelet.numa import NUMANode
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.kubelet.pods import all_containers, key
from minikube_raw.kubelet.topologyhints import NONE, POLICIES, Hint, Hints, Misplaced, admits, merge

log = logging.getLogger(__name__)
CONTAINER, POD = "container", "pod"
SCOPES = (CONTAINER, POD)
MOST_NODES = 8  # 2**8 sets of nodes are looked through
CLOSEST, ALLOWED = "prefer-closest-numa-nodes", "max-allowable-numa-nodes"
_AFFINITY = Refusal("TopologyAffinityError", "Resources cannot be allocated with Topology locality")
_ANYWHERE = Hint(None, False)


class Provider(Protocol):
    """What gives resources of NUMA nodes to containers."""

    def hints(self, pod: Pod, container: Container | None) -> Hints:
        """Where a container's resources could be, or those of a whole pod (None); empty: it does not matter."""
        ...

    def allocate(self, pod: Pod, container: Container, affinity: Hint) -> None:
        """Take them, as the hint says if it can be; twice is fine. Raises ValueError, Misplaced."""
        ...

    def release(self, uid: str) -> None:
        """Give back what a pod has. Twice is fine."""
        ...

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Give back what pods have that are not on the node any more."""
        ...


class TopologyManager:
    """Of one node. Raises ValueError for what cannot be on this machine."""

    def __init__(
        self,
        providers: Sequence[Provider],
        machine: Sequence[NUMANode] = (),
        policy: str = NONE,
        scope: str = CONTAINER,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._providers, self._machine = providers, machine
        self._policy, self._scope = policy, scope
        self._closest = check(policy, scope, options or {}, len(machine))
        self._asked = self._refused = 0

    def refusal(self, pod: Pod) -> Refusal | None:
        """Why the pod cannot have its resources where the policy wants them; None: it has them until released."""
        refused = self._admit(pod)
        if refused is not None:
            self.release(pod.metadata.uid)
        return refused

    def readmit(self, pod: Pod) -> None:
        """Of a pod that was let in before, which it stays: it has what it had, or what can be had now."""
        refused = self._admit(pod)
        if refused is not None:
            log.warning("pod %s runs without some of its resources: %s", key(pod), refused.message)

    def release(self, uid: str) -> None:
        """The pod has ended. Twice is fine."""
        for provider in self._providers:
            provider.release(uid)

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Only these pods are on the node: called when all that an earlier kubelet left are known."""
        for provider in self._providers:
            provider.forget_all_but(uids)

    def measures(self) -> list[Measure]:
        """What /metrics tells of it."""
        name, asked = (
            "kubelet_topology_manager_admission",
            "The number of admission requests where resources have to be aligned.",
        )
        failed = "The number of admission request failures where resources could not be aligned."
        return [
            Measure(f"{name}_requests_total", "counter", asked, self._asked),
            Measure(f"{name}_errors_total", "counter", failed, self._refused),
        ]

    def _admit(self, pod: Pod) -> Refusal | None:
        refused = self._allocate(pod)
        self._asked, self._refused = self._asked + 1, self._refused + (refused is not None)
        return refused

    def _allocate(self, pod: Pod) -> Refusal | None:
        together = self._hint(pod, None) if self._scope == POD else None
        for container in all_containers(pod):
            hint = together or self._hint(pod, container)
            if not admits(self._policy, hint):
                return _AFFINITY
            try:
                for provider in self._providers:
                    provider.allocate(pod, container, hint)
            except Misplaced as error:
                return Refusal(error.reason, str(error))
            except ValueError as error:
                message = f"Allocate failed due to {error}, which is unexpected"
                return Refusal("UnexpectedAdmissionError", message)
        return None

    def _hint(self, pod: Pod, container: Container | None) -> Hint:
        if self._policy == NONE:
            return _ANYWHERE
        given = [provider.hints(pod, container) for provider in self._providers]
        return merge(self._policy, given, self._machine, closest=self._closest)


def make(options: KubeletOptions, cpus: Provider | None, memory: Provider | None) -> TopologyManager:
    """The manager of a node by its options; who has no static policy gives nothing away. Raises ValueError."""
    policy, scope, chosen = (
        options.topology_manager_policy,
        options.topology_manager_scope,
        options.topology_manager_policy_options,
    )
    providers = [each for each in (cpus, memory) if each is not None]
    return TopologyManager(providers, () if policy == NONE else numa.read(), policy, scope, chosen)


def check(policy: str, scope: str, options: Mapping[str, str], nodes: int) -> bool:
    """Whether the closest nodes are preferred. Raises ValueError for a policy, scope or option that cannot be here."""
    if policy not in POLICIES:
        raise ValueError(f"unknown topology manager policy {policy!r}: it is one of {', '.join(POLICIES)}")
    if scope not in SCOPES:
        raise ValueError(f"unknown topology manager scope {scope!r}: it is one of {', '.join(SCOPES)}")
    if unknown := options.keys() - {CLOSEST, ALLOWED}:
        raise ValueError(f"unknown Topology Manager Policy option: {', '.join(sorted(unknown))}")
    closest = options.get(CLOSEST, "false")
    if closest not in ("true", "false"):
        raise ValueError(f'bad value for option "{CLOSEST}": {closest!r} is neither true nor false')
    allowed = int(options.get(ALLOWED, MOST_NODES))
    if allowed < MOST_NODES:
        raise ValueError(f"the minimum value of {ALLOWED} is {MOST_NODES}")
    if policy != NONE and nodes > allowed:
        raise ValueError(f"unsupported on machines with more than {allowed} NUMA Nodes")
    return closest == "true"
