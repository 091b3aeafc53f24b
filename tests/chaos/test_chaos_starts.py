"""Kills at random into the few milliseconds of a pod's start or removal, with a seed (CHAOS_SEED, CHAOS_KILLS), and no cluster.

Some of kubelet, launcher, template, keeper, worker and waiting child are killed at once; the runtime is then asked again, as
a kubelet does. What runs afterwards must be as isolated as it was asked to be and have run once, and nothing may stay behind.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from minikube_raw.linux import features
from minikube_raw.linux.cgroups import manager
from minikube_raw.runtime.cri import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    NamespaceMode,
    NamespaceOption,
    ProfileType,
    RuntimeServiceError,
    SandboxState,
    SecurityContext,
    SecurityProfile,
)
from minikube_raw.runtime.template import TITLE
from tests.kernel.runtime.runtime_node import SHARED_PID, Node, container, eventually, parent, title

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

SEED = int(os.environ.get("CHAOS_SEED", "7"))
KILLS = int(os.environ.get("CHAOS_KILLS", "25"))
ROLES = ("kubelet", "launcher", "template", "keeper", "worker", "child")
PATIENCE = 20.0  # seconds
START = 0.08  # seconds that a start takes, or more
SCRIPT = "trap 'echo bye; exit 7' TERM; echo hello; i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shared pid": {"namespaces": SHARED_PID},
    "users of its own": {"user_namespace": True},
    "host network": {"namespaces": NamespaceOption(network=NamespaceMode.NODE)},
}
SECCOMP = {ProfileType.RUNTIME_DEFAULT: "2", ProfileType.UNCONFINED: "0"}  # as /proc/PID/status has it


@dataclass
class Life:
    """One pod: what is asked of the runtime, and what it said of each run of a container."""

    node: Node
    chance: random.Random
    number: int
    kind: str = ""
    names: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        kinds = [kind for kind in KINDS if kind != "users of its own" or features.idmapped_mounts()]
        self.kind, self.names = self.chance.choice(kinds), ["a", "b"][: self.chance.randint(1, 2)]
        self.seccomp = self.chance.choice(list(SECCOMP))
        self.moment = self.chance.choice(("start", "restart", "removal"))
        self.victims = self.chance.sample(ROLES, self.chance.choice((1, 1, 2, 2, 3, 4, 6)))
        self.delay = self.chance.random() * START
        self.uid, self.attempt = f"chaos{self.number}", 0
        self.runtime = self.node.make_runtime()

    def __str__(self) -> str:
        who = f"{', '.join(self.victims)} (pids {', '.join(self.killed)})"
        return f"CHAOS_SEED={SEED}, round {self.number}: {self.kind} {self.names}, {self.moment} + {self.delay:.3f} s, {who}"

    def config(self, name: str, attempt: int) -> ContainerConfig:
        security = SecurityContext(seccomp=SecurityProfile(self.seccomp))
        asked = container("sh", "-c", SCRIPT, name=name, attempt=attempt, security=security)
        return msgspec.structs.replace(asked, log_path=f"{name}/{attempt}.log")

    async def run(self) -> None:
        """What a kubelet does until each container runs: a ready sandbox is used, another replaced; what ended is run again."""
        sandboxes = await self.runtime.list_pod_sandboxes(self.uid)
        for each in sandboxes:
            if each.state is not SandboxState.READY:
                await self.runtime.stop_pod_sandbox(each.id)
                self.attempt = max(self.attempt, each.config.attempt + 1)
        ready = [each.config.attempt for each in sandboxes if each.state is SandboxState.READY]
        pod = self.node.pod(self.uid, uid=self.uid, attempt=ready[0] if ready else self.attempt, **KINDS[self.kind])
        sandbox = await self.runtime.run_pod_sandbox(pod)
        for name in self.names:
            await self.run_container(sandbox, name)

    async def run_container(self, sandbox: str, name: str) -> None:
        runs = {each.attempt: each for each in await self.statuses() if each.name == name}
        newest = max(runs, default=-1)
        if newest < 0 or runs[newest].state is ContainerState.EXITED or runs[newest].sandbox_id != sandbox:
            newest += 1
        while (self.node.logs / self.uid / name / f"{newest}.log").exists() and newest not in runs:
            newest += 1  # a run whose record is gone
        await self.runtime.start_container(await self.runtime.create_container(sandbox, self.config(name, newest)))

    async def remove(self) -> None:
        for each in await self.runtime.list_pod_sandboxes(self.uid):
            await self.runtime.remove_pod_sandbox(each.id)
        await self.runtime.settled()

    async def statuses(self) -> list[ContainerStatus]:
        return list(await self.runtime.list_containers())

    async def insist(self, what: Callable[[], Awaitable[None]]) -> None:
        """Ask again, as a kubelet does, for as long as the runtime refuses."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                await what()
                return
            except RuntimeServiceError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.01)

    def lines(self, name: str, attempt: int) -> list[str]:
        path = self.node.logs / self.uid / name / f"{attempt}.log"
        return [line.split(" ", 3)[3] for line in path.read_text().splitlines()] if path.exists() else []

    async def strike(self, doing: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Kill the victims in the midst of what is being done, and bring back who has to be brought back."""
        task = asyncio.create_task(doing())
        await asyncio.sleep(self.delay)
        found = roles(self.node, self.uid)
        for pid in (pid for role in self.victims for pid in found.get(role, ())):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.killed.append(str(pid))
        if "kubelet" in self.victims:
            self.killed.append("kubelet")
            await self.runtime.close()
            task.cancel()
        await asyncio.wait([task])
        failed = None if task.cancelled() else task.exception()  # nobody hears what a dropped kubelet says
        if failed is not None and not isinstance(failed, RuntimeServiceError) and "kubelet" not in self.victims:
            raise failed
        if "launcher" in self.victims:
            assert self.node.launcher is not None
            self.node.launcher.wait()
            self.node.start_launcher()
            await self.node.wait_for_launcher()
        if "kubelet" in self.victims:
            self.runtime = self.node.make_runtime()
            await self.runtime.start()
        await self.told()

    async def told(self) -> None:
        """Wait until the runtime knows of the ends of all containers that the blow has ended."""
        await eventually(lambda: all(is_over(int(pid)) for pid in self.killed if pid != "kubelet"))
        # Only a new keeper knows of a container whose start the blow has interrupted.
        await eventually(lambda: not any(each.replacing for each in self.runtime._state.sandboxes.values()))
        for status in await self.statuses():
            if status.state is ContainerState.RUNNING and is_over(status.pid):
                try:
                    await asyncio.wait_for(self.runtime._state.containers[status.id].ended.wait(), 60)
                except TimeoutError as error:
                    error.add_note(await self.known(status))
                    raise

    async def known(self, status: ContainerStatus) -> str:
        """What the runtime and the pod's keeper know of a container, for whoever wonders."""
        state = self.runtime._state
        sandbox, made = state.sandboxes[status.sandbox_id], state.containers[status.id]
        try:
            word, _ = await self.runtime._keepers.ask(sandbox, {"op": "hello"})
        except RuntimeServiceError as error:
            word = {"error": str(error)}
        record = f"ready {sandbox.record.ready}, stopped {sandbox.record.stopped}, replacing {sandbox.replacing}"
        return f"{status}; sandbox: {record}; identity {made.identity}; keeper: {word}"


def is_over(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    return True


def roles(node: Node, name: str) -> dict[str, list[int]]:
    """Who is there to be killed of a node, and of a pod."""
    found: dict[str, list[int]] = {role: [] for role in ROLES}
    assert node.launcher is not None
    found["launcher"] = [node.launcher.pid]
    for pid in processes(node, "system"):
        text = title(pid)
        if text == TITLE:
            found["template"].append(pid)
        elif text == f"keeper default/{name}":
            with suppress(OSError):
                found["worker" if title(parent(pid)).startswith("keeper default/") else "keeper"].append(pid)
    found["child"] = processes(node, "kubepods")
    return found


def processes(node: Node, group: str) -> list[int]:
    with suppress(OSError):
        return manager(f"{node.cgroup}/{group}").procs(recursive=True)
    return []


def namespaces(pid: int | str) -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "ipc", "uts", "mnt", "pid", "user")}


async def expect_isolated(life: Life) -> None:
    """Each container runs, as it was asked to, and said hello once."""
    nodes = namespaces("self")
    running = [each for each in await life.statuses() if each.state is ContainerState.RUNNING]
    assert Counter(each.name for each in running) == Counter(life.names)
    shared = {"net", "ipc", "uts"} | ({"pid"} if life.kind == "shared pid" else set())
    shared |= {"user"}
    of_node = {"net", "uts"} if life.kind == "host network" else set()
    of_node |= set() if life.kind == "users of its own" else {"user"}
    found = [namespaces(each.pid) for each in running]
    for status, own in zip(running, found, strict=True):
        assert {kind for kind in own if own[kind] == nodes[kind]} == of_node
        if "net" not in of_node:
            pinned = os.stat(life.node.run / "netns" / status.sandbox_id).st_ino
            assert own["net"] == f"net:[{pinned}]"
        request = life.runtime._state.containers[status.id].record.request
        assert status.pid in manager(request["cgroup"]).procs(recursive=True)
        seccomp = re.search(r"(?m)^Seccomp:\s(\d)", Path(f"/proc/{status.pid}/status").read_text())
        assert seccomp is not None
        assert seccomp[1] == SECCOMP[life.seccomp]
        await said_hello(life, status)
    if len(found) == 2:
        assert {kind for kind in nodes if found[0][kind] == found[1][kind]} == shared | of_node


async def said_hello(life: Life, status: ContainerStatus) -> None:
    await eventually(lambda: "hello" in life.lines(status.name, status.attempt))


async def expect_ends(life: Life) -> None:
    """Containers that are asked to end do so with their own code, and their logs have every line once."""
    for status in await life.statuses():
        if status.state is ContainerState.RUNNING:
            await life.runtime.stop_container(status.id, 20)
            ended = await life.runtime.container_status(status.id)
            assert ended is not None
            assert (ended.state, ended.exit_code) == (ContainerState.EXITED, 7)
            assert life.lines(status.name, status.attempt)[-1] == "bye"


def expect_whole_logs(life: Life) -> None:
    for path in (life.node.logs / life.uid).glob("*/*.log"):
        lines = life.lines(path.parent.name, int(path.stem))
        numbers = [line for line in lines if line not in ("hello", "bye")]
        assert numbers == [str(number) for number in range(len(numbers))], path
        assert lines[:1] in ([], ["hello"]), path
        assert (lines.count("hello"), lines.count("bye")) in ((0, 0), (1, 0), (1, 1)), path


def left_behind(node: Node) -> list[str]:
    """What should be gone once the pods are: files, FIFOs, records, cgroups, namespaces' pins and mounts, processes."""
    left = [
        str(path) for path in (*node.state.rglob("*"), *node.run.rglob("*")) if re.search(r"[0-9a-f]{64}", path.name)
    ]
    with suppress(OSError):
        left += [path for path in manager(f"{node.cgroup}/kubepods").children() if path.startswith("pod")]
    titles = [title(pid) for pid in processes(node, "system")]
    left += [text for text in titles if text and not text.startswith(("launcher ", TITLE, "keeper spare"))]
    left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{node.run}/netns/" in line]
    return left


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    made.start_launcher()
    try:
        yield made
    finally:
        made.kill_everything()


async def live(life: Life) -> None:
    """A pod's whole life with one blow in it."""
    await life.runtime.start()
    try:
        if life.moment == "start":
            await life.strike(life.run)
        else:
            await life.insist(life.run)
            await expect_isolated(life)
        if life.moment == "restart":
            for status in await life.statuses():
                os.kill(status.pid, signal.SIGKILL)
                await life.runtime._state.containers[status.id].ended.wait()
            await life.strike(life.run)
        if life.moment == "removal":
            await life.strike(life.remove)
        else:
            await life.insist(life.run)
            await expect_isolated(life)
            await expect_ends(life)
        expect_whole_logs(life)
        await life.insist(life.remove)
        with suppress(TimeoutError):
            await eventually(lambda: left_behind(life.node) == [], 20)
        assert left_behind(life.node) == []
    except BaseException as error:
        error.add_note(str(life))
        raise
    finally:
        await life.runtime.close()


async def test_a_start_or_removal_that_kills_interrupt_is_made_good_and_isolated(node: Node) -> None:
    await node.wait_for_launcher()
    kills = 0
    for number in itertools.count():
        if kills >= KILLS:
            break
        life = Life(node, random.Random(f"{SEED} {number}"), number)
        await live(life)
        kills += len(life.killed)
