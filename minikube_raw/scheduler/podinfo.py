"""What the scheduler needs of a pod, computed once: requests, ports, tolerations, affinity and who it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from minikube_raw.api import quantity
from minikube_raw.api.containers import QuantityText
from minikube_raw.api.core import Container, Pod, Toleration
from minikube_raw.api.node_affinity import NodeAffinity, node_affinity
from minikube_raw.client.informer import key_of

CPU, MEMORY = "cpu", "memory"
# What a container without requests counts as in scores, so that pods without requests spread too
# (kube-scheduler, pkg/scheduler/util/pod_resources.go): 100m and 200 Mi.
_ASSUMED_CPU, _ASSUMED_MEMORY = 100, 200 << 20

Amounts = dict[str, int]


class HostPort(NamedTuple):
    """A port taken on the node itself; ip 0.0.0.0 takes it on all addresses."""

    protocol: str
    ip: str
    port: int


class PodInfo(msgspec.Struct, frozen=True, gc=False):
    """A pod as filters and scores see it. Amounts: cpu in millicores, all other resources in whole units."""

    key: str
    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    owner: str
    priority: int
    generation: int
    requests: Amounts
    scored_cpu: int
    scored_memory: int
    ports: tuple[HostPort, ...]
    tolerations: tuple[Toleration, ...]
    affinity: NodeAffinity
    images: tuple[str, ...]
    # Names of the claims behind its volumes, and whether they were made for this pod alone.
    claims: tuple[tuple[str, bool], ...] = ()


def pod_info(pod: Pod) -> PodInfo:
    """Return what the scheduler needs of `pod`. Raises ValueError for what validation would refuse."""
    metadata, spec = pod.metadata, pod.spec
    controller = metadata.controller
    return PodInfo(
        key=key_of(pod),
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        labels=metadata.labels,
        owner=controller.uid if controller else "",
        priority=spec.priority,
        generation=metadata.generation,
        requests=requests(pod),
        scored_cpu=_scored(pod, CPU, _ASSUMED_CPU),
        scored_memory=_scored(pod, MEMORY, _ASSUMED_MEMORY),
        ports=tuple(_ports(spec.containers, spec.host_network)),
        tolerations=spec.tolerations,
        affinity=node_affinity(spec.node_selector, spec.affinity),
        images=tuple(container.image for container in spec.containers),
        claims=tuple(
            (name, volume.ephemeral is not None)
            for volume in spec.volumes
            if (name := volume.claim_name(metadata.name))
        ),
    )


def amounts(listed: Mapping[str, QuantityText]) -> Amounts:
    """Return a resource list as integers: cpu in millicores, the rest in whole units, rounded up."""
    return {
        name: quantity.parse(text).milli() if name == CPU else quantity.parse(text).value()
        for name, text in listed.items()
    }


def requests(pod: Pod) -> Amounts:
    """Return what the pod needs at its most demanding moment (component-helpers/resource, PodRequests).

    Containers and sidecars run together; an ordinary init container runs alone beside the sidecars started before it.
    """
    spec = pod.spec
    together: Amounts = {}
    for container in spec.containers:
        _add(together, amounts(container.resources.requests))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.init_containers:
        own = amounts(container.resources.requests)
        if container.restart_policy == "Always":
            _add(together, own)
            _add(sidecars, own)
            own = dict(sidecars)
        else:
            _add(own, sidecars)
        _max(peak, own)
    _max(together, peak)
    if spec.resources is not None:
        together |= amounts(spec.resources.requests)
    _add(together, amounts(spec.overhead))
    return together


def _scored(pod: Pod, resource: str, assumed: int) -> int:
    declared = requests(pod).get(resource, 0)
    silent = sum(1 for container in pod.spec.containers if resource not in container.resources.requests)
    return declared + silent * assumed


def _ports(containers: Iterable[Container], host_network: bool) -> Iterable[HostPort]:
    for container in containers:
        for port in container.ports:
            number = port.host_port or (port.container_port if host_network else 0)
            if number:
                yield HostPort(port.protocol, port.host_ip or "0.0.0.0", number)


def _add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _max(total: Amounts, other: Amounts) -> None:
    for name, amount in other.items():
        total[name] = max(total.get(name, 0), amount)
