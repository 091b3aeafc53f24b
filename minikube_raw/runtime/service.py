"""RuntimeService for the kubelet: CRI's verbs, carried out by launcher and keepers, CNI in threads, records on disk.

It holds no process itself: everything it knows is in records or comes from keepers, so a restarted kubelet calls start()
and goes on where the last one stopped. The verbs themselves are in sandboxes.py, containers.py and streams.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from minikube_raw.linux import pidfd
from minikube_raw.oci.images import ImageStore
from minikube_raw.oci.snapshots import Snapshots

from . import adoption, filters, podfiles, sweep
from .checkpointing import Checkpoints
from .containers import Containers, Images, SnapshotStore
from .cri import (
    ContainerConfig,
    ContainerStatus,
    ExecResult,
    LinuxContainerResources,
    PodSandboxConfig,
    PodSandboxStatus,
    RuntimeServiceError,
)
from .handlers import Handlers
from .keepers import Keepers
from .launching import launcher_socket
from .layout import Layout
from .networking import Attacher
from .pods import Sandbox
from .resources import Resources
from .sandboxes import Sandboxes
from .sessions import Session
from .state import NodeState
from .streams import Streams

log = logging.getLogger(__name__)


class Runtime:
    """The runtime of one node; see cri.RuntimeService for the verbs.

    `cgroup_root` is the node's cgroup, below which every cgroup_parent lies. `network` may be None until the node has its
    pod CIDR, and be set later. `snapshots` are by default the image store's own, in the state directory. `handlers` are the
    OCI runtimes of the host that pods may name, as commands.
    """

    def __init__(
        self,
        state_dir: str | Path,
        run_dir: str | Path,
        cgroup_root: str,
        images: ImageStore | Images,
        network: Attacher | None = None,
        launcher: str = "",
        *,
        snapshots: SnapshotStore | None = None,
        handlers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        layout = Layout(str(state_dir), str(run_dir))
        layout.make()
        podfiles.make_mount_points(layout.mount_points)
        if snapshots is None:
            assert isinstance(images, ImageStore)
            snapshots = Snapshots(images, Path(layout.snapshots))
        self._state = NodeState(layout, cgroup_root)
        self._snapshots = snapshots
        self._keepers = Keepers(self._state, launcher or launcher_socket(run_dir))
        self._handlers = Handlers(layout, handlers or {})
        self._sandboxes = Sandboxes(self._state, self._keepers, network, self._handlers)
        self._containers = Containers(self._state, self._keepers, images, snapshots, self._handlers)
        self._resources = Resources(self._state)
        self._checkpoints = Checkpoints(self._state)
        self._streams = Streams(self._state, self._keepers)

    @property
    def network(self) -> Attacher | None:
        """The pod network; set it when the node has one."""
        return self._sandboxes.network

    @network.setter
    def network(self, network: Attacher | None) -> None:
        self._sandboxes.network = network

    @property
    def warnings(self) -> list[str]:
        """Problems that stopped nobody, as sentences for Events; the caller may clear the list."""
        return self._state.warnings

    @property
    def traces(self) -> str:
        """The directory of the pods' traces (see trace.py)."""
        return self._state.layout.traces

    async def start(self) -> None:
        """Reads the records, removes what none of them owns, connects to the keepers and replaces those that died."""
        self._state.load()
        self._state.background(self._warm_up())
        await self._state.in_thread(self._sweep)
        self._containers.reclaim()
        self._keepers.retain()
        async with asyncio.TaskGroup() as group:
            for sandbox in self._state.sandboxes.values():
                group.create_task(self._recover(sandbox))
        self._keepers.get_ready()

    async def _warm_up(self) -> None:
        try:
            await self._state.in_thread(filters.warm_up)
        except RuntimeServiceError as error:
            self._state.warn(f"containers cannot be started: {error}")

    def _sweep(self) -> None:
        state = self._state
        cgroups = {sandbox.record.cgroup for sandbox in state.sandboxes.values()}
        owned = sweep.Owned(set(state.sandboxes), set(state.containers), cgroups)
        self._handlers.sweep(owned.containers)
        self._snapshots.discard_all()
        for removed in sweep.sweep(state.layout, state.cgroup_root, self._snapshots, owned):
            log.info("swept %s", removed)

    async def _recover(self, sandbox: Sandbox) -> None:
        record = sandbox.record
        if record.boot_id != pidfd.boot_id() or not os.path.isdir(self._state.layout.sandbox(sandbox.id)):
            self._bury(sandbox)
        elif record.ready and not record.stopped:
            await self._keepers.recover(sandbox)
        elif record.stopped:
            await self._keepers.hear_out(sandbox)

    def _bury(self, sandbox: Sandbox) -> None:
        """Marks a sandbox of an earlier boot as stopped: nothing of it can run any more."""
        sandbox.record.stopped = True
        self._state.sandbox_records.write(sandbox.id, sandbox.record)
        for container in sandbox.containers.values():
            if container.running:
                self._state.finish(sandbox, container, adoption.lost(container))

    async def hold(self, name: str, descriptor: int) -> None:
        """Has the launcher hold a descriptor, ours no more, for the agent that comes after us. Raises OSError."""
        await self._keepers.hold(name, descriptor)

    async def close(self) -> None:
        """Leaves: connections are closed, pods run on."""
        self._keepers.close()
        await self._state.close()
        self._containers.close()

    async def settled(self) -> None:
        """Waits until everything that goes on in the background (network teardown, deletion, traces) is done."""
        await self._state.settled()

    async def removals_done(self, seconds: float) -> None:
        """See cri."""
        await self._containers.reclaimed(seconds)

    def on_warning(self, tell: Callable[[str, str], None]) -> None:
        """See cri."""
        self._state.tell = tell

    def writable_layer(self, container_id: str) -> str:
        """See cri."""
        return f"{self._state.layout.snapshots}/{container_id}/upper"

    async def update_container_resources(self, container_id: str, resources: LinuxContainerResources) -> None:
        """See cri."""
        await self._resources.update_container(container_id, resources)

    async def update_pod_sandbox_resources(self, sandbox_id: str, resources: LinuxContainerResources) -> None:
        """See cri."""
        await self._resources.update_sandbox(sandbox_id, resources)

    def on_change(self, look_again: Callable[[str], None]) -> None:
        """See cri."""
        self._state.look_again = look_again

    async def run_pod_sandbox(self, config: PodSandboxConfig) -> str:
        """See cri."""
        return await self._sandboxes.run(config)

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """See cri."""
        await self._sandboxes.stop(sandbox_id, self._containers.stop)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """See cri."""
        sandbox = self._state.sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        await self._sandboxes.stop(sandbox_id, self._containers.stop)
        for container_id in list(sandbox.containers):
            await self._containers.remove(container_id)
        await self._sandboxes.remove(sandbox_id)

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """See cri."""
        return await self._containers.create(sandbox_id, config)

    async def start_container(self, container_id: str) -> None:
        """See cri."""
        await self._containers.start(container_id)

    async def stop_container(self, container_id: str, grace: float) -> None:
        """See cri."""
        await self._containers.stop(container_id, grace)

    async def remove_container(self, container_id: str) -> None:
        """See cri."""
        await self._containers.remove(container_id)

    async def list_pod_sandboxes(self, uid: str | None = None) -> list[PodSandboxStatus]:
        """See cri."""
        known = self._state.sandboxes.values() if uid is None else self._state.sandboxes_of(uid)
        return [sandbox.status() for sandbox in known]

    async def list_containers(self, sandbox_id: str | None = None) -> list[ContainerStatus]:
        """See cri."""
        if sandbox_id is None:
            known = self._state.containers
        else:
            known = self._state.sandboxes[sandbox_id].containers if sandbox_id in self._state.sandboxes else {}
        return sorted(
            (container.status() for container in known.values()), key=lambda status: (status.name, -status.attempt)
        )

    async def container_status(self, container_id: str) -> ContainerStatus | None:
        """See cri."""
        container = self._state.containers.get(container_id)
        return None if container is None else container.status()

    async def reopen_container_log(self, container_id: str) -> None:
        """CRI's ReopenContainerLog: the kubelet has renamed the log file, output goes to a new one of the old name."""
        await self._streams.reopen_log(container_id)

    async def checkpoint_container(self, container_id: str, location: str, timeout: float = 0) -> None:
        """See cri."""
        await self._checkpoints.checkpoint(container_id, location, timeout)

    async def exec_sync(self, container_id: str, command: list[str], timeout: float = 0) -> ExecResult:
        """See cri."""
        return await self._streams.exec_sync(container_id, command, timeout)

    async def exec(self, container_id: str, command: list[str], *, tty: bool = False, stdin: bool = False) -> Session:
        """See cri."""
        return await self._streams.exec(container_id, command, tty=tty, stdin=stdin)

    async def attach(self, container_id: str) -> Session:
        """See cri."""
        return await self._streams.attach(container_id)

    async def port_forward(self, sandbox_id: str, port: int) -> socket.socket:
        """See cri."""
        return await self._streams.port_forward(sandbox_id, port)
