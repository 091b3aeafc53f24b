"""CRI's verbs on pod sandboxes: run, stop, remove, each able to go on where a crash interrupted it."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable

from minikube_raw.linux import features, namespaces, pidfd
from minikube_raw.linux.cgroups import manager

from . import networking, podfiles, trace, userids
from .cri import NamespaceMode, PodSandboxConfig, RuntimeServiceError
from .handlers import Handlers
from .keepers import Keepers
from .pods import Sandbox
from .records import SandboxRecord
from .state import NodeState

SANDBOX_TIMEOUT = 30.0
# Sandboxes made at once; more would start no pod sooner, and let everything else on the node wait behind them. One whose network
# hangs must not hold up all others on a machine with one CPU.
AT_ONCE = max(2, os.cpu_count() or 1)


class Sandboxes:
    """The sandbox verbs of one node. `network` may be set late: until then only pods on the node's network start."""

    def __init__(
        self, state: NodeState, keepers: Keepers, network: networking.Attacher | None, handlers: Handlers
    ) -> None:
        self._state, self._keepers, self._handlers = state, keepers, handlers
        self.network = network
        self._making = asyncio.Semaphore(AT_ONCE)

    async def run(self, config: PodSandboxConfig) -> str:
        """RunPodSandbox."""
        self._handlers.check(config)
        sandbox = self._find(config)
        if sandbox is not None and not sandbox.record.ready and not sandbox.lock.locked():
            # Interrupted by a crash. A keeper may still be at it, so nothing of the new attempt may bear the same name.
            await self._give_up(sandbox)
            sandbox = None
        await self._torn_down(config.uid)
        sandbox = sandbox or self._record(config)
        async with sandbox.lock:
            if sandbox.record.ready:
                return sandbox.id
            try:
                async with self._making:
                    await self._make(sandbox)
            except BaseException:
                await self._undo(sandbox)
                raise
        return sandbox.id

    async def _torn_down(self, uid: str) -> None:
        """Waits for the end of earlier sandboxes of a pod: the pod's cgroup, which they take down, is the new one's too."""
        earlier = [each.teardown for each in self._state.sandboxes_of(uid) if each.teardown is not None]
        if earlier:
            await asyncio.wait(earlier)

    async def _give_up(self, sandbox: Sandbox) -> None:
        """Undoes and forgets a sandbox that was never ready; one whose network resists stays, stopped, until its removal."""
        async with sandbox.lock:
            sandbox.record.stopped = True
            self._state.sandbox_records.write(sandbox.id, sandbox.record)
            await self._undo(sandbox)
        if not sandbox.record.attached:
            self._forget(sandbox)

    def _find(self, config: PodSandboxConfig) -> Sandbox | None:
        for sandbox in self._state.sandboxes_of(config.uid):
            if sandbox.record.config.attempt == config.attempt and not sandbox.record.stopped:
                return sandbox
        return None

    def _record(self, config: PodSandboxConfig) -> Sandbox:
        parent = config.cgroup_parent.strip("/") or f"kubepods/pod{config.uid}"
        sandbox_id = secrets.token_hex(32)
        networked = config.namespaces.network is not NamespaceMode.NODE
        foreign = config.runtime_handler in self._handlers
        record = SandboxRecord(
            id=sandbox_id,
            config=config,
            cgroup=f"{self._state.cgroup_root}/{parent}",
            boot_id=pidfd.boot_id(),
            created_at=time.time_ns(),
            foreign=foreign,
            first_container="" if foreign else secrets.token_hex(32),
            netns=self._state.layout.netns(sandbox_id) if networked else "",
            attached=networked,
        )
        if config.user_namespace:
            self._claim_user_ids(record)
        else:
            self._state.sandbox_records.write(record.id, record)
        return self._state.know_sandbox(record)

    def _claim_user_ids(self, record: SandboxRecord) -> None:
        """Writes the record with a range of user ids of its own, or raises why this node cannot have such pods."""
        if not features.idmapped_mounts():
            text = "can't set `spec.hostUsers: false`, this kernel cannot mount everything with other owners; Linux 6.3 can"
            raise RuntimeServiceError("CreatePodSandboxError", text)

        def write(first: int) -> None:
            record.first_user_id = first
            self._state.sandbox_records.write(record.id, record)

        userids.claim(self._state.sandbox_records.path(record.id), write)

    async def _make(self, sandbox: Sandbox) -> None:
        """Has a keeper make the sandbox while CNI attaches its network, then writes the pod's files."""
        record, config, layout = sandbox.record, sandbox.record.config, self._state.layout
        path = trace.trace_path(layout.traces, config.namespace, config.name)
        recorded = sandbox.trace = trace.PodTrace(path, f"{config.namespace}/{config.name}")
        os.makedirs(layout.sandbox(sandbox.id), 0o755, exist_ok=True)
        netns: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(SANDBOX_TIMEOUT):
            answered = await self._keepers.create(sandbox, netns)
            if record.netns:
                await asyncio.wait((netns, answered), return_when=asyncio.FIRST_COMPLETED)
                if netns.done():
                    await self._attach(sandbox, recorded, netns.result())
            answer, _ = await answered
        recorded.add(answer.get("steps", ()))
        if "error" in answer:
            raise RuntimeServiceError("CreatePodSandboxError", f"failed to create pod sandbox: {answer['error']}")
        sandbox.version = answer["version"]
        self._state.not_enforced(answer.get("not_enforced", ()))
        recorded.record(lambda: podfiles.write(layout.sandbox(sandbox.id), config, record.ips))
        record.ready = True
        self._state.sandbox_records.write(sandbox.id, record)
        recorded.block("RunPodSandbox", f"{config.namespace}/{config.name}", recorded.began)

    async def _attach(self, sandbox: Sandbox, recorded: trace.PodTrace, netns: int) -> None:
        record = sandbox.record
        if not record.attached:  # an attempt before this one was undone
            record.attached = True
            self._state.sandbox_records.write(sandbox.id, record)
        work = networking.attach(self.network, sandbox.id, record.config, netns, record.netns)
        record.ips = await self._state.in_thread(lambda: recorded.record(work, who="cni"))

    async def stop(self, sandbox_id: str, stop_container: Callable[[str, float], Awaitable[None]]) -> None:
        """StopPodSandbox: returns once nothing runs; the network is taken down in the background."""
        sandbox = self._state.sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        async with sandbox.lock:
            if not sandbox.record.stopped:
                sandbox.record.stopped = True
                self._state.sandbox_records.write(sandbox.id, sandbox.record)
            await asyncio.gather(*(stop_container(container, 0) for container in list(sandbox.containers)))
            if sandbox.teardown is None or sandbox.teardown.done():
                sandbox.teardown = self._state.background(self._undo(sandbox))
        self._state.look_again(sandbox.record.config.uid)

    async def _undo(self, sandbox: Sandbox) -> None:
        """Takes down what a sandbox has outside its record: network, keeper, cgroup, directories. Each may be gone already."""
        await self._detach(sandbox)
        await self._keepers.dismiss(sandbox)
        await self._state.in_thread(lambda: self._remove_kernel_objects(sandbox))

    async def _detach(self, sandbox: Sandbox) -> None:
        record, network = sandbox.record, self.network
        if not record.attached or network is None:
            return
        try:
            await self._state.in_thread(lambda: network.delete(sandbox.id, record.netns))
        except (
            Exception
        ) as error:  # any plugin's: the next stop or removal tries again, the address stays taken until then
            pod = f"{record.config.namespace}/{record.config.name}"
            self._state.warn(f"the network of pod {pod} is not taken down yet: {error}")
        else:
            record.attached = False
            self._state.sandbox_records.write(sandbox.id, record)

    def _remove_kernel_objects(self, sandbox: Sandbox) -> None:
        for path in self._own_cgroups(sandbox):
            group = manager(path)
            try:
                if group.exists():
                    group.kill_all()
                group.remove()
            except OSError as error:
                self._state.warn(f"cgroup {path} is not removed yet: {error}")
        if sandbox.record.netns:
            namespaces.unpin(sandbox.record.netns)
        layout, first = self._state.layout, sandbox.record.first_container
        shutil.rmtree(layout.sandbox(sandbox.id), ignore_errors=True)
        if first and first not in self._state.containers:  # FIFOs were made for it, but it was not
            shutil.rmtree(layout.container(first), ignore_errors=True)

    def _own_cgroups(self, sandbox: Sandbox) -> list[str]:
        """The pod's cgroup; only what is in it of this sandbox when another of the same pod lives there."""
        pod = sandbox.record.cgroup
        others = (each for each in self._state.sandboxes_of(sandbox.record.config.uid) if each is not sandbox)
        if not any(each.record.cgroup == pod and not each.record.stopped for each in others):
            return [pod]
        return [f"{pod}/{name}" for name in {*sandbox.containers, sandbox.record.first_container} - {""}]

    async def remove(self, sandbox_id: str) -> None:
        """RemovePodSandbox, for a sandbox that is stopped and has no containers any more."""
        sandbox = self._state.sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        if sandbox.teardown is not None:
            await asyncio.shield(sandbox.teardown)
        if sandbox.record.attached:
            raise RuntimeServiceError("RemovePodSandboxError", "the pod's network is not taken down yet")
        config = sandbox.record.config
        self._forget(sandbox)
        if not self._state.sandboxes_of(config.uid):
            trace.forget(self._state.layout.traces, config.namespace, config.name)

    def _forget(self, sandbox: Sandbox) -> None:
        self._state.sandbox_records.remove(sandbox.id)
        if sandbox.record.first_user_id:
            userids.release(sandbox.record.first_user_id)
        self._state.forget_sandbox(sandbox)
