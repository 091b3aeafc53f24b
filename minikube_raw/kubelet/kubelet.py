"""The node agent: takes pods from an API server, drives them on this node's runtime, tells what became of them.

Wiring only: `workers` drive pods, `registration` speaks for the node, `podnetwork` brings the network up, `server` answers
the API server. Everything runs in one task group; cancelling `run` leaves all pods running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from minikube_raw.api.core import Node, Pod
from minikube_raw.api.status import StatusError
from minikube_raw.client.clock import Clock, SystemClock, sleep
from minikube_raw.client.events import NORMAL, WARNING, EventRecorder, reference
from minikube_raw.client.informer import Informer
from minikube_raw.client.resources import NODES, PODS, SERVICES
from minikube_raw.client.rest import Client
from minikube_raw.kubelet import (
    cpumanager,
    memorymanager,
    node,
    nodeview,
    pods,
    runtimeclasses,
    server,
    topologymanager,
)
from minikube_raw.kubelet.checkpoints import Checkpoints
from minikube_raw.kubelet.classshares import ClassShares, cgroup_writer
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.eviction import Eviction
from minikube_raw.kubelet.imagegc import ImageCollector
from minikube_raw.kubelet.images import ImageManager, ImageSource
from minikube_raw.kubelet.listening import Listeners
from minikube_raw.kubelet.localvolumes import LocalVolumes
from minikube_raw.kubelet.loglinks import LogLinks
from minikube_raw.kubelet.logrotation import LogRotation, RotationPolicy
from minikube_raw.kubelet.measures import Measure
from minikube_raw.kubelet.mirrors import Mirrors, is_mirror
from minikube_raw.kubelet.nodeshutdown import NOT_READY, Logind, NodeShutdown
from minikube_raw.kubelet.objects import WatchedObjects
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.kubelet.overlaynet import OverlayNetwork
from minikube_raw.kubelet.ownnode import OwnNode
from minikube_raw.kubelet.persistent import Claims
from minikube_raw.kubelet.podnetwork import PodNetwork
from minikube_raw.kubelet.preparation import Preparation
from minikube_raw.kubelet.probecounts import ProbeCounts
from minikube_raw.kubelet.reclaim import Reclaim
from minikube_raw.kubelet.registration import Registration
from minikube_raw.kubelet.room import NodeView, Room
from minikube_raw.kubelet.shutdowntimes import STATE_FILE, ShutdownTimes
from minikube_raw.kubelet.staticpods import StaticPods
from minikube_raw.kubelet.stats import StatsProvider
from minikube_raw.kubelet.statusmanager import StatusManager
from minikube_raw.kubelet.thresholds import Thresholds
from minikube_raw.kubelet.tokens import Tokens
from minikube_raw.kubelet.tools import Tools
from minikube_raw.kubelet.volumes import VolumeManager
from minikube_raw.kubelet.watching import DIRECTORY, FileWatcher
from minikube_raw.kubelet.workers import PodWorkers
from minikube_raw.runtime import cri

log = logging.getLogger(__name__)
Json = dict[str, Any]
_RETRY_SECONDS = 0.2


class NetworkedRuntime(cri.RuntimeService, Protocol):
    """A runtime whose pod network can be set once it is known."""

    network: Any


class Kubelet:
    """One node of a cluster. The runtime has been started."""

    def __init__(
        self,
        options: KubeletOptions,
        client: Client,
        runtime: NetworkedRuntime,
        images: ImageSource,
        clock: Clock | None = None,
    ) -> None:
        self._options = options
        self._client = client
        self._runtime = runtime
        self._clock = clock or SystemClock()
        self._recorder = EventRecorder(client, "kubelet", host=options.node_name, clock=self._clock)
        self._node = OwnNode(options, self._recorder, self._clock)
        self._registration = Registration(client, self._node.wanted(), self._node_status, self._clock)
        self._nodes = Informer(client, NODES, clock=self._clock)
        self._services = Informer(client, SERVICES, clock=self._clock)
        self._network = self._make_network()
        self._pods = Informer(client, PODS, field_selector=f"spec.nodeName={options.node_name}", clock=self._clock)
        self._objects = WatchedObjects(client, self._services, self._objects_changed)
        self._volumes = VolumeManager(options.pods_dir, options.memory_dir)
        self._local = LocalVolumes(client, options.node_name, options.volumes_dir, self._recorder, self._clock)
        self._watcher = FileWatcher()
        self._statuses = StatusManager(client, self._clock)
        self._images = ImageManager(images, self._record)
        self._cpus = cpumanager.make(runtime, options)
        self._memory = memorymanager.make(options, self._node.facts.memory_capacity)
        promises = self._cpus.promises if self._cpus.static else None
        self._topology = topologymanager.make(options, promises, self._memory)
        self._room = Room(self._node_view, self._topology)
        self._shutdown_times = ShutdownTimes(Path(options.state_dir, STATE_FILE), self._clock)
        self._shutdown = self._make_shutdown()
        self._static = StaticPods(options.manifests_dir, options.node_name, self._clock, self._node.tell)
        self._mirrors = Mirrors(
            client, self._statuses, lambda: self._static.objects, lambda: self._node.object, self._clock
        )
        self._workers: PodWorkers | None = None
        self._probed = ProbeCounts()
        self._stats = StatsProvider(options, self, runtime, self._counted, self._probed)
        collector = ImageCollector(options, images, lambda: self._stats.file_systems()[1], self._node.warn, self._clock)
        self._reclaim = Reclaim(lambda: self._workers, collector)
        self._eviction = self._make_eviction()
        checkpoints = Checkpoints(runtime, options.checkpoints_dir, self._clock)
        self._server = server.Server(self, runtime, self._watcher, self._clock, self._stats, checkpoints)
        self._listeners = Listeners(options, self._server)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._nodes.add_handler(self._node_event)
                self._node.enforce_allocatable()
                shares = ClassShares(cgroup_writer(self._options.cgroup_root), reserves=self._options.reserves_memory)
                self._workers = PodWorkers(self._tools(), tasks, shares, on_gone=self._feed_static_pods)
                self._runtime.on_change(lambda uid: self._pod_changed(uid, tasks))
                self._runtime.on_warning(self._node.warn)
                for loop in (self._recorder.run(), self._services.run(), self._nodes.run()):
                    tasks.create_task(loop)
                await self._listeners.start()
                await self._cpus.recover()
                self._runtime.network = await self._network.recall()
                self._follow_static_pods()
                await self._register()
                tasks.create_task(self._mirrors.run())
                tasks.create_task(self._cpus.run())
                tasks.create_task(self._shutdown.run())
                tasks.create_task(self._log_rotation().run())
                tasks.create_task(self._local.run())
                tasks.create_task(self._registration.keep_lease())
                tasks.create_task(self._registration.keep_status())
                tasks.create_task(self._reclaim.images.run())
                tasks.create_task(self._eviction.run(node.pressure_file(self._options.cgroup_root)))
                await self._join_network(tasks)
                await self._follow_pods(tasks)
        finally:
            await self._objects.close()
            await self._statuses.close()
            self._watcher.close()
            await self._listeners.close()

    # -- starting ----------------------------------------------------------------------------------------------------

    async def _register(self) -> None:
        while True:
            try:
                await self._registration.register()
                break
            except (OSError, StatusError) as error:
                log.warning("the node could not be registered: %s", error)
                await sleep(self._clock, _RETRY_SECONDS)
        self._node.tell(NORMAL, "Starting", "Starting kubelet.")

    async def _join_network(self, tasks: asyncio.TaskGroup) -> None:
        self._runtime.network, annotations = await self._network.bring_up()
        tasks.create_task(self._network.follow_peers())
        await self._announce(annotations)
        self._node.not_ready = ""
        self._registration.status_changed()
        self._feed_static_pods()

    def _make_network(self) -> PodNetwork:
        options = self._options
        overlay = OverlayNetwork(
            options.node_name,
            options.node_ip,
            vni=options.vni,
            port=options.vxlan_port,
            exclude=(options.cluster_cidr,),
        )
        run_dir, memory = Path(options.run_dir), Path(options.state_dir, "pod-cidr")
        return PodNetwork(options.node_name, overlay, self._nodes, run_dir, memory, self._clock)

    def _follow_static_pods(self) -> None:
        """From now on, whether or not there is an API server."""
        directory = self._options.manifests_dir
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._watcher.watch(str(directory), self._read_static_pods, DIRECTORY)
        self._read_static_pods()

    def _read_static_pods(self) -> None:
        self._static.read()
        self._feed_static_pods()

    def _feed_static_pods(self) -> None:
        assert self._workers is not None
        self._static.feed(self._workers, networked=self._runtime.network is not None)
        self._mirrors.look_again()

    async def _announce(self, annotations: dict[str, str]) -> None:
        while True:
            try:
                await self._registration.annotate(annotations)
                return
            except (OSError, StatusError) as error:
                log.warning("the node's tunnel could not be announced: %s", error)
                await sleep(self._clock, _RETRY_SECONDS)

    async def _follow_pods(self, tasks: asyncio.TaskGroup) -> None:
        self._pods.add_handler(self._pod_event)
        tasks.create_task(self._pods.run())
        await self._pods.wait_synced()
        assert self._workers is not None
        await self._workers.adopt_leftovers({*self._volumes.known_pods(), *pods.logged(self._options.logs_dir)})
        self._topology.forget_all_but({worker.uid for worker in self._workers.all()})

    # -- what happens ------------------------------------------------------------------------------------------------

    def _node_event(self, old: Node | None, new: Node | None) -> None:
        if new is not None and new.metadata.name == self._options.node_name:
            self._node.object = new
            self._registration.seen(new)
            self._mirrors.look_again()

    def _pod_event(self, old: Pod | None, new: Pod | None) -> None:
        assert self._workers is not None
        shown = new or old
        if shown is not None and is_mirror(shown):
            self._mirrors.seen(old, new)
            return
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._workers.remove(old.metadata.uid)
        if new is not None:
            self._workers.update(new)

    def _pod_changed(self, uid: str, tasks: asyncio.TaskGroup) -> None:
        assert self._workers is not None
        self._workers.look_again(uid)
        self._cpus.look_again()
        tasks.create_task(self._server.pods_changed())

    def _objects_changed(self, uid: str) -> None:
        if self._workers is not None:
            self._workers.objects_changed(uid)

    def _record(self, pod: Pod, kind: str, reason: str, message: str, container: str = "") -> None:
        about = reference(PODS, pod, pods.field_path(pod, container))
        self._recorder.event(about, WARNING if kind == "Warning" else NORMAL, reason, message)

    # -- what others ask ---------------------------------------------------------------------------------------------

    def pods(self) -> list[nodeview.PodView]:
        """Every pod with the status shown last."""
        workers = self._workers.all() if self._workers is not None else ()
        return [nodeview.PodView(each.pod, each.status) for each in workers if each.pod is not None]

    def log_directory(self, pod: Pod) -> Path:
        """Where a pod's logs lie."""
        return self._options.logs_dir / pods.log_directory_name(pod)

    def _tools(self) -> Tools:
        tokens = Tokens(self._client, self._clock, self._objects_changed)
        claims = Claims(self._client, self._options.node_name, lambda: self._node.object.metadata.labels)
        preparation = Preparation(
            self._images, self._volumes, self._objects, lambda: self._node.facts, self._clock, tokens, claims
        )
        return Tools(
            runtime=self._runtime,
            preparation=preparation,
            statuses=self._mirrors,
            record=self._record,
            clock=self._clock,
            node=lambda: self._node.facts,
            logs_dir=str(self._options.logs_dir),
            check_runtime=runtimeclasses.checker(self._client, runtimeclasses.names(self._options)),
            room=self._room,
            links=LogLinks(self._options.logs_dir),
            cpus=self._cpus if self._cpus.static else None,
            memory=self._memory,
            probed=self._probed,
        )

    def _log_rotation(self) -> LogRotation:
        policy = RotationPolicy(self._options.container_log_max_size, self._options.container_log_max_files)
        return LogRotation(self._runtime, policy, self._clock, self._server.log_rotated)

    def _node_view(self) -> NodeView:
        pinning = ("CPU Manager",) * self._cpus.static + ("Memory Manager",) * (self._memory is not None)
        shutting_down = self._shutdown.shutting_down
        return self._node.view(self._eviction.conditions, pinning=pinning, shutting_down=shutting_down)

    def _make_eviction(self) -> Eviction:
        return Eviction(
            Thresholds(self._options),
            self._stats,
            self._room,
            self._reclaim,
            end=self._end_pod,
            record=self._record,
            told=self._node.warn,
            changed=self._pressures_changed,
            clock=self._clock,
            soft_grace=self._options.eviction_max_pod_grace_period,
        )

    def _make_shutdown(self) -> NodeShutdown:
        def pods() -> PodWorkers:
            assert self._workers is not None
            return self._workers

        return NodeShutdown(
            self._options.shutdown_periods,
            self._logind,
            pods,
            tell=self._node.tell,
            changed=self._registration.status_changed,
            told=self._statuses.sent,
            times=self._shutdown_times,
            clock=self._clock,
        )

    def _logind(self) -> AbstractAsyncContextManager[Logind]:
        from minikube_raw.kubelet import logind

        return logind.connect(self._clock)

    async def _counted(self) -> list[Measure]:
        memory = self._memory.measures() if self._memory is not None else ()
        return [*await self._cpus.measures(), *memory, *self._topology.measures(), *self._shutdown_times.measures()]

    def _pressures_changed(self, before: Collection[str], now: Collection[str]) -> None:
        self._node.tell_pressures(before, now)
        self._registration.status_changed()

    def _end_pod(self, uid: str, ending: Ending) -> None:
        if self._workers is not None:
            self._workers.end(uid, ending)

    def _node_status(self, before: dict[str, Json]) -> Json:
        not_ready = NOT_READY if self._shutdown.shutting_down else ""
        return self._node.status(before, self._images.listed(), self._eviction.conditions, not_ready)
