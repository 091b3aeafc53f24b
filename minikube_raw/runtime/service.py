"""RuntimeService for the kubelet: CRI's verbs, carried out by launcher and keepers, CNI in threads, records on disk.

It holds no process itself: everything it knows is in records or comes from keepers, so a restarted kubelet calls start()
and goes on where the last one stopped. Every verb may be repeated.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from minikube_raw.linux import mounts, namespaces, pidfd, rlimits, signals
from minikube_raw.linux.cgroup_mounts import hierarchies
from minikube_raw.linux.cgroups import manager
from minikube_raw.oci.images import Image, ImageError
from minikube_raw.oci.snapshots import Snapshot

from . import adoption, atomic, podfiles, pods, spec, sweep, trace, wire
from .cri import (
    ContainerConfig,
    ContainerStatus,
    ExecResult,
    NamespaceMode,
    PodSandboxConfig,
    PodSandboxStatus,
    RuntimeServiceError,
)
from .launching import launcher_socket
from .layout import Layout
from .peers import Peer, refuse_errors
from .pods import Container, Sandbox
from .records import ContainerRecord, ExitRecord, SandboxRecord, Shelf
from .sessions import Session

log = logging.getLogger(__name__)

SANDBOX_TIMEOUT = 30.0
START_TIMEOUT = 120.0
LAUNCHER_TIMEOUT = 10.0
_READ_SIZE = 1 << 16
_MOST_EXEC_OUTPUT = 16 << 20
_SOFT_OPEN_FILES = 1024


class Images(Protocol):
    """What the runtime needs of the image store."""

    def resolve(self, text: str) -> Image | None: ...


class SnapshotStore(Protocol):
    """What the runtime needs of oci.snapshots.Snapshots."""

    def prepare(self, container_id: str, image: Image) -> Snapshot: ...
    def remove(self, container_id: str) -> None: ...
    def reclaim(self) -> None: ...
    def list(self) -> list[str]: ...


class NetworkAttacher(Protocol):
    """What the runtime needs of cni.libcni.Network; called in threads."""

    def add(
        self,
        container_id: str,
        netns_path: str,
        ifname: str = "eth0",
        runtime_config: dict[str, Any] | None = None,
        args: dict[str, str] | None = None,
    ) -> Any: ...

    def delete(self, container_id: str, netns_path: str = "", ifname: str = "eth0") -> None: ...


class Runtime:
    """The runtime of one node; see cri.RuntimeService for the verbs.

    `cgroup_root` is the node's cgroup, below which every cgroup_parent lies. `network` may be None until the node has its
    pod CIDR and be set later. Problems that stop nobody are logged and kept in `warnings` (sentences, for Events).
    """

    def __init__(
        self,
        state_dir: str,
        run_dir: str,
        cgroup_root: str,
        images: Images,
        snapshots: SnapshotStore,
        network: NetworkAttacher | None = None,
        launcher: str = "",
    ) -> None:
        self.layout = Layout(str(state_dir), str(run_dir))
        self.layout.make()
        self.network = network
        self.warnings: list[str] = []
        self._cgroup_root = cgroup_root.strip("/")
        self._images, self._snapshots = images, snapshots
        self._launcher = launcher or launcher_socket(run_dir)
        self._sandbox_records = Shelf(self.layout.sandbox_records, SandboxRecord)
        self._container_records = Shelf(self.layout.container_records, ContainerRecord)
        self._exit_records = Shelf(self.layout.exit_records, ExitRecord)
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, Container] = {}
        self._threads = ThreadPoolExecutor(16, "runtime")
        self._tasks: set[asyncio.Task[None]] = set()
        self._look_again: Callable[[str], None] = lambda uid: None

    # Life of the service.

    async def start(self) -> None:
        """Reads the records, connects to the keepers, replaces those that died, and removes what no record owns."""
        sandboxes, problems = self._sandbox_records.load()
        containers, more = self._container_records.load()
        exits, yet_more = self._exit_records.load()
        for problem in (*problems, *more, *yet_more):
            self._warn(problem)
        for record in sandboxes.values():
            self._sandboxes[record.id] = Sandbox(record)
        for container_record in containers.values():
            self._know_container(container_record, exits.get(container_record.id))
        await self._in_thread(self._sweep)
        async with asyncio.TaskGroup() as group:
            for sandbox in self._sandboxes.values():
                group.create_task(self._recover(sandbox))

    async def close(self) -> None:
        """Leaves: connections are closed, pods run on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sandbox in self._sandboxes.values():
            if sandbox.peer is not None:
                peer, sandbox.peer = sandbox.peer, None
                peer.close()
        self._threads.shutdown(wait=False)

    async def settled(self) -> None:
        """Waits until everything that goes on in the background (network teardown, deletion, traces) is done."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def on_change(self, look_again: Callable[[str], None]) -> None:
        """See cri."""
        self._look_again = look_again

    def _know_container(self, record: ContainerRecord, ended: ExitRecord | None) -> Container | None:
        sandbox = self._sandboxes.get(record.sandbox_id)
        if sandbox is None:
            return None
        container = Container(record, pods.log_path(record, sandbox.record.config.log_directory))
        container.identity = pods.read_identity(self.layout, record.id)
        if ended is not None:
            container.finish(ended)
        self._containers[record.id] = sandbox.containers[record.id] = container
        return container

    def _sweep(self) -> None:
        owned = sweep.Owned(
            set(self._sandboxes), set(self._containers), {s.record.cgroup for s in self._sandboxes.values()}
        )
        for removed in sweep.sweep(self.layout, self._cgroup_root, self._snapshots, owned):
            log.info("swept %s", removed)

    async def _recover(self, sandbox: Sandbox) -> None:
        """Brings a sandbox of a record back into our hands: by its keeper, by a new one, or as history."""
        if sandbox.record.boot_id != pidfd.boot_id() or not os.path.isdir(self.layout.sandbox(sandbox.id)):
            self._bury(sandbox)
        elif not sandbox.record.stopped:
            await self._reconnect(sandbox)

    def _bury(self, sandbox: Sandbox) -> None:
        """Marks a sandbox of an earlier boot as stopped: nothing of it can run any more."""
        sandbox.record.stopped = True
        self._sandbox_records.write(sandbox.id, sandbox.record)
        for container in sandbox.containers.values():
            if container.running:
                self._finish(sandbox, container, adoption.lost(container))

    async def _reconnect(self, sandbox: Sandbox) -> None:
        try:
            connection = wire.connect(self.layout.keeper_socket(sandbox.id))
        except OSError:
            await self._adopt(sandbox)
            return
        self._attach_peer(sandbox, connection)
        answer, _ = await self._ask(sandbox, {"op": "hello"}, timeout=SANDBOX_TIMEOUT)
        self._take_keepers_word(sandbox, answer)

    async def _adopt(self, sandbox: Sandbox) -> None:
        """Has the launcher start a new keeper that takes over what a dead one left."""
        request = adoption.adopt_request(self._keeper_request(sandbox.record), sandbox.containers.values())
        try:
            peer, answered = await self._start_keeper(sandbox, request)
            answer, _ = await asyncio.wait_for(answered, SANDBOX_TIMEOUT)
            refuse_errors(answer)
        except (RuntimeServiceError, TimeoutError) as error:
            self._warn(f"no keeper for pod {sandbox.record.config.namespace}/{sandbox.record.config.name}: {error}")
            return
        sandbox.peer = peer
        self._take_keepers_word(sandbox, answer)

    def _take_keepers_word(self, sandbox: Sandbox, hello: dict[str, Any]) -> None:
        """Updates our containers from what a keeper knows; what it does not know and is not recorded as ended is lost."""
        for container in sandbox.containers.values():
            known = hello["containers"].get(container.id)
            if container.exit is not None:
                continue
            if known is None and container.running:
                self._finish(sandbox, container, adoption.lost(container))
            elif known is not None and known["exit"] is not None:
                self._finish(sandbox, container, msgspec.convert(known["exit"], ExitRecord))
            elif known is not None and known["started_at"]:
                self._note_started(container, known["started_at"])
        self._look_again(sandbox.record.config.uid)

    # Sandboxes.

    async def run_pod_sandbox(self, config: PodSandboxConfig) -> str:
        """See cri."""
        sandbox = self._find_sandbox(config) or self._record_sandbox(config)
        async with sandbox.lock:
            if sandbox.record.ready and sandbox.peer is not None and not sandbox.peer.closed:
                return sandbox.id
            if sandbox.record.ready:
                raise RuntimeServiceError("CreatePodSandboxError", f"sandbox {sandbox.id} has lost its keeper")
            await self._undo_sandbox(sandbox)  # what an attempt that was interrupted may have left
            try:
                await self._make_sandbox(sandbox)
            except BaseException:
                await self._undo_sandbox(sandbox)
                raise
        return sandbox.id

    def _find_sandbox(self, config: PodSandboxConfig) -> Sandbox | None:
        for sandbox in self._sandboxes.values():
            record = sandbox.record
            if (record.config.uid, record.config.attempt) == (config.uid, config.attempt) and not record.stopped:
                return sandbox
        return None

    def _record_sandbox(self, config: PodSandboxConfig) -> Sandbox:
        sandbox_id = secrets.token_hex(32)
        parent = config.cgroup_parent.strip("/") or f"kubepods/pod{config.uid}"
        record = SandboxRecord(
            id=sandbox_id,
            config=config,
            cgroup=f"{self._cgroup_root}/{parent}",
            boot_id=pidfd.boot_id(),
            created_at=time.time_ns(),
        )
        self._sandbox_records.write(sandbox_id, record)
        sandbox = self._sandboxes[sandbox_id] = Sandbox(record)
        return sandbox

    async def _make_sandbox(self, sandbox: Sandbox) -> None:
        config = sandbox.record.config
        path = trace.trace_path(self.layout.traces, config.namespace, config.name)
        sandbox.trace = trace.PodTrace(path, f"{config.namespace}/{config.name}")
        own_network = config.namespaces.network is not NamespaceMode.NODE
        os.makedirs(self.layout.sandbox(sandbox.id), 0o755, exist_ok=True)
        netns: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        peer, answered = await self._start_keeper(sandbox, self._keeper_request(sandbox.record), netns)
        sandbox.peer = peer
        async with asyncio.timeout(SANDBOX_TIMEOUT):
            if own_network:
                await asyncio.wait((netns, answered), return_when=asyncio.FIRST_COMPLETED)
                if netns.done():
                    await self._attach_network(sandbox, netns.result())
            answer, _ = await answered
        sandbox.trace.add("keeper", answer.get("steps", ()))
        if "error" in answer:
            raise RuntimeServiceError("CreatePodSandboxError", f"failed to create pod sandbox: {answer['error']}")
        podfiles.write(self.layout.sandbox(sandbox.id), config, sandbox.record.ips)
        sandbox.record.ready = True
        self._sandbox_records.write(sandbox.id, sandbox.record)

    async def _attach_network(self, sandbox: Sandbox, netns: int) -> None:
        """Pins the namespace and runs CNI ADD, while the keeper goes on with the rest of the sandbox."""
        record, config, network = sandbox.record, sandbox.record.config, self.network
        record.netns = self.layout.netns(sandbox.id)
        record.attached = True
        self._sandbox_records.write(sandbox.id, record)
        capabilities: dict[str, Any] = {}
        if config.port_mappings:
            capabilities["portMappings"] = [_port_mapping(mapping) for mapping in config.port_mappings]
        arguments = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": config.namespace,
            "K8S_POD_NAME": config.name,
            "K8S_POD_INFRA_CONTAINER_ID": sandbox.id,
            "K8S_POD_UID": config.uid,
        }

        def attach() -> Any:
            try:
                _pin(netns, record.netns)
            finally:
                os.close(netns)
            if network is None:
                raise RuntimeServiceError("NetworkNotReady", "the node has no pod network yet")
            return network.add(sandbox.id, record.netns, "eth0", capabilities, arguments)

        assert sandbox.trace is not None
        made = sandbox.trace
        try:
            result = await self._in_thread(lambda: made.record(attach))
        except RuntimeServiceError:
            raise
        except Exception as error:  # a plugin's error, whatever plugin it is: the sandbox has failed and says why
            message = f'failed to setup network for sandbox "{sandbox.id}": {error}'
            raise RuntimeServiceError("CreatePodSandboxError", message) from error
        record.ips = tuple(address.ip for address in result.ips)

    def _keeper_request(self, record: SandboxRecord) -> dict[str, Any]:
        config = record.config
        return {
            "id": record.id,
            "namespace": config.namespace,
            "name": config.name,
            "hostname": config.hostname or config.name,
            "network": config.namespaces.network.value,
            "ipc": config.namespaces.ipc.value,
            "pid": config.namespaces.pid.value,
            "sysctls": config.sysctls,
            "cgroup": record.cgroup,
            "limits": spec.limits(config.resources),
            "shm": self.layout.shm(record.id),
            "socket": self.layout.keeper_socket(record.id),
            "launcher": self._launcher,
            "mountPoint": self.layout.mount_point,
            "trace": True,
        }

    async def _start_keeper(
        self, sandbox: Sandbox, request: dict[str, Any], netns: asyncio.Future[int] | None = None
    ) -> tuple[Peer, asyncio.Future[tuple[dict[str, Any], list[int]]]]:
        ours, theirs = wire.pair()
        peer = self._new_peer(sandbox, ours, netns)
        answered = peer.first_answer()
        try:
            with await self._connect_launcher() as launcher:
                wire.send(launcher, {"op": "run", "sandbox": request}, [theirs.fileno()])
        except OSError as error:
            peer.close()
            raise RuntimeServiceError("RuntimeUnavailable", f"the launcher cannot be reached: {error}") from error
        finally:
            theirs.close()
        return peer, answered

    async def _connect_launcher(self) -> Any:
        """Connects; a launcher that just died is being started again, so this waits for it a little."""
        deadline = time.monotonic() + LAUNCHER_TIMEOUT
        while True:
            try:
                return wire.connect(self._launcher)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.02)

    def _attach_peer(self, sandbox: Sandbox, connection: Any) -> None:
        sandbox.peer = self._new_peer(sandbox, connection)

    def _new_peer(self, sandbox: Sandbox, connection: Any, netns: asyncio.Future[int] | None = None) -> Peer:
        def on_event(message: dict[str, Any], descriptors: list[int]) -> None:
            if message.get("event") == "network namespace" and netns is not None and not netns.done():
                netns.set_result(descriptors[0])
                return
            wire.close(descriptors)
            self._hear(sandbox, message)

        peer = Peer(connection, on_event, lambda: self._keeper_gone(sandbox, peer))
        return peer

    def _hear(self, sandbox: Sandbox, message: dict[str, Any]) -> None:
        if message.get("event") == "exited":
            container = sandbox.containers.get(message["container"])
            if container is not None and container.exit is None:
                self._finish(sandbox, container, msgspec.convert(message["exit"], ExitRecord))
        elif message.get("event") == "exec exited":
            ended = sandbox.execs.setdefault(message["exec"], asyncio.get_running_loop().create_future())
            if not ended.done():
                ended.set_result(message["exit_code"])

    def _keeper_gone(self, sandbox: Sandbox, peer: Peer) -> None:
        """Replaces a keeper that died while its sandbox is meant to live."""
        for ended in sandbox.execs.values():
            if not ended.done():
                ended.set_result(137)
        sandbox.execs.clear()
        if sandbox.peer is not peer:
            return
        sandbox.peer = None
        if sandbox.record.ready and not sandbox.record.stopped:
            self._background(self._adopt_again(sandbox))

    async def _adopt_again(self, sandbox: Sandbox) -> None:
        async with sandbox.lock:
            if sandbox.peer is None and not sandbox.record.stopped:
                await self._adopt(sandbox)
        self._look_again(sandbox.record.config.uid)

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """See cri. Returns once nothing runs; the network is taken down in the background."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        async with sandbox.lock:
            if not sandbox.record.stopped:
                sandbox.record.stopped = True
                self._sandbox_records.write(sandbox.id, sandbox.record)
            async with asyncio.TaskGroup() as group:
                for container in sandbox.containers.values():
                    group.create_task(self.stop_container(container.id, 0))
            if sandbox.teardown is None or sandbox.teardown.done():
                sandbox.teardown = self._background(self._undo_sandbox(sandbox))
        self._look_again(sandbox.record.config.uid)

    async def _undo_sandbox(self, sandbox: Sandbox) -> None:
        """Takes down what a sandbox has outside its record: network, keeper, cgroup, directories. Each part may be gone already."""
        record = sandbox.record
        if record.attached and self.network is not None:
            network = self.network
            try:
                await self._in_thread(lambda: network.delete(sandbox.id, record.netns))
            except Exception as error:  # the next stop or removal tries again; the address stays taken until then
                self._warn(f"network of pod {record.config.namespace}/{record.config.name} is not taken down: {error}")
            else:
                record.attached = False
                self._sandbox_records.write(sandbox.id, record)
        if sandbox.peer is not None:
            peer, sandbox.peer = sandbox.peer, None
            with suppress(RuntimeServiceError):
                await peer.request({"op": "quit"}, timeout=5)
            peer.close()
        with suppress(OSError), wire.connect(self._launcher) as launcher:
            wire.send(launcher, {"op": "release", "sandbox": sandbox.id, "name": None})
        await self._in_thread(lambda: self._remove_kernel_objects(sandbox))

    def _remove_kernel_objects(self, sandbox: Sandbox) -> None:
        group = manager(sandbox.record.cgroup)
        try:
            group.kill_all()
            group.remove()
        except OSError as error:
            self._warn(f"cgroup {sandbox.record.cgroup} is not removed: {error}")
        if sandbox.record.netns:
            namespaces.unpin(sandbox.record.netns)
        shutil.rmtree(self.layout.sandbox(sandbox.id), ignore_errors=True)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """See cri."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        await self.stop_pod_sandbox(sandbox_id)
        for container in list(sandbox.containers):
            await self.remove_container(container)
        if sandbox.teardown is not None:
            await asyncio.shield(sandbox.teardown)
        if sandbox.record.attached:
            raise RuntimeServiceError("RemoveSandboxError", "the pod's network is not taken down yet")
        config = sandbox.record.config
        self._sandbox_records.remove(sandbox_id)
        self._sandboxes.pop(sandbox_id, None)
        if all(other.record.config.uid != config.uid for other in self._sandboxes.values()):
            trace.forget(self.layout.traces, config.namespace, config.name)

    # Containers.

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """See cri."""
        sandbox = self._sandbox(sandbox_id)
        async with sandbox.lock:
            for container in sandbox.containers.values():
                known = container.record.config
                if (known.name, known.attempt) == (config.name, config.attempt):
                    return container.id
            record = await self._record_container(sandbox, config)
            self._know_container(record, None)
        return record.id

    async def _record_container(self, sandbox: Sandbox, config: ContainerConfig) -> ContainerRecord:
        container_id = secrets.token_hex(32)

        def prepare() -> tuple[Image, Snapshot]:
            image = self._images.resolve(config.image)
            if image is None:
                raise RuntimeServiceError(
                    "CreateContainerError", f"image {config.image_name or config.image} not found"
                )
            return image, self._snapshots.prepare(container_id, image)

        try:
            image, snapshot = await self._in_thread(
                prepare if sandbox.trace is None else _recorded(sandbox.trace, prepare)
            )
        except (ImageError, OSError) as error:
            raise RuntimeServiceError(
                "CreateContainerError", f"cannot prepare the root file system: {error}"
            ) from error
        try:
            request = self._container_request(sandbox, config, image, container_id, snapshot)
            record = ContainerRecord(
                id=container_id,
                sandbox_id=sandbox.id,
                config=config,
                request=request,
                boot_id=pidfd.boot_id(),
                created_at=time.time_ns(),
            )
            self._container_records.write(container_id, record)
        except BaseException:
            self._snapshots.remove(container_id)
            raise
        return record

    def _container_request(
        self, sandbox: Sandbox, config: ContainerConfig, image: Image, container_id: str, snapshot: Snapshot
    ) -> dict[str, Any]:
        """Returns what a keeper is asked to start."""
        pod = sandbox.record.config
        if not pod.hostname:
            pod = msgspec.structs.replace(pod, hostname=pod.name)
        directory, shm = self.layout.sandbox(sandbox.id), self.layout.shm(sandbox.id)
        volumes = podfiles.mounts(directory, pod, shm, config.mounts)
        cgroup = f"{sandbox.record.cgroup}/{container_id}"
        hard = rlimits.get_limit("RLIMIT_NOFILE")[1]
        document = spec.container_spec(
            pod,
            config,
            image.config,
            mounts=volumes,
            hierarchies=hierarchies(),
            cgroup=cgroup,
            open_files=(min(_SOFT_OPEN_FILES, hard) if hard > 0 else _SOFT_OPEN_FILES, hard),
        )
        return {
            "id": container_id,
            "spec": document,
            "cgroup": cgroup,
            "limits": spec.limits(config.resources),
            "privileged": config.security.privileged,
            "pid": pod.namespaces.pid.value,
            "rootfs": {
                "lowers": [str(path) for path in snapshot.lowers],
                "upper": str(snapshot.upper),
                "work": str(snapshot.work),
                "mountPoint": self.layout.mount_point,
            },
            "runDir": self.layout.container(container_id),
            "exitPath": self.layout.exit_record(container_id),
            "logPath": os.path.join(pod.log_directory, config.log_path) if config.log_path else os.devnull,
            "stdin": config.stdin,
            "stdinOnce": config.stdin_once,
            "stopSignal": config.stop_signal or image.config.stop_signal or "SIGTERM",
        }

    async def start_container(self, container_id: str) -> None:
        """See cri."""
        container = self._container(container_id)
        sandbox = self._sandboxes[container.record.sandbox_id]
        async with sandbox.lock:
            if container.running:
                return
            if container.exit is not None:
                raise RuntimeServiceError("StartError", f"container {container_id} has already ended")
            volumes = await self._open_volumes(sandbox, container)
            try:
                message = {"op": "start", "container": container.record.request}
                answer, _ = await self._ask(sandbox, message, volumes, timeout=START_TIMEOUT)
            finally:
                wire.close(volumes)
            if sandbox.trace is not None:
                sandbox.trace.add("keeper", answer.get("steps", ()))
            if "error" in answer:
                self._fail_start(sandbox, container, answer)
            if sandbox.trace is not None:
                sandbox.trace.program_ran(answer["executed_ns"])
            self._note_started(container, answer["started_at"])
        self._background(self._save_trace(sandbox))

    async def _open_volumes(self, sandbox: Sandbox, container: Container) -> list[int]:
        """Opens the container's mounts in our mount namespace, as detached copies that need no path any more."""
        shm = self.layout.shm(sandbox.id)
        entries = [entry for entry in container.record.request["spec"]["mounts"] if entry["type"] == "bind"]
        opened: list[int] = []

        def open_all() -> None:
            for entry in entries:
                if entry["source"] != shm:
                    opened.append(mounts.open_tree(entry["source"]))

        try:
            await self._in_thread(open_all if sandbox.trace is None else _recorded(sandbox.trace, open_all))
        except OSError as error:
            wire.close(opened)
            message = f"failed to mount {error.filename}: {error.strerror}"
            raise RuntimeServiceError("CreateContainerError", message) from error
        return opened

    def _fail_start(self, sandbox: Sandbox, container: Container, answer: dict[str, Any]) -> None:
        """Notes that a container ended before its program ran, and raises why."""
        reason = answer.get("reason", "StartError")
        message = f"failed to start container: unable to start container process: {answer['error']}"
        ended = ExitRecord(exit_code=128, finished_at=time.time_ns(), reason=reason, message=message)
        self._exit_records.write(container.id, ended)
        self._finish(sandbox, container, ended)
        raise RuntimeServiceError(reason, message)

    def _note_started(self, container: Container, started_at: int) -> None:
        if not container.record.started_at:
            container.record.started_at = container.record.request["startedAt"] = started_at
            container.identity = pods.read_identity(self.layout, container.id)
            self._container_records.write(container.id, container.record)

    def _finish(self, sandbox: Sandbox, container: Container, ended: ExitRecord) -> None:
        container.finish(ended)
        self._look_again(sandbox.record.config.uid)

    async def stop_container(self, container_id: str, grace: float) -> None:
        """See cri."""
        container = self._containers.get(container_id)
        if container is None or container.identity is None:
            return
        if container.exit is None and grace > 0:
            self._signal(container, container.record.request["stopSignal"])
            with suppress(TimeoutError):
                await asyncio.wait_for(container.ended.wait(), grace)
        group = manager(container.record.request["cgroup"])
        gone = await self._in_thread(group.kill_all)
        if not gone:
            self._warn(f"container {container_id} does not end: a process of it is in uninterruptible sleep")
            raise RuntimeServiceError("KillContainerError", f"container {container_id} does not end")
        sandbox = self._sandboxes[container.record.sandbox_id]
        try:
            await asyncio.wait_for(container.ended.wait(), 10)
        except TimeoutError:  # no keeper is there to say how it ended
            self._finish(sandbox, container, adoption.lost(container))

    def _signal(self, container: Container, name: str) -> None:
        try:
            process = container.open_pidfd()
        except ProcessLookupError:
            return
        try:
            pidfd.send_signal(process, signals.number(name))
        except ValueError as error:
            self._warn(f"{error}; SIGTERM is sent instead")
            pidfd.send_signal(process, signals.SIGTERM)
        finally:
            os.close(process)

    async def remove_container(self, container_id: str) -> None:
        """See cri."""
        container = self._containers.get(container_id)
        if container is None:
            return
        if container.running:
            raise RuntimeServiceError("RemoveContainerError", f"container {container_id} is running")
        sandbox = self._sandboxes[container.record.sandbox_id]
        if sandbox.peer is not None and not sandbox.peer.closed:
            with suppress(RuntimeServiceError):
                await sandbox.peer.request({"op": "forget", "container": container_id}, timeout=5)
        await self._in_thread(lambda: self._remove_container_files(container))
        self._containers.pop(container_id, None)
        sandbox.containers.pop(container_id, None)
        self._background(self._reclaim())

    def _remove_container_files(self, container: Container) -> None:
        self._snapshots.remove(container.id)
        with suppress(OSError):
            manager(container.record.request["cgroup"]).remove()
        shutil.rmtree(self.layout.container(container.id), ignore_errors=True)
        self._exit_records.remove(container.id)
        self._container_records.remove(container.id)

    async def _reclaim(self) -> None:
        await self._in_thread(self._snapshots.reclaim)

    # Looking.

    async def list_pod_sandboxes(self) -> list[PodSandboxStatus]:
        """See cri."""
        return [sandbox.status() for sandbox in self._sandboxes.values()]

    async def list_containers(self, sandbox_id: str | None = None) -> list[ContainerStatus]:
        """See cri."""
        found = [c.status() for c in self._containers.values() if sandbox_id in (None, c.record.sandbox_id)]
        return sorted(found, key=lambda status: (status.name, -status.attempt))

    async def container_status(self, container_id: str) -> ContainerStatus | None:
        """See cri."""
        container = self._containers.get(container_id)
        return None if container is None else container.status()

    async def reopen_container_log(self, container_id: str) -> None:
        """CRI's ReopenContainerLog: the kubelet has renamed the log file, output goes to a new one."""
        container = self._container(container_id)
        sandbox = self._sandboxes[container.record.sandbox_id]
        answer, _ = await self._ask(sandbox, {"op": "reopen_log", "container": container_id})
        refuse_errors(answer)

    # Streams.

    async def exec(self, container_id: str, command: list[str], *, tty: bool = False, stdin: bool = False) -> Session:
        """See cri."""
        container = self._container(container_id)
        sandbox = self._sandboxes[container.record.sandbox_id]
        if not container.running:
            raise RuntimeServiceError("NotRunning", f"container {container_id} is not running")
        process = spec.exec_process(container.record.request["spec"]["process"], command, tty=tty)
        message = {"op": "exec", "container": container_id, "process": process, "stdin": stdin}
        answer, descriptors = await self._ask(sandbox, message, timeout=START_TIMEOUT)
        if "error" in answer:
            wire.close(descriptors)
            text = f"failed to exec in container: unable to start container process: {answer['error']}"
            raise RuntimeServiceError(answer.get("reason", "ExecError"), text)
        ended = sandbox.execs.setdefault(answer["exec"], asyncio.get_running_loop().create_future())
        ended.add_done_callback(lambda _: sandbox.execs.pop(answer["exec"], None))
        return Session(descriptors, ended, tty=tty, stdin=stdin)

    async def exec_sync(self, container_id: str, command: list[str], timeout: float = 0) -> ExecResult:
        """See cri. Raises TimeoutError when the command has not ended after `timeout` seconds; it is killed then."""
        session = await self.exec(container_id, command)
        try:
            async with asyncio.timeout(timeout or None):
                stdout, stderr = await asyncio.gather(_read_all(session.stdout), _read_all(session.stderr))
                return ExecResult(stdout, stderr, await session.wait())
        finally:
            session.close()

    async def attach(self, container_id: str) -> Session:
        """See cri."""
        container = self._container(container_id)
        sandbox = self._sandboxes[container.record.sandbox_id]
        answer, descriptors = await self._ask(sandbox, {"op": "attach", "container": container_id})
        refuse_errors(answer)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._background(_resolve_at_end(container, ended))

        async def resize(width: int, height: int) -> None:
            await self._ask(sandbox, {"op": "resize", "container": container_id, "width": width, "height": height})

        terminal = bool(answer["terminal"])
        return Session(
            descriptors, ended, tty=terminal, stdin=bool(answer["stdin"]), resize=resize if terminal else None
        )

    # Small things.

    async def _ask(
        self,
        sandbox: Sandbox,
        message: dict[str, Any],
        descriptors: Sequence[int] = (),
        *,
        timeout: float | None = None,
    ) -> tuple[dict[str, Any], list[int]]:
        if sandbox.peer is None:
            raise RuntimeServiceError("RuntimeUnavailable", f"sandbox {sandbox.id} has no keeper at the moment")
        return await sandbox.peer.request(message, descriptors, timeout=timeout)

    def _sandbox(self, sandbox_id: str) -> Sandbox:
        try:
            return self._sandboxes[sandbox_id]
        except KeyError:
            raise RuntimeServiceError("NotFound", f"no sandbox {sandbox_id}") from None

    def _container(self, container_id: str) -> Container:
        try:
            return self._containers[container_id]
        except KeyError:
            raise RuntimeServiceError("NotFound", f"no container {container_id}") from None

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _background(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _save_trace(self, sandbox: Sandbox) -> None:
        if sandbox.trace is not None:
            await self._in_thread(sandbox.trace.save)

    def _warn(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.warnings.append(sentence)


def _recorded(made: trace.PodTrace, function: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: made.record(function)


def _pin(netns: int, path: str) -> None:
    """Binds a network namespace to a path; one that is there from an attempt before is replaced."""
    namespaces.unpin(path)
    atomic.write(path, b"")
    mounts.bind(f"/proc/self/fd/{netns}", path, recursive=False)


def _port_mapping(mapping: Any) -> dict[str, Any]:
    return {
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": mapping.protocol.lower(),
        "hostIP": mapping.host_ip,
    }


async def _resolve_at_end(container: Container, ended: asyncio.Future[int]) -> None:
    await container.ended.wait()
    if not ended.done() and container.exit is not None:
        ended.set_result(container.exit.exit_code)


async def _read_all(fd: int | None) -> bytes:
    """Reads a pipe to its end; beyond 16 MiB the rest is read and dropped."""
    if fd is None:
        return b""
    loop = asyncio.get_running_loop()
    chunks: list[bytes] = []
    size = 0
    while True:
        try:
            chunk = os.read(fd, _READ_SIZE)
        except BlockingIOError:
            ready = loop.create_future()
            loop.add_reader(fd, lambda: ready.done() or ready.set_result(None))  # noqa: B023 -- removed before the next turn
            try:
                await ready
            finally:
                loop.remove_reader(fd)
            continue
        if not chunk:
            return b"".join(chunks)
        if size < _MOST_EXEC_OUTPUT:
            chunks.append(chunk)
            size += len(chunk)
