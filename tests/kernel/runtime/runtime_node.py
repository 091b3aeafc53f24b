"""A node for tests: a launcher and a Runtime over temporary directories, with a busybox root file system and no image store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from minikube_raw.linux import pidfd
from minikube_raw.linux.cgroups import manager
from minikube_raw.oci.images import Image
from minikube_raw.oci.manifests import ImageConfig
from minikube_raw.oci.snapshots import Snapshot, Spare
from minikube_raw.runtime import template, userids, wire
from minikube_raw.runtime.cri import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    NamespaceMode,
    NamespaceOption,
    PodSandboxConfig,
)
from minikube_raw.runtime.launching import launcher_argv, launcher_socket
from minikube_raw.runtime.service import Runtime

APPLETS = (
    *(
        "sh",
        "cat",
        "echo",
        "sleep",
        "id",
        "env",
        "ls",
        "mount",
        "ps",
        "head",
        "true",
        "false",
        "stat",
        "hostname",
        "kill",
    ),
    *(
        "test",
        "dd",
        "tty",
        "stty",
        "yes",
        "printf",
        "readlink",
        "touch",
        "seq",
        "grep",
        "wc",
        "mkdir",
        "umount",
        "ip",
        "tail",
        "nc",
    ),
)
RECVMSG = {"x86_64": "47 ", "aarch64": "212 "}[os.uname().machine]


def busybox_root(directory: Path) -> Path:
    """Makes a root file system of Debian's static busybox."""
    (directory / "bin").mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", directory / "bin/busybox")
    for applet in APPLETS:
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc").mkdir()
    (directory / "tmp").mkdir(mode=0o777)
    (directory / "tmp").chmod(0o1777)
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:Web:/home/web:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\nweb:x:1001:\nlogs:x:2000:web,other\n")
    return directory


class Directories:
    """Images and snapshots in one: each image id names a directory, nothing is unpacked."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.images: dict[str, tuple[Path, ImageConfig]] = {}
        self.layers: dict[str, list[Path]] = {}  # of images that volumes show, where they have several
        self.checkpoints: dict[str, str] = {}  # image → container that it is a checkpoint of

    def resolve(self, text: str) -> Image | None:
        if text not in self.images:
            return None
        return Image(text, text, (), self.images[text][1], 0, "", "amd64", (), (), self.checkpoints.get(text, ""))

    def prepare(self, container_id: str, image: Image) -> Snapshot:
        directory = self._root / container_id
        for name in ("upper", "work", "root"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "upper").chmod(0o755)
        return Snapshot([self.images[image.id][0]], directory / "upper", directory / "work", directory / "root")

    def prepare_spare(self, image: Image) -> Spare:
        return Spare(self.prepare(f".spare-{uuid.uuid4().hex[:16]}", image), [])

    def adopt(self, container_id: str, image: Image, spare: Spare) -> Snapshot | None:
        self.discard(Spare(self.prepare(container_id, image), []))
        spare.snapshot.upper.parent.rename(self._root / container_id)
        return self.prepare(container_id, image)

    def discard(self, spare: Spare) -> None:
        shutil.rmtree(spare.snapshot.upper.parent)

    def discard_all(self) -> None:
        for left in self._root.glob(".spare-*"):
            shutil.rmtree(left, ignore_errors=True)  # a kubelet that was dropped in a test may be at it too

    def hold(self, container_id: str, images: Sequence[Image]) -> list[list[Path]]:
        return [self.layers.get(image.id, [self.images[image.id][0]]) for image in images]

    def remove(self, container_id: str) -> None:
        shutil.rmtree(self._root / container_id, ignore_errors=True)

    @property
    def trash(self) -> str:
        return f"{self._root}/.removed"

    def list(self) -> list[str]:
        return [path.name for path in self._root.glob("[!.]*")]


class NoNetwork:
    """A pod network that attaches nothing, and remembers what was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def add(self, container_id: str, netns_path: str, *_: Any) -> Any:
        assert os.path.exists(netns_path)
        self.calls.append(("ADD", container_id))
        return type("Result", (), {"ips": ()})()

    def delete(self, container_id: str, netns_path: str = "", ifname: str = "eth0") -> None:
        self.calls.append(("DEL", container_id))


class Node:
    """The parts of one test node, and short ways to use them."""

    def __init__(self, directory: Path) -> None:
        self.state, self.run, self.logs = directory / "state", directory / "run", directory / "logs"
        for path in (self.state, self.run, self.logs):
            path.mkdir()
        self.cgroup = f"minikube-raw-test-{uuid.uuid4().hex[:8]}"
        self.images = Directories(self.state / "containers")
        self.images.images["busybox"] = (busybox_root(directory / "busybox"), ImageConfig(cmd=("sh",)))
        self.network = NoNetwork()
        self.launcher: subprocess.Popen[bytes] | None = None
        self.changes: list[str] = []
        self.handlers: dict[str, list[str]] = {}

    def start_launcher(self) -> None:
        argv = launcher_argv(
            self.run, self.state, self.logs, self.images.images["busybox"][0], cgroup=f"{self.cgroup}/system"
        )
        with open(self.logs / "launcher.log", "ab") as log:
            self.launcher = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    async def wait_for_launcher(self) -> None:
        while True:
            try:
                wire.connect(launcher_socket(self.run)).close()
            except OSError:
                assert self.launcher is not None
                assert self.launcher.poll() is None, "the launcher has ended"
                await asyncio.sleep(0.005)
            else:
                return

    def template(self) -> int:
        """The process that keepers are forked from."""
        assert self.launcher is not None
        (found,) = (pid for pid in children(self.launcher.pid) if title(pid) == template.TITLE)
        return found

    def make_runtime(self) -> Runtime:
        places = (self.state, self.run, self.cgroup, self.images, self.network)
        runtime = Runtime(*places, snapshots=self.images, handlers=self.handlers)
        runtime.on_change(self.changes.append)
        return runtime

    def pod(self, name: str = "pod", **changes: Any) -> PodSandboxConfig:
        uid = changes.pop("uid", str(uuid.uuid4()))
        return PodSandboxConfig(name=name, namespace="default", uid=uid, log_directory=str(self.logs / uid), **changes)

    def log(self, status: ContainerStatus) -> str:
        return Path(status.log_path).read_text()

    def output(self, status: ContainerStatus, stream: str = "stdout") -> str:
        """What the container wrote, put together from its log."""
        text = ""
        for line in self.log(status).splitlines():
            _stamp, name, tag, content = line.split(" ", 3)
            if name == stream:
                text += content + ("\n" if tag == "F" else "")
        return text

    def kill_everything(self) -> None:
        """Ends all processes of the node, however a test left it, and shows what they had to say."""
        sys.stderr.write((self.logs / "launcher.log").read_text())
        for _ in range(2):
            with contextlib.suppress(OSError):
                manager(self.cgroup).kill_all(5)
        if self.launcher is not None:
            self.launcher.kill()
            self.launcher.wait()
        for pin in (self.run / "netns").iterdir() if (self.run / "netns").exists() else ():
            subprocess.run(["umount", "-l", str(pin)], capture_output=True, check=False)
        with contextlib.suppress(OSError):
            manager(self.cgroup).remove()
        shutil.rmtree(self.state / "records", ignore_errors=True)
        userids.sweep()  # ranges belong to records


def children(pid: int) -> list[int]:
    """A process's children, none if it has ended."""
    with contextlib.suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def kill(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    opened = os.pidfd_open(pid)
    signal.pidfd_send_signal(opened, signal.SIGKILL)
    assert pidfd.has_ended(opened, 60)
    os.close(opened)


def title(pid: int) -> str:
    """A process's command line, "" if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    return ""


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def waits_for_packet(pid: int) -> bool:
    """Whether a process sleeps in recvmsg(2)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/syscall").read_text().startswith(RECVMSG)
    return False


@asynccontextmanager
async def running_node(directory: Path, kind: type[Node] = Node) -> AsyncIterator[tuple[Node, Runtime]]:
    node = kind(directory)
    try:
        node.start_launcher()
        await node.wait_for_launcher()
        runtime = node.make_runtime()
        await runtime.start()
        try:
            yield node, runtime
        finally:
            await runtime.close()
    finally:
        node.kill_everything()


def container(*command: str, name: str = "main", image: str = "busybox", **changes: Any) -> ContainerConfig:
    return ContainerConfig(
        name=name, attempt=changes.pop("attempt", 0), image=image, command=command, log_path=f"{name}.log", **changes
    )


async def run_to_end(runtime: Runtime, sandbox: str, config: ContainerConfig, timeout: float = 60) -> ContainerStatus:
    container_id = await runtime.create_container(sandbox, config)
    await runtime.start_container(container_id)
    return await ended(runtime, container_id, timeout)


async def ended(runtime: Runtime, container_id: str, timeout: float = 60) -> ContainerStatus:
    """Waits for a container's end by the runtime's own event."""
    await asyncio.wait_for(runtime._state.containers[container_id].ended.wait(), timeout)
    status = await runtime.container_status(container_id)
    assert status is not None
    assert status.state is ContainerState.EXITED
    return status


async def eventually(true: Callable[[], bool], timeout: float = 60) -> None:
    """Waits for what has no event here: a file that another process writes."""
    async with asyncio.timeout(timeout):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def keeper_pid(runtime: Runtime, sandbox: str) -> int:
    answer, _ = await runtime._keepers.ask(runtime._state.sandboxes[sandbox], {"op": "hello"})
    return int(answer["pid"])


async def kill_keeper(runtime: Runtime, sandbox: str) -> None:
    """Kills it and waits until another has taken over."""
    old = runtime._state.sandboxes[sandbox].peer
    kill(await keeper_pid(runtime, sandbox))
    await eventually(lambda: runtime._state.sandboxes[sandbox].peer not in (None, old))
    await runtime._keepers.ask(runtime._state.sandboxes[sandbox], {"op": "hello"})


SHARED_PID = NamespaceOption(pid=NamespaceMode.POD)
LOST = (137, "ContainerStatusUnknown")  # what is known of an end that only the kernel saw, where it does not tell
