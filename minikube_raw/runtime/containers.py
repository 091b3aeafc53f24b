"""CRI's verbs on containers: create (record and directories), start (through the keeper), stop (to an empty cgroup), remove."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol

import msgspec

from minikube_raw.linux import capabilities, pidfd, rlimits, signals
from minikube_raw.linux.cgroup_mounts import hierarchies
from minikube_raw.linux.cgroups import manager
from minikube_raw.oci.images import Image, ImageError
from minikube_raw.oci.snapshots import Snapshot

from . import adoption, apparmor, filters, opening, podfiles, seccomp, spec, wire
from .cri import CREATE_ERROR, ContainerConfig, Device, RuntimeServiceError
from .emptying import Emptying
from .handlers import Handlers
from .keepers import Keepers
from .pods import Container, Sandbox
from .records import ContainerRecord, ExitRecord
from .restoring import RESTORING_VERSION, Checkpoint
from .roots import Roots, Spares
from .state import NodeState

START_TIMEOUT = 120.0
KILL_TIMEOUT = 10.0
PAUSE_SECONDS = 0.03  # after a start, until what the next one may need is made: the pod starts meanwhile
FIRST_TURN, LONGEST_TURN = 0.05, 0.4
EXIT_TIMEOUT = 10.0  # between an empty cgroup and its keeper's word about the exit code
_SOFT_OPEN_FILES = 1024


class Images(Protocol):
    """What the runtime needs of oci.images.ImageStore."""

    def resolve(self, text: str) -> Image | None:
        """The image of an id."""
        ...


class SnapshotStore(Spares, Protocol):
    """What the runtime needs of oci.snapshots.Snapshots."""

    def prepare(self, container_id: str, image: Image) -> Snapshot:
        """Makes a container's directories."""
        ...

    def hold(self, container_id: str, images: Sequence[Image]) -> list[list[Path]]:
        """Holds further images for a container that was prepared; their layers' directories, uppermost first."""
        ...

    def remove(self, container_id: str) -> None:
        """Gives them up, quickly."""
        ...

    @property
    def trash(self) -> str:
        """The directory that holds what was given up until it is emptied."""
        ...

    def list(self) -> list[str]:
        """Containers that have directories."""
        ...

    def discard_all(self) -> None:
        """Deletes directories that were made for no container yet."""
        ...


class Containers:
    """The container verbs of one node."""

    def __init__(
        self, state: NodeState, keepers: Keepers, images: Images, snapshots: SnapshotStore, handlers: Handlers
    ) -> None:
        self._state, self._keepers, self._images, self._snapshots = state, keepers, images, snapshots
        self._handlers = handlers
        self._roots = Roots(snapshots, state.layout.mount_points)
        self._emptying = Emptying(snapshots.trash)
        self._may_lower_oom_score = "CAP_SYS_RESOURCE" in capabilities.names(capabilities.available())

    async def create(self, sandbox_id: str, config: ContainerConfig) -> str:
        """CreateContainer. One of the same name and attempt is that container."""
        sandbox = self._state.sandbox(sandbox_id)
        began = time.monotonic_ns()
        async with sandbox.lock:
            for container in sandbox.containers.values():
                known = container.record.config
                if (known.name, known.attempt) == (config.name, config.attempt):
                    return container.id
            record, root = await self._record(sandbox, config)
            self._state.know_container(record).root = root
            if sandbox.trace is not None:
                sandbox.trace.block("CreateContainer", config.name, began)
        return record.id

    async def _record(self, sandbox: Sandbox, config: ContainerConfig) -> tuple[ContainerRecord, int]:
        """Writes down a container that has its directories; also returns its root file system as a mount, -1 if there is none yet."""
        container_id, root = sandbox.next_container_id(), -1

        def prepare() -> tuple[Image, Snapshot, dict[str, list[str]], str, Checkpoint | None]:
            confined_by = apparmor.profile(config.security)
            nonlocal root
            named = image = self._resolve(config.image, config.image_name)
            checkpoint = waiting = None
            if image.checkpoint:
                if 0 < sandbox.version < RESTORING_VERSION:
                    text = "the pod's keeper is of an older version, which restores no checkpoints: delete the pod and make it anew"
                    raise RuntimeServiceError(CREATE_ERROR, text)
                checkpoint = Checkpoint(image.checkpoint, self._snapshots.hold(container_id, [image])[0])
                image = checkpoint.base(self._images.resolve)
            elif self._is_usual(sandbox):
                waiting = self._roots.take(container_id, image)
            snapshot, root = waiting or (self._snapshots.prepare(container_id, image), -1)
            seen = [
                self._resolve(name) for name in dict.fromkeys(mount.image for mount in config.mounts if mount.image)
            ]
            used = [*seen, named] if checkpoint is not None else seen
            held = self._snapshots.hold(container_id, used) if used else []
            layers = {each.id: list(map(str, lowers)) for each, lowers in zip(used, held, strict=True)}
            if checkpoint is not None:
                checkpoint.unpack(snapshot)
            return image, snapshot, layers, confined_by, checkpoint

        try:
            try:
                image, snapshot, layers, confined_by, checkpoint = await self._state.in_thread(
                    lambda: sandbox.recorded(prepare)
                )
            except (ImageError, OSError) as error:
                text = f"cannot prepare the root file system: {error}"
                raise RuntimeServiceError("CreateContainerError", text) from error
            request = self._request(sandbox, config, image, container_id, snapshot, layers, confined_by)
            if checkpoint is not None:
                if "runtime" in request:
                    text = f"handler {sandbox.record.config.runtime_handler} restores no checkpoints: use another RuntimeClass"
                    raise RuntimeServiceError(CREATE_ERROR, text)
                request["restore"] = checkpoint.request(
                    sandbox.record.config, config, request["spec"], self._state.layout.shm(sandbox.id)
                )
            record = ContainerRecord(
                id=container_id,
                sandbox_id=sandbox.id,
                config=config,
                request=request,
                boot_id=pidfd.boot_id(),
                created_at=time.time_ns(),
            )
            self._state.container_records.write(container_id, record)
        except BaseException:  # a call that is called off, too
            wire.close([root])
            self._snapshots.remove(container_id)
            raise
        return record, root

    def _is_usual(self, sandbox: Sandbox) -> bool:
        """Whether a sandbox's containers can have root file systems that were mounted here, by whom it is now."""
        config = sandbox.record.config
        return not config.user_namespace and config.runtime_handler not in self._handlers and sandbox.version >= 2

    def _resolve(self, image_id: str, name: str = "") -> Image:
        image = self._images.resolve(image_id)
        if image is None:
            raise RuntimeServiceError("CreateContainerError", f"image {name or image_id} not found")
        return image

    def _request(
        self,
        sandbox: Sandbox,
        config: ContainerConfig,
        image: Image,
        container_id: str,
        snapshot: Snapshot,
        layers: dict[str, list[str]],
        confined_by: str,
    ) -> dict[str, Any]:
        """Returns what a keeper is asked to start: the OCI document and where everything of the container lies."""
        layout, pod = self._state.layout, sandbox.record.config
        pod = msgspec.structs.replace(pod, hostname=pod.hostname or pod.name)
        cgroup = f"{sandbox.record.cgroup}/{container_id}"
        foreign = pod.runtime_handler in self._handlers
        profile = seccomp.document(config.security, spec.capability_names(config), os.uname().machine)
        hard = rlimits.get_limit("RLIMIT_NOFILE")[1]
        document = spec.container_spec(
            pod,
            config,
            image.config,
            mounts=podfiles.mounts(
                layout.sandbox(sandbox.id), pod, layout.shm(sandbox.id), config.mounts, config.devices
            ),
            devices=[_device_rule(each) for each in config.devices],
            layers=layers,
            hierarchies=hierarchies(),
            cgroup=cgroup,
            open_files=(min(_SOFT_OPEN_FILES, hard) if hard > 0 else _SOFT_OPEN_FILES, hard),
            seccomp_filter=b"" if profile is None or foreign else filters.compile(profile),
            apparmor_profile=confined_by,
        )
        return {
            "id": container_id,
            "spec": document,
            "cgroup": cgroup,
            "limits": spec.limits(config.resources),
            "privileged": config.security.privileged,
            "pid": "TARGET" if config.pid_target else pod.namespaces.pid.value,
            "pidTarget": config.pid_target,
            "rootfs": {
                "lowers": [*map(str, snapshot.lowers), layout.mount_points],
                "upper": str(snapshot.upper),
                "work": str(snapshot.work),
                "mountPoint": layout.mount_point,
            },
            "runDir": layout.container(container_id),
            "exitPath": layout.exit_record(container_id),
            "logPath": os.path.join(pod.log_directory, config.log_path) if config.log_path else os.devnull,
            "stdin": config.stdin,
            "stdinOnce": config.stdin_once,
            "stopSignal": config.stop_signal or image.config.stop_signal or "SIGTERM",
            **self._handlers.request(pod, config, container_id, document),
        }

    async def start(self, container_id: str) -> None:
        """StartContainer."""
        sandbox, container = self._state.container(container_id)
        began = time.monotonic_ns()
        async with sandbox.lock:
            if container.running:
                return
            if container.exit is not None:
                raise RuntimeServiceError("StartError", f"container {container_id} has already ended")
            volumes = await self._open_volumes(sandbox, container)
            request = container.record.request
            if container.root >= 0:
                request = {**request, "rootGiven": True}
                volumes.append(container.take_root())
            try:
                message = {"op": "start", "container": request}
                answer, _ = await self._keepers.ask(sandbox, message, volumes, timeout=START_TIMEOUT)
            finally:
                wire.close(volumes)
            if sandbox.trace is not None:
                sandbox.trace.add(answer.get("steps", ()))
            if "error" in answer:
                await self._fail(sandbox, container, answer)
            if sandbox.trace is not None:
                sandbox.trace.program_ran(answer["executed_ns"])
                sandbox.trace.block("StartContainer", container.record.config.name, began)
            self._state.note_started(container, answer["started_at"])
            self._state.not_enforced(answer.get("not_enforced", ()))
            self._check_oom_score(container)
            if self._is_usual(sandbox) and "restore" not in container.record.request:
                self._state.background(self._make_root(container.record.config.image))
        if sandbox.trace is not None:
            sandbox.trace.save()

    async def _make_root(self, image_id: str) -> None:
        """Has the next container's root file system made."""
        await asyncio.sleep(PAUSE_SECONDS)

        def make() -> None:
            image = self._images.resolve(image_id)
            if image is not None:
                self._roots.make(image)

        with suppress(ImageError):  # the next container's creation meets it again, and tells
            await self._state.in_thread(make)

    def close(self) -> None:
        """Leaves: what was made for containers that may come goes."""
        self._roots.close()

    def _check_oom_score(self, container: Container) -> None:
        """Without CAP_SYS_RESOURCE an oom_score_adj cannot be lowered: the container has ours (runtime.init kept it)."""
        if container.record.config.resources.oom_score_adj < 0 and not self._may_lower_oom_score:
            self._state.not_enforced(["oom_score_adj below 0"], "it needs CAP_SYS_RESOURCE, which this host withholds")

    async def _open_volumes(self, sandbox: Sandbox, container: Container) -> list[int]:
        """Opens the container's mounts in our mount namespace, as detached copies that need no path any more."""
        shm = self._state.layout.shm(sandbox.id)
        entries = [entry for entry in container.record.request["spec"]["mounts"] if entry["type"] == "bind"]
        opened: list[int] = []

        def open_all() -> None:
            opened.extend(opening.open_volume(entry) for entry in entries if entry["source"] != shm)

        try:
            await self._state.in_thread(lambda: sandbox.recorded(open_all))
        except OSError as error:
            wire.close(opened)
            message = f"failed to mount {error.filename}: {os.strerror(error.errno or 0)}"
            raise RuntimeServiceError("CreateContainerError", message) from error
        return opened

    async def _fail(self, sandbox: Sandbox, container: Container, answer: dict[str, Any]) -> NoReturn:
        """Notes that a container ended before its program ran, and raises why; one that could not even be made is forgotten."""
        reason = answer.get("reason", "StartError")
        if reason == CREATE_ERROR:
            container.finish(ExitRecord(exit_code=128, finished_at=time.time_ns(), reason=reason))
            await self.remove(container.id)
            raise RuntimeServiceError(reason, f"failed to generate container spec: {answer['error']}")
        message = f"failed to start container: unable to start container process: {answer['error']}"
        ended = ExitRecord(exit_code=128, finished_at=time.time_ns(), reason=reason, message=message)
        self._state.exit_records.write(container.id, ended)
        container.finish(ended)
        self._state.look_again(sandbox.record.config.uid)
        raise RuntimeServiceError(reason, message)

    async def stop(self, container_id: str, grace: float) -> None:
        """StopContainer: the stop signal, `grace` seconds, then SIGKILL to the whole cgroup until it is empty."""
        container = self._state.containers.get(container_id)
        if container is None or container.identity is None:
            return
        if container.exit is None and grace > 0:
            asked = self._signal(container, container.record.request["stopSignal"])
            with suppress(TimeoutError):
                await asyncio.wait_for(container.ended.wait(), grace if asked else 0)
        if not await self._kill(container):
            text = f"container {container_id} does not end: a process of it is in uninterruptible sleep"
            raise RuntimeServiceError("KillContainerError", text)
        sandbox = self._state.sandboxes[container.record.sandbox_id]
        try:
            # The keeper of a stopped sandbox is not replaced any more, also if that had begun.
            told = sandbox.peer is not None or (sandbox.replacing and not sandbox.record.stopped)
            await asyncio.wait_for(container.ended.wait(), EXIT_TIMEOUT if told else 0)
        except TimeoutError:  # there is no keeper to say how it ended
            ended = self._state.exit_records.read(container.id) or adoption.lost(container)
            self._state.finish(sandbox, container, ended)

    async def _kill(self, container: Container) -> bool:
        """SIGKILL until the cgroup is empty; False if something of it resists.

        In short turns: containers that never end (uninterruptible sleep, somebody else's freezer) leave the threads to others.
        """
        group = manager(container.record.request["cgroup"])
        turn, end = FIRST_TURN, asyncio.get_running_loop().time() + KILL_TIMEOUT

        def kill() -> bool:
            return not group.exists() or group.kill_all(FIRST_TURN)

        while not await self._state.in_thread(kill):
            if asyncio.get_running_loop().time() > end:
                return False
            await asyncio.sleep(turn)
            turn = min(2 * turn, LONGEST_TURN)
        return True

    def _signal(self, container: Container, name: str) -> bool:
        """Sends a signal to the first process; False if it does not reach it."""
        try:
            number = signals.number(name)
        except ValueError as error:
            self._state.warn(f"{error}; SIGTERM is sent instead")
            number = signals.SIGTERM
        try:
            process = container.open_pidfd()
        except ProcessLookupError:
            return False
        try:
            pidfd.send_signal(process, number)
        except (
            PermissionError
        ) as error:  # an AppArmor profile that lets in no signal; what kills a whole cgroup is none
            self._state.warn(f"container {container.record.config.name} is killed without grace: {error}")
            return False
        finally:
            os.close(process)
        return True

    async def remove(self, container_id: str) -> None:
        """RemoveContainer. Its writable layer is put aside at once and deleted in the background."""
        container = self._state.containers.get(container_id)
        if container is None:
            return
        if container.running:
            raise RuntimeServiceError("RemoveContainerError", f"container {container_id} is running")
        sandbox = self._state.sandboxes[container.record.sandbox_id]
        with suppress(RuntimeServiceError):
            await self._keepers.ask(sandbox, {"op": "forget", "container": container_id})
        await self._state.in_thread(lambda: self._remove_files(container))
        self._state.containers.pop(container_id, None)
        sandbox.containers.pop(container_id, None)
        self.reclaim()

    def reclaim(self) -> None:
        """Has removed layers deleted in the background, also those of before a crash."""
        self._state.background(self.reclaimed())
        self._emptying.begin()

    async def reclaimed(self, seconds: float | None = None) -> None:
        """Waits until they are, or for so many seconds."""
        await self._emptying.done(seconds)

    def _remove_files(self, container: Container) -> None:
        self._handlers.delete(container.record.request)
        wire.close([container.take_root()])
        with suppress(OSError):  # a cgroup that is busy yet goes with its pod's
            manager(container.record.request["cgroup"]).remove()
        self._snapshots.remove(container.id)
        shutil.rmtree(self._state.layout.container(container.id), ignore_errors=True)
        self._state.container_records.remove(container.id)
        self._state.exit_records.remove(container.id)  # last: a container that is known must not lose its end


def _device_rule(device: Device) -> dict[str, Any]:
    """Which device may be used, as OCI says it; by number, which is the node's at this moment. Raises RuntimeServiceError."""
    try:
        found = os.stat(device.host_path)
    except OSError as error:
        text = f"failed to stat device {device.host_path}: {os.strerror(error.errno or 0).lower()}"
        raise RuntimeServiceError("CreateContainerError", text) from error
    if not stat.S_ISBLK(found.st_mode) and not stat.S_ISCHR(found.st_mode):
        raise RuntimeServiceError("CreateContainerError", f"{device.host_path} is not a device node")
    kind, number = "b" if stat.S_ISBLK(found.st_mode) else "c", found.st_rdev
    numbers = {"major": os.major(number), "minor": os.minor(number)}
    return {"allow": True, "type": kind, **numbers, "access": device.permissions}
