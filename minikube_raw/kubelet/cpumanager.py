"""The CPU manager: under the static policy a container of a Guaranteed pod that asks for whole CPUs has them for itself.

All others share the rest, among it the reserved CPUs, which nobody gets alone (pkg/kubelet/cm/cpumanager/policy_static.go).
A container keeps its CPUs until its pod ends; while it waits to be restarted, those that have none alone may run on them. Pods
that were admitted never ask for more than there are, but those before them may still be ending. The runtime's records say who
has which CPUs, so a kubelet that comes after a crash knows it too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import msgspec

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import convert, cpuoptions, cpuplacement, cputopology, qos
from minikube_raw.kubelet.cpupromises import CPUPromises, whole_cpus
from minikube_raw.kubelet.cputopology import CPU, NONE, POLICIES, STATIC, CPUs
from minikube_raw.kubelet.measures import Measure
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.runtime import cri
from minikube_raw.runtime.resources import UNLIMITED

log = logging.getLogger(__name__)
EXCLUSIVE = "minikube-raw.io/exclusive-cpus"  # annotation of a container that shares its CPUs with nobody


_POOL = "The size of the shared CPU pool for non-guaranteed QoS pods, in millicores."
_ALONE = "The total number of CPUs exclusively allocated to containers running on this node"


class CPUManager:
    """Places the containers of one node. With the policy none only `run` has something to do, once: undo an earlier one's work."""

    def __init__(
        self,
        runtime: cri.RuntimeService,
        policy: str = NONE,
        topology: Sequence[CPU] = (),
        reserved: CPUs = frozenset(),
        options: Collection[str] = (),
        *,
        ahead: bool = True,
    ) -> None:
        self._runtime = runtime
        self._static = policy == STATIC
        self._topology = tuple(topology) if self._static else ()
        self._all = frozenset(cpu.number for cpu in self._topology)
        self._reserved = reserved
        self._kept = reserved if cpuoptions.STRICT in options else frozenset[int]()  # nobody's at all
        self.promises = CPUPromises(self._topology, reserved, options, ahead=ahead)
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def static(self) -> bool:
        """Whether containers may have CPUs for themselves."""
        return self._static

    @asynccontextmanager
    async def placing(self, config: cri.ContainerConfig, pod: Pod) -> AsyncIterator[cri.ContainerConfig]:
        """The config with its CPUs; create the container before leaving. Those in their place have moved by then.

        Raises RuntimeServiceError while too few CPUs are free: pods that are gone already may still be ending.
        """
        async with self._lock:
            containers = await self._runtime.list_containers()
            if whole_cpus(pod, config.name):
                taken = self._take(pod, config.name, containers)
                await self._share(self._shared(containers, taken), containers)
                yield _placed(config, taken, exclusive=True)
            else:
                yield _placed(config, self._shared(containers), exclusive=False)

    def pod(self, config: cri.PodSandboxConfig, pod: Pod) -> cri.PodSandboxConfig:
        """The pod's config: whoever has CPUs alone is bounded by them, not by a quota that would stop it on them."""
        if not exclusive_cpus(pod):
            return config
        resources = msgspec.structs.replace(config.resources, cpu_quota=UNLIMITED)
        return msgspec.structs.replace(config, resources=resources)

    async def recover(self) -> None:
        """Learn what an earlier kubelet has promised: to containers that run."""
        for each in await self._runtime.list_containers():
            if _alive(each) and EXCLUSIVE in each.annotations:
                self.promises.keep(each.labels.get(convert.POD_UID, ""), each.name, _cpus(each))

    async def measures(self) -> list[Measure]:
        """What /metrics tells of it; nothing without the policy."""
        if not self._static:
            return []
        alone = _alone(await self._runtime.list_containers()) | self.promises.given
        free = self._all - self._reserved - alone
        nodes = Counter(cpu.node for cpu in self._topology if cpu.number in alone)
        text = "The number of cpu core allocations which required pinning"
        return [
            *self.promises.attempts.measures("kubelet_cpu_manager_pinning", f"{text}.", f"{text} failed."),
            _gauge("shared_pool_size_millicores", _POOL, 1000 * len(free)),
            _gauge("exclusive_cpu_allocation_count", _ALONE, len(alone)),
            *(
                _gauge(
                    "allocation_per_numa", "Number of CPUs allocated per NUMA node", nodes[node], numa_node=str(node)
                )
                for node in sorted({cpu.node for cpu in self._topology})
            ),
        ]

    def look_again(self) -> None:
        """A container has ended: its CPUs may be everybody's again."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the shared CPUs right until cancelled; first after whatever an earlier kubelet, of either policy, has left."""
        while True:
            self._changed.clear()
            async with self._lock:
                containers = await self._runtime.list_containers()
                await self._share(self._shared(containers), containers)
            if not self._static:
                return
            await self._changed.wait()

    def _take(self, pod: Pod, name: str, containers: Sequence[cri.ContainerStatus]) -> CPUs:
        try:
            return self.promises.take(pod, name, self._shared(containers), _earlier(containers, pod, name))
        except ValueError as error:
            raise cri.RuntimeServiceError(cri.CREATE_ERROR, str(error)) from error

    def _shared(self, containers: Sequence[cri.ContainerStatus], taken: CPUs = frozenset()) -> CPUs:
        """The CPUs of all who have none alone, once some are `taken`."""
        left = self._all - taken - _alone(containers)
        return left - self._kept or left  # whoever has none alone must run somewhere

    async def _share(self, shared: CPUs, containers: Sequence[cri.ContainerStatus]) -> None:
        """Let all that have none for themselves run on these CPUs, or on all where the policy is none."""
        cpus = shared if self._static else frozenset(cpu.number for cpu in cputopology.read())
        for each in containers:
            had = each.resources.cpuset_cpus
            if not _alive(each) or EXCLUSIVE in each.annotations or (had is None and not self._static):
                continue
            if had is None or cputopology.parse(had) != cpus:
                await self._move(each, cputopology.show(cpus))

    async def _move(self, container: cri.ContainerStatus, cpus: str) -> None:
        try:
            await self._runtime.update_container_resources(container.id, cri.LinuxContainerResources(cpuset_cpus=cpus))
        except cri.RuntimeServiceError as error:  # it has ended meanwhile
            log.info(
                "container %s of %s was not moved to CPUs %s: %s", container.name, container.sandbox_id, cpus, error
            )


def _gauge(name: str, text: str, value: int, **labels: str) -> Measure:
    return Measure(f"kubelet_cpu_manager_{name}", "gauge", text, value, labels)


def exclusive_cpus(pod: Pod) -> bool:
    """Whether a container of the pod has CPUs for itself under the static policy."""
    return any(whole_cpus(pod, each.name) for each in (*pod.spec.init_containers, *pod.spec.containers))


def make(runtime: cri.RuntimeService, options: KubeletOptions) -> CPUManager:
    """The manager of a node by its options. Raises ValueError."""
    if options.cpu_manager_policy not in POLICIES:
        raise ValueError(
            f"unknown CPU manager policy {options.cpu_manager_policy!r}: it is one of {', '.join(POLICIES)}"
        )
    chosen = cpuoptions.chosen(options.cpu_manager_policy_options)
    if options.cpu_manager_policy == NONE:
        return CPUManager(runtime)
    topology = cputopology.read()
    reserved = sum(qos.milli_cpu(each) for each in options.reserved)
    if cpuoptions.BY_SOCKET in chosen:
        cpuoptions.check_by_socket(topology, options.topology_manager_policy)
    kept = cpuplacement.reserved_cpus(options.reserved_cpus, reserved, topology, chosen)
    return CPUManager(runtime, STATIC, topology, kept, chosen, ahead=options.promises_cpus)


def _placed(config: cri.ContainerConfig, cpus: CPUs, *, exclusive: bool) -> cri.ContainerConfig:
    quota = UNLIMITED if exclusive else config.resources.cpu_quota
    resources = msgspec.structs.replace(config.resources, cpuset_cpus=cputopology.show(cpus), cpu_quota=quota)
    annotations = config.annotations | ({EXCLUSIVE: "true"} if exclusive else {})
    return msgspec.structs.replace(config, resources=resources, annotations=annotations)


def _alive(container: cri.ContainerStatus) -> bool:
    return container.state is not cri.ContainerState.EXITED


def _alone(containers: Sequence[cri.ContainerStatus]) -> CPUs:
    """The CPUs that containers which live have for themselves."""
    own = (_cpus(each) for each in containers if _alive(each) and EXCLUSIVE in each.annotations)
    return frozenset[int]().union(*own)


def _cpus(container: cri.ContainerStatus) -> CPUs:
    return cputopology.parse(container.resources.cpuset_cpus or "")


def _earlier(containers: Sequence[cri.ContainerStatus], pod: Pod, name: str) -> CPUs:
    """The CPUs that the container had when it ran last."""
    runs = [each for each in containers if each.name == name and each.labels.get(convert.POD_UID) == pod.metadata.uid]
    return _cpus(max(runs, key=lambda each: each.attempt)) if runs else frozenset()
