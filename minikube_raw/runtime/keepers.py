"""The kubelet's dealings with keepers: having the launcher start one, connecting to it again, replacing one that died."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from minikube_raw.linux.cgroup_mounts import hierarchies

from . import adoption, trace, wire
from .cri import RuntimeServiceError
from .launching import NODE
from .peers import Gone, Message, Peer, refuse_errors
from .pods import Sandbox, read_identity
from .records import ExitRecord, SandboxRecord
from .sandbox import is_usual
from .spares import Spares
from .spec import limits, usual_spec
from .state import NodeState

Answer = asyncio.Future[tuple[Message, list[int]]]

ANSWER_TIMEOUT = 30.0
LAUNCHER_TIMEOUT = 10.0
AGAIN_SECONDS = 0.02
KILLED = 137


class Keepers:
    """All keepers of a node, each the peer of its Sandbox."""

    def __init__(self, state: NodeState, launcher: str) -> None:
        self._state, self._launcher = state, launcher
        self._spares = Spares(launcher)

    def get_ready(self) -> None:
        """Has a keeper made for the next pod."""
        self._spares.want()

    def close(self) -> None:
        """Leaves: a keeper that waits for a pod ends."""
        self._spares.close()

    async def ask(
        self,
        sandbox: Sandbox,
        message: Message,
        descriptors: Sequence[int] = (),
        *,
        timeout: float | None = ANSWER_TIMEOUT,
    ) -> tuple[Message, list[int]]:
        """Sends a request to a sandbox's keeper and returns its answer; RuntimeServiceError when there is none at the moment."""
        if sandbox.peer is None:
            raise RuntimeServiceError("RuntimeUnavailable", f"sandbox {sandbox.id} has no keeper at the moment")
        return await sandbox.peer.request(message, descriptors, timeout=timeout)

    async def create(self, sandbox: Sandbox, netns: asyncio.Future[int]) -> Answer:
        """Starts the keeper of a new sandbox; returns the future of its answer. `netns` gets the network namespace before that."""
        request = self._request(sandbox.record)
        spare = self._spares.take() if is_usual(request) else None
        if spare is not None:
            with spare.orders:
                answered = self._order(sandbox, request, spare.orders)
            if answered is not None:
                netns.set_result(spare.netns)
                return answered
            os.close(spare.netns)
        return await self._start(sandbox, request, netns)

    def _order(self, sandbox: Sandbox, request: Message, orders: wire.Socket) -> Answer | None:
        """Gives a sandbox to the spare keeper; None when that has just ended."""
        ours, theirs = wire.pair()
        try:
            wire.send(orders, {"sandbox": request}, [theirs.fileno()])
        except OSError:
            ours.close()
            return None
        finally:
            theirs.close()
        sandbox.peer = self._peer(sandbox, ours)
        return sandbox.peer.first_answer()

    async def recover(self, sandbox: Sandbox) -> None:
        """Brings a recorded sandbox back into our hands: through its keeper, or a new one in its place."""
        sandbox.replacing = True  # should it die while we greet it, we do that here
        try:
            answer = await self._greet(sandbox)
        except (OSError, Gone):
            await self._adopt(sandbox)
        else:
            self._take_word(sandbox, answer)
            self._settle(sandbox)

    async def hear_out(self, sandbox: Sandbox) -> None:
        """Has the keeper of a sandbox that is being stopped tell how its containers end; one that died is not replaced."""
        try:
            answer = await self._greet(sandbox)
        except (OSError, Gone):
            self._give_up(sandbox)
        else:
            self._take_word(sandbox, answer)

    async def _greet(self, sandbox: Sandbox) -> Message:
        """Connects to a sandbox's keeper and returns what it knows. Raises OSError or Gone when there is none."""
        sandbox.peer = self._peer(sandbox, wire.connect(self._state.layout.keeper_socket(sandbox.id)))
        answer, _ = await self.ask(sandbox, {"op": "hello"})
        return answer

    async def dismiss(self, sandbox: Sandbox) -> None:
        """Ends a keeper and gives up what the launcher holds for its sandbox; both may be gone already."""
        if sandbox.peer is None:  # but a kubelet before us may have had one that nobody has heard of since
            with suppress(OSError):
                sandbox.peer = self._peer(sandbox, wire.connect(self._state.layout.keeper_socket(sandbox.id)))
        if sandbox.peer is not None:
            peer, sandbox.peer = sandbox.peer, None
            with suppress(RuntimeServiceError, TimeoutError):  # it has died; its sandbox is ending anyway
                await peer.request({"op": "quit"}, timeout=5)
            peer.close()
        with suppress(OSError), wire.connect(self._launcher) as launcher:  # a launcher that died holds nothing
            wire.send(launcher, {"op": "release", "sandbox": sandbox.id})

    def retain(self) -> None:
        """Tells the launcher which sandboxes there are: what it holds for others keeps namespaces of pods alive that are gone."""
        with suppress(OSError), wire.connect(self._launcher) as launcher:
            wire.send(launcher, {"op": "retain", "sandboxes": [*self._state.sandboxes, NODE]})

    async def hold(self, name: str, descriptor: int) -> None:
        """Gives the launcher a descriptor, ours no more, to hold for the agent that comes after us. Raises OSError without one."""
        try:
            with await self._connect_launcher() as launcher:
                wire.send(launcher, {"op": "hold", "sandbox": NODE, "name": name}, [descriptor])
        finally:
            wire.close([descriptor])

    def _request(self, record: SandboxRecord) -> Message:
        """Returns what a keeper must know of its sandbox."""
        config, layout = record.config, self._state.layout
        return {
            "id": record.id,
            "namespace": config.namespace,
            "name": config.name,
            "hostname": config.hostname or config.name,
            "network": config.namespaces.network.value,
            "ipc": config.namespaces.ipc.value,
            "pid": config.namespaces.pid.value,
            "sysctls": config.sysctls,
            "firstUserId": record.first_user_id,
            "foreign": record.foreign,
            "cgroup": record.cgroup,
            "limits": limits(config.resources),
            "shm": layout.shm(record.id),
            "socket": layout.keeper_socket(record.id),
            "mountPoint": layout.mount_point,
            "firstCgroup": f"{record.cgroup}/{record.first_container}" if record.first_container else "",
            "firstRunDir": layout.container(record.first_container),
            "trace": trace.trace_path(layout.traces, config.namespace, config.name),
            "usual": usual_spec(hierarchies()),
        }

    async def _adopt(self, sandbox: Sandbox) -> None:
        """Has a new keeper take over what a dead one left."""
        config = sandbox.record.config
        os.makedirs(self._state.layout.sandbox(sandbox.id), 0o755, exist_ok=True)
        for container in sandbox.containers.values():
            if container.identity is None and container.exit is None:
                # Whatever was let go counts as started, also if it has ended since: no program runs twice.
                container.identity = read_identity(self._state.layout, container.id)
        self._read_ends(sandbox)
        sandbox.replacing = True
        try:
            self._take_word(sandbox, await self._take_over(sandbox))
        except (RuntimeServiceError, TimeoutError) as error:
            self._give_up(sandbox)
            self._state.warn(f"no new keeper for pod {config.namespace}/{config.name}: {error}")
        finally:
            self._settle(sandbox)

    async def _take_over(self, sandbox: Sandbox) -> Message:
        """Returns what a new keeper found. One that dies over it, or whoever was to fork it, was killed as the last one was: again."""
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while True:
            request = adoption.adopt_request(self._request(sandbox.record), sandbox.containers.values())
            try:
                answered = await self._start(sandbox, request)
                answer, _ = await asyncio.wait_for(answered, ANSWER_TIMEOUT)
                return refuse_errors(answer)
            except Gone:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(AGAIN_SECONDS)

    def _give_up(self, sandbox: Sandbox) -> None:
        """Leaves a sandbox without a keeper, which makes it NOTREADY; containers that have ended have ended."""
        peer, sandbox.peer = sandbox.peer, None
        if peer is not None:
            peer.close()
        self._read_ends(sandbox)
        for container in sandbox.containers.values():
            if container.running and not container.is_alive():
                self._state.finish(sandbox, container, adoption.lost(container))

    def _read_ends(self, sandbox: Sandbox) -> None:
        """Takes note of the ends that a keeper wrote down and did not live to tell us."""
        for container in sandbox.containers.values():
            if container.running and (ended := self._state.exit_records.read(container.id)) is not None:
                self._state.finish(sandbox, container, ended)

    async def _start(self, sandbox: Sandbox, request: Message, netns: asyncio.Future[int] | None = None) -> Answer:
        ours, theirs = wire.pair()
        sandbox.peer = self._peer(sandbox, ours, netns)
        answered = sandbox.peer.first_answer()
        try:
            with await self._connect_launcher() as launcher:
                wire.send(launcher, {"op": "run", "sandbox": request}, [theirs.fileno()])
        except OSError as error:
            peer, sandbox.peer = sandbox.peer, None
            peer.close()
            raise RuntimeServiceError("RuntimeUnavailable", f"the launcher cannot be reached: {error}") from error
        finally:
            theirs.close()
        return answered

    async def _connect_launcher(self) -> wire.Socket:
        """Connects; a launcher that just died is being started again, so this waits for it a little."""
        deadline = time.monotonic() + LAUNCHER_TIMEOUT
        while True:
            try:
                return wire.connect(self._launcher)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(AGAIN_SECONDS)

    def _peer(self, sandbox: Sandbox, connection: wire.Socket, netns: asyncio.Future[int] | None = None) -> Peer:
        def on_event(message: Message, descriptors: list[int]) -> None:
            if message.get("event") == "network namespace" and netns is not None and not netns.done():
                netns.set_result(descriptors[0])
                return
            wire.close(descriptors)
            self._hear(sandbox, message)

        peer = Peer(connection, on_event, lambda: self._gone(sandbox, peer))
        return peer

    def _hear(self, sandbox: Sandbox, message: Message) -> None:
        if message.get("event") == "exited":
            container = sandbox.containers.get(message["container"])
            if container is not None:
                self._state.finish(sandbox, container, msgspec.convert(message["exit"], ExitRecord))
        elif message.get("event") == "exec exited":
            ended = sandbox.exec_ended(message["exec"])
            if not ended.done():
                ended.set_result(message["exit_code"])
        elif message.get("event") == "pause ended":
            self._take_word(sandbox, message)

    def _gone(self, sandbox: Sandbox, peer: Peer) -> None:
        """Replaces a keeper that died while its sandbox is meant to live."""
        for ended in sandbox.execs.values():
            if not ended.done():
                ended.set_result(KILLED)
        if sandbox.peer is not peer or sandbox.replacing:
            return
        if sandbox.record.stopped:
            self._give_up(sandbox)
            return
        sandbox.peer = None
        if sandbox.record.ready:
            sandbox.replacing = True
            self._state.background(self._replace(sandbox))

    async def _replace(self, sandbox: Sandbox) -> None:
        async with sandbox.lock:
            if sandbox.peer is None and not sandbox.record.stopped:
                await self._adopt(sandbox)
            else:
                self._settle(sandbox)
        self._state.look_again(sandbox.record.config.uid)

    def _settle(self, sandbox: Sandbox) -> None:
        """Ends a replacement; a keeper that died after its answer, when nobody heeded it yet, is replaced in turn."""
        sandbox.replacing = False
        if sandbox.peer is not None and sandbox.peer.closed:
            self._gone(sandbox, sandbox.peer)

    def _take_word(self, sandbox: Sandbox, hello: Message) -> None:
        """Brings our containers up to what a keeper knows; one that ran, has no record and is unknown to it is lost."""
        sandbox.version = hello["version"]
        sandbox.pause_ended = hello.get("pause_ended", False)
        for container in sandbox.containers.values():
            known = hello["containers"].get(container.id)
            if known is None and container.running:
                self._state.finish(sandbox, container, adoption.lost(container))
            elif known is not None and known["started_at"]:
                self._state.note_started(container, known["started_at"])
            if known is not None and known["exit"] is not None:
                self._state.finish(sandbox, container, msgspec.convert(known["exit"], ExitRecord))
        self._state.look_again(sandbox.record.config.uid)
