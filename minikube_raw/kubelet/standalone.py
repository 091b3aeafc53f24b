"""Pods on one host without a master: an agent in the background that takes pods from STATE/standalone/manifests.

The command line writes a manifest and talks to the agent's socket; the agent starts with the first pod and ends with the
last. It runs in a mount namespace of its own, so nothing of a pod shows up in the host's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec
import uvloop
import yaml
from aiohttp import web

from minikube_raw.api import plain_text
from minikube_raw.api.core import Pod
from minikube_raw.client.clock import Clock, SystemClock, timestamp
from minikube_raw.kubelet import (
    admission,
    convert,
    dns,
    ending,
    localagent,
    manifests,
    node,
    nodeview,
    pods,
    server,
    watching,
)
from minikube_raw.kubelet.checkpoints import Checkpoints
from minikube_raw.kubelet.classshares import ClassShares, cgroup_writer
from minikube_raw.kubelet.givenclaims import GivenClaims
from minikube_raw.kubelet.images import ImageManager, ImageSource
from minikube_raw.kubelet.kubelet import NetworkedRuntime
from minikube_raw.kubelet.localevents import LocalEvents
from minikube_raw.kubelet.localimages import LocalImages
from minikube_raw.kubelet.logrotation import LogRotation, RotationPolicy
from minikube_raw.kubelet.main import cancel_on_signals, make_runtime
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.kubelet.overlaynet import HOST_PORTS
from minikube_raw.kubelet.podnetwork import make_network
from minikube_raw.kubelet.preparation import Preparation
from minikube_raw.kubelet.stats import StatsProvider
from minikube_raw.kubelet.tools import Tools
from minikube_raw.kubelet.volumes import VolumeManager
from minikube_raw.kubelet.workers import PodWorkers
from minikube_raw.linux import apparmor, mounts, namespaces, proctitle, removal
from minikube_raw.linux.cgroups import manager
from minikube_raw.linux.socket_paths import short_name
from minikube_raw.netlink import NetlinkSocket, links, masquerade, portmaps
from minikube_raw.oci import plainroots
from minikube_raw.runtime import wire
from minikube_raw.runtime.launching import NODE, launcher_argv, launcher_socket

log = logging.getLogger(__name__)
Json = dict[str, Any]
BRIDGE = "minikube-raw0"
POD_CIDR = "10.245.0.0/24"
MASQUERADE_TABLE = "minikube_raw_pods"
_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)
HALTED = msgspec.structs.replace(ending.SHUTDOWN, keeps_volumes=True)
_GOODBYE_SECONDS = 5.0  # for those who are being answered when we leave
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_MOUNTS = "mounts"  # what the launcher holds our mount namespace as


class LocalStatuses:
    """Statuses kept where /pods shows them; a deletion leaves the pod listed as it ended until its manifest goes."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change

    def set(self, pod: Pod, status: Json, server_has: Json) -> None:
        """The worker keeps it."""
        self._on_change()

    def delete(self, pod: Pod) -> None:
        """A stopped pod stays listed."""

    def forget(self, uid: str) -> None:
        """Nothing is kept."""


class StandaloneAgent:
    """Runs the pods of the manifests directory until there are none."""

    def __init__(
        self, options: KubeletOptions, runtime: NetworkedRuntime, images: ImageSource, clock: Clock | None = None
    ) -> None:
        self._options = options
        self._runtime = runtime
        self._clock = clock or SystemClock()
        self._volumes = VolumeManager(options.pods_dir, options.memory_dir)
        self._watcher = watching.FileWatcher()
        self._events = LocalEvents(self._clock)
        self._objects = manifests.GivenObjects()
        self._claims = GivenClaims(options.volumes_dir, options.pods_dir, options.node_name)
        self._images = ImageManager(images, self._events.record, plainroots.name_of)
        self._changed = asyncio.Event()
        self._workers: PodWorkers | None = None
        self.halting, self._halted = False, asyncio.Event()
        self._lock: IO[bytes] | None = None
        self._known: dict[str, str] = {}  # manifest file → pod uid
        capacity = node.read_capacity("", options.state_dir, options.max_pods)
        self._facts = convert.NodeFacts(
            name=options.node_name,
            ip=options.node_ip,
            resolver=dns.parse_resolv_conf(Path("/etc/resolv.conf").read_text()),
            memory_capacity=capacity.memory,
            pod_pids_limit=options.pod_pids_limit,
            allocatable=capacity.amounts(),
            kernel=node.kernel(options, capacity.memory, capacity.amounts()),
            seccomp_root=f"{options.state_dir}/seccomp",
            security=admission.HostSecurity(apparmor.is_enabled(), options.allowed_unsafe_sysctls),
        )
        self._stats = StatsProvider(options, self, runtime)
        checkpoints = Checkpoints(runtime, options.checkpoints_dir, self._clock)
        self._server = server.Server(self, runtime, self._watcher, self._clock, self._stats, checkpoints)

    async def run(self, ready: int = -1) -> None:
        """Work until the last pod is removed; a byte on `ready` says that the socket answers."""
        async with asyncio.TaskGroup() as tasks:
            shares = ClassShares(cgroup_writer(self._options.cgroup_root), reserves=self._options.reserves_memory)
            self._workers = PodWorkers(self._tools(), tasks, shares, on_gone=self._changed.set)
            self._runtime.on_change(lambda uid: self._pod_changed(uid, tasks))
            directory = str(self._options.manifests_dir)
            stop = self._watcher.watch(directory, self._changed.set, watching.DIRECTORY)
            self._read_manifests()
            await self._workers.adopt_leftovers(self._volumes.known_pods())
            runner = await self._serve()
            rotation = tasks.create_task(self._log_rotation().run())
            if ready >= 0:
                with contextlib.suppress(
                    BrokenPipeError
                ):  # whoever started us may have given up; we serve all the same
                    os.write(ready, b"1")
                os.close(ready)
            try:
                await self._until_empty()
            finally:
                rotation.cancel()
                stop()
                self._watcher.close()
                await runner.cleanup()

    async def _halt(self) -> None:
        """Stop every pod as before a shutdown: with its grace and its hooks, and without forgetting that it is wished for."""
        assert self._workers is not None
        for worker in self._workers.all():
            worker.end(HALTED)
        while not all(each.status.get("phase") in ("Succeeded", "Failed") for each in self._workers.all()):
            await self._changed.wait()
            self._changed.clear()
        await self._workers.close()
        self._leave(await asyncio.to_thread(localagent.take_lock, self._options))
        self._halted.set()

    def _status_changed(self) -> None:
        if self.halting:
            self._changed.set()

    async def _asked_to_halt(self, request: web.Request) -> web.Response:
        self.halting = True
        self._changed.set()
        await self._halted.wait()
        return web.Response(text="halted")

    async def _until_empty(self) -> None:
        """Follow the manifests until there are none, and no pod; decided under the lock that `pod run` takes."""
        assert self._workers is not None
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self.halting:
                return await self._halt()
            self._read_manifests()
            if self._known or self._workers.all():
                continue
            lock = await asyncio.to_thread(localagent.take_lock, self._options)
            self._read_manifests()
            if not self._known:
                return self._leave(lock)
            lock.close()

    def _leave(self, lock: IO[bytes]) -> None:
        """Be reached by nobody any more. The lock is ours until we have ended: whoever starts the next agent waits for that."""
        self._lock = lock
        self._options.socket.unlink(missing_ok=True)

    def pods(self) -> list[nodeview.PodView]:
        """Every pod with its status; one whose manifest has gone is on its way out."""
        workers = self._workers.all() if self._workers is not None else ()
        return [nodeview.PodView(self._shown(each.pod), each.status) for each in workers if each.pod is not None]

    def _shown(self, pod: Pod) -> Pod:
        if pod.metadata.uid in self._known.values() or pod.metadata.deletion_timestamp is not None:
            return pod
        meta = msgspec.structs.replace(pod.metadata, deletion_timestamp=timestamp(self._clock.now()))
        return msgspec.structs.replace(pod, metadata=meta)

    def log_directory(self, pod: Pod) -> Path:
        """Where a pod's logs lie."""
        return self._options.logs_dir / pods.log_directory_name(pod)

    def _read_manifests(self) -> None:
        """Compare the directory with the workers: level-triggered, whatever changed."""
        assert self._workers is not None
        present: dict[str, str] = {}
        for path in sorted(self._options.manifests_dir.glob("*.yaml")):
            try:
                manifest = manifests.read(path)
            except (OSError, ValueError, yaml.YAMLError) as error:
                log.warning("%s is left out: %s", path, error)
                continue
            present[path.name] = manifest.pod.metadata.uid
            self._wish(manifest)
        for uid in set(self._known.values()) - set(present.values()):
            self._workers.remove(uid)
        self._known = present

    def _wish(self, manifest: manifests.Manifest) -> None:
        """Hand a pod to its worker; one that replaces another of its name waits until that is gone (`on_gone` looks again)."""
        assert self._workers is not None
        pod = manifest.pod
        if self._workers.has_another(pod):
            return
        self._claims.give(pod.metadata.uid, manifest.volumes)
        if self._objects.give(pod.metadata.uid, manifest.objects):
            self._workers.objects_changed(pod.metadata.uid)
        self._workers.update(pod)

    def _pod_changed(self, uid: str, tasks: asyncio.TaskGroup) -> None:
        assert self._workers is not None
        self._workers.look_again(uid)
        tasks.create_task(self._server.pods_changed())

    def _log_rotation(self) -> LogRotation:
        policy = RotationPolicy(self._options.container_log_max_size, self._options.container_log_max_files)
        return LogRotation(self._runtime, policy, self._clock, self._server.log_rotated)

    async def _serve(self) -> web.AppRunner:
        application = self._server.application(check_client=False)
        application.router.add_get("/events", self._show_events)
        application.router.add_post("/halt", self._asked_to_halt)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_GOODBYE_SECONDS)
        await runner.setup()
        self._options.socket.unlink(missing_ok=True)
        with short_name(str(self._options.socket)) as name:
            await web.UnixSite(runner, name).start()
        self._options.socket.chmod(0o600)
        return runner

    async def _show_events(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._events.as_list()), content_type="application/json")

    def _tools(self) -> Tools:
        preparation = Preparation(
            self._images, self._volumes, self._objects, lambda: self._facts, self._clock, claims=self._claims
        )
        return Tools(
            runtime=self._runtime,
            preparation=preparation,
            statuses=LocalStatuses(self._status_changed),
            record=self._events.record,
            clock=self._clock,
            node=lambda: self._facts,
            logs_dir=str(self._options.logs_dir),
        )


def conflist(data_dir: str) -> Json:
    """A bridge on the host; masquerading is for all its pods at once (see _run)."""
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "hairpinMode": True,
        "capabilities": {"ips": True, "mac": True},
        "ipam": {"type": "host-local", "dataDir": data_dir, "ranges": [[{"subnet": POD_CIDR}]]},
    }
    plugins = [bridge, {"type": "loopback"}, HOST_PORTS]
    return {"cniVersion": "1.1.0", "name": "minikube-raw-standalone", "plugins": plugins}


def run(options: KubeletOptions, ready: int) -> None:
    """Be the agent: returns when the last pod is gone and nothing is left of it. Writes a byte to `ready` when it serves."""
    plain_text.log_to_stderr()
    proctitle.set_title("kubelet standalone")
    forwarding = _FORWARDING.read_text()
    launcher = _enter_mounts(options)
    try:
        uvloop.run(_run(options, ready))
    except asyncio.CancelledError:
        return  # asked to leave while there are pods: they run on, and the next agent takes them over
    os.kill(launcher, signal.SIGTERM)
    _leave_no_trace(options, forwarding)


def _enter_mounts(options: KubeletOptions) -> int:
    """Enter the mount namespace with the volumes of the node's pods, and return the pid of its launcher, which holds it.

    Both are those that an agent before us left, or new ones.
    """
    try:
        with wire.connect(launcher_socket(options.run_dir)) as connection:
            wire.send(connection, {"op": "take", "sandbox": NODE})
            message, received = wire.receive(connection)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        _make_mounts()
        # Keepers are not of the service or session that happened to run the command: its end must not be theirs.
        argv = launcher_argv(options.run_dir, cgroup=f"{options.cgroup_root}/system")
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True).pid
    held = dict(zip(message["names"], received, strict=True))
    if _MOUNTS in held:
        namespaces.unshare(namespaces.CLONE_FS)  # only who shares no working directory may join a mount namespace
        namespaces.setns(held[_MOUNTS], namespaces.CLONE_NEWNS)
    else:  # the agent before us died before it could say so, or the launcher and it died both
        _make_mounts()
    wire.close(received)
    return int(_CREDENTIALS.unpack(credentials)[0])


def _make_mounts() -> None:
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.set_propagation("/", mounts.MS_SLAVE | mounts.MS_REC)
    mounts.set_propagation("/", mounts.MS_SHARED | mounts.MS_REC)  # for volumes with mountPropagation


async def _run(options: KubeletOptions, ready: int) -> None:
    cancel_on_signals()
    run_dir = Path(options.run_dir)
    store = plainroots.PlainRootStore(Path(options.images_dir))
    runtime = make_runtime(options, store)
    await asyncio.to_thread(masquerade.ensure_subnet, POD_CIDR, exclude=(POD_CIDR,), table=MASQUERADE_TABLE)
    runtime.network = make_network(conflist(str(run_dir / "cni" / "networks")), run_dir)
    await runtime.start()
    holding = asyncio.create_task(runtime.hold(_MOUNTS, namespaces.open_namespace("mnt")))
    try:
        agent = StandaloneAgent(options, runtime, LocalImages(store))
        # A machine that goes down ends the session that the agent was started in while `pod halt` waits for the pods.
        cancel_on_signals(unless=lambda: agent.halting)
        await agent.run(ready)
        await runtime.settled()
        await asyncio.to_thread(removal.empty_trash, VolumeManager(options.pods_dir).trash)
    finally:
        holding.cancel()
        await runtime.close()


def _leave_no_trace(options: KubeletOptions, forwarding: str) -> None:
    """After the last pod: the bridge, the cgroup and the run directory go, forwarding is as it was."""
    with NetlinkSocket() as netlink:
        netlink.request(links.delete(BRIDGE))
    masquerade.remove_subnet(table=MASQUERADE_TABLE)
    portmaps.remove_if_empty()
    manager(options.cgroup_root).remove()
    _FORWARDING.write_text(forwarding)
    mounts.umount_all(str(options.memory_dir))
    shutil.rmtree(options.run_dir, ignore_errors=True)


def main() -> None:
    """Entry point of the background process: its options as JSON, and the descriptor to say that it is up."""
    run(msgspec.json.decode(sys.argv[1], type=KubeletOptions), int(sys.argv[2]))


if __name__ == "__main__":
    main()
