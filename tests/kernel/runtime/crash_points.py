"""One pod's whole life under a runtime that is killed at a chosen point, and what must be true afterwards.

The victim is a fork of the test process that plays the kubelet. Python's audit events (each open, rename, mkdir, connect,
system call by ctypes, …) count its steps, so that "at every point" can be said by a number and said again.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runtime_node import Node, eventually

from minikube_raw.cni.libcni import Network
from minikube_raw.kubelet.logfiles import next_attempt
from minikube_raw.linux.cgroups import manager
from minikube_raw.oci import recipes
from minikube_raw.oci.images import ImageStore
from minikube_raw.runtime.cri import ContainerConfig, ContainerState, PodSandboxConfig, SandboxState
from minikube_raw.runtime.launching import launcher_argv
from minikube_raw.runtime.service import Runtime

COUNTED = ("open", "os.", "socket.", "ctypes.call_function", "shutil.", "subprocess.")
UID = "crash"
SCRIPT = "trap 'echo bye; exit 7' TERM; echo hello; while :; do sleep 0.02; done"


class CrashNode(Node):
    """A test node with a real image store, real overlays and a real bridge network."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.store = ImageStore(directory / "images")
        self.image = recipes.ensure(self.store, "docker.io/library/busybox:latest").id
        bridge = {
            "type": "bridge",
            "bridge": "crashbr0",
            "isDefaultGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.251.0.0/24"}]], "dataDir": f"{self.run}/ipam"},
        }
        self.conflist = {"cniVersion": "1.0.0", "name": "crash", "plugins": [bridge]}

    def start_launcher(self) -> None:
        argv = launcher_argv(self.run, self.state, self.logs, self.store.root, cgroup=f"{self.cgroup}/system")
        with open(self.logs / "launcher.log", "ab") as log:
            self.launcher = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def make_runtime(self) -> Runtime:
        network = Network(self.conflist, cache_dir=self.run / "cni")
        return Runtime(self.state, self.run, self.cgroup, self.store, network)

    def sandbox(self, attempt: int) -> PodSandboxConfig:
        return PodSandboxConfig(
            name=UID, namespace="default", uid=UID, attempt=attempt, log_directory=str(self.logs / UID)
        )

    def container(self, attempt: int) -> ContainerConfig:
        return ContainerConfig(
            name="main",
            attempt=attempt,
            image=self.image,
            command=("sh", "-c", SCRIPT),
            log_path=f"main/{attempt}.log",
        )

    def lines(self, attempt: int) -> list[str]:
        """What a run of the container has written."""
        path = self.logs / UID / f"main/{attempt}.log"
        return [line.split(" ", 3)[3] for line in path.read_text().splitlines()] if path.exists() else []

    def processes(self, group: str) -> list[int]:
        """The node's processes in a cgroup below its own."""
        with suppress(OSError):
            return manager(f"{self.cgroup}/{group}").procs(recursive=True)
        return []

    def left_behind(self) -> list[str]:
        """What should be gone once the pod is: files, records, cgroups, links, addresses, processes."""
        left = [str(path) for path in self.state.rglob("*") if re.search(r"[0-9a-f]{64}(?!.*unreadable)", path.name)]
        left += [str(path) for path in self.run.rglob("*") if re.search(r"[0-9a-f]{64}|/10\.251\.", str(path))]
        left += [path for path in manager(f"{self.cgroup}/kubepods").children() if path.startswith("pod")]
        shown = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        left += re.findall(r"(?m)^\d+: (veth[^:@]*)", shown)
        titles = [_title(pid) for pid in self.processes("system")]
        left += [
            title
            for title in titles
            if not title.startswith(("launcher ", "keeper template", "keeper spare")) and title
        ]
        mounts = Path("/proc/self/mountinfo").read_text()
        return left + [line for line in mounts.splitlines() if str(self.run / "netns") in line]


def _title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    return ""


async def live(node: CrashNode, runtime: Runtime, say: Callable[[str], None]) -> None:
    """A pod from nothing to nothing; `say` tells what has happened for good."""
    sandbox = await runtime.run_pod_sandbox(node.sandbox(0))
    container = await runtime.create_container(sandbox, node.container(0))
    await runtime.start_container(container)
    status = await runtime.container_status(container)
    assert status is not None
    say(f"started {status.pid}")
    await eventually(lambda: node.lines(0) == ["hello"])
    say("stopping")
    await runtime.stop_container(container, 5)
    say("stopped")
    await runtime.remove_pod_sandbox(sandbox)
    await runtime.settled()
    say("gone")


def run_victim(
    node: CrashNode, point: int, doomed: Callable[[], list[int]], *, last_words: str = ""
) -> tuple[list[str], int]:
    """Forks a kubelet that lives a pod's life; at its step number `point`, or when it has said `last_words`, it kills whom
    `doomed` names.

    Returns what it said, and its number of steps.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_victim(node, point, doomed, writer, last_words)
    os.close(writer)
    with os.fdopen(reader) as said:
        lines = said.read().splitlines()
    os.waitpid(child, 0)
    steps = next((int(line.split()[1]) for line in lines if line.startswith("steps ")), 0)
    return [line for line in lines if not line.startswith("steps ")], steps


def _be_victim(node: CrashNode, point: int, doomed: Callable[[], list[int]], writer: int, last_words: str) -> None:
    steps = 0

    def say(text: str) -> None:
        os.write(writer, f"{text}\n".encode())
        if last_words and text.startswith(last_words):
            kill(doomed())

    def count(event: str, _arguments: object) -> None:
        nonlocal steps
        if event.startswith(COUNTED):
            steps += 1
            if steps == point:
                pids = doomed()
                os.write(writer, "".join(f"killed {pid}\n" for pid in pids).encode())
                kill(pids)

    async def work() -> None:
        runtime = node.make_runtime()
        await runtime.start()
        sys.addaudithook(count)
        with suppress(Exception):  # what it makes of its launcher's death is looked at by its successor
            await live(node, runtime, say)
        os.write(writer, f"steps {steps}\n".encode())

    try:
        asyncio.run(work())
    finally:
        os._exit(0)


async def recover(node: CrashNode, said: list[str], *, power_cut: bool) -> None:
    """A new kubelet goes on where the killed one was: nothing is forgotten, reserved, doubled or left behind."""
    await node.wait_for_launcher()
    runtime = node.make_runtime()
    await runtime.start()
    try:
        found = {status.attempt: status for status in await runtime.list_containers()}
        started = next((int(line.split()[1]) for line in said if line.startswith("started ")), 0)
        if started and "stopping" not in said and not power_cut:
            assert (found[0].state, found[0].pid) == (ContainerState.RUNNING, started)
        if "stopped" in said and 0 in found:
            assert (found[0].state, found[0].exit_code) == (ContainerState.EXITED, 7)
            assert node.lines(0) == ["hello", "bye"]
        await (_end(node, runtime) if "stopping" in said else _go_on(node, runtime))
    except BaseException as error:
        error.add_note(f"the victim had said {said}")
        raise
    finally:
        await runtime.close()


async def _go_on(node: CrashNode, runtime: Runtime) -> None:
    """What a kubelet does with what it finds: a ready sandbox is used, another replaced; the pod runs, and is removed."""
    sandboxes = await runtime.list_pod_sandboxes(UID)
    ready = [each for each in sandboxes if each.state is SandboxState.READY]
    attempt = max((each.config.attempt for each in sandboxes), default=0)
    for each in sandboxes:
        if each not in ready:
            await runtime.stop_pod_sandbox(each.id)
            attempt = each.config.attempt + 1
    sandbox = await runtime.run_pod_sandbox(node.sandbox(ready[0].config.attempt if ready else attempt))
    await running(node, runtime, sandbox)
    await _end(node, runtime)


async def _end(node: CrashNode, runtime: Runtime) -> None:
    """The pod is to be gone; stopping what has been stopped already is fine, and how it ended is known."""
    for status in await runtime.list_containers():
        await runtime.stop_container(status.id, 5)
        ended = await runtime.container_status(status.id)
        assert ended is not None
        if ended.started_at and ended.reason != "ContainerStatusUnknown":
            assert (ended.state, ended.exit_code) == (ContainerState.EXITED, 7)
            assert node.lines(status.attempt) == ["hello", "bye"]
    for each in await runtime.list_pod_sandboxes(UID):
        await runtime.remove_pod_sandbox(each.id)
    await runtime.settled()
    with suppress(TimeoutError):
        await eventually(lambda: node.left_behind() == [])
    assert node.left_behind() == []


async def running(node: CrashNode, runtime: Runtime, sandbox: str) -> None:
    """Starts or finds the pod's container, which runs and has said hello once."""
    runs = {status.attempt: status for status in await runtime.list_containers(sandbox)}
    newest = max(runs, default=-1)
    every = [status.attempt for status in await runtime.list_containers()]
    if newest < 0 or runs[newest].state is ContainerState.EXITED:
        newest = max(max(every, default=-1) + 1, next_attempt(str(node.logs / UID / "main")))
    container = await runtime.create_container(sandbox, node.container(newest))
    await runtime.start_container(container)
    await eventually(lambda: node.lines(newest) == ["hello"])
    status = await runtime.container_status(container)
    assert status is not None
    assert status.state is ContainerState.RUNNING


def kill(pids: list[int]) -> None:
    """SIGKILL to processes of the node's own."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
