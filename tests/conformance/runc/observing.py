"""Runs the probe in one container twice, by our agent and by runc or crun from our bundle, and reads what it saw."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from minikube_raw.cli.podbundle import running_id
from minikube_raw.kubelet import localagent
from minikube_raw.linux import signals
from minikube_raw.runtime import bundling
from minikube_raw.runtime.layout import Layout

Seen = dict[str, str]
HERE = Path(__file__).parent
PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:Web:/home/web:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1001:\nlogs:x:2000:web,other\nwheel:x:10:root\n"
END = "END\t1\n"
PATIENCE = 240.0 * float(os.environ.get("SLOWNESS", "1"))


def build_probe(directory: Path) -> None:
    """Compile the probe into the build directory of an image."""
    (directory / "root").mkdir(parents=True)
    sources = [str(HERE / "probe.c"), str(HERE / "sweep.c")]
    subprocess.run(["gcc", "-O1", "-Wall", "-static", "-o", str(directory / "root/probe"), *sources], check=True)
    for name in ("etc", "home", "root", "tmp", "v"):
        (directory / "root" / name).mkdir(mode=0o755)
    (directory / "root/tmp").chmod(0o1777)
    (directory / "root/etc/passwd").write_text(PASSWD)
    (directory / "root/etc/group").write_text(GROUP)


def make_host_directory(directory: Path) -> None:
    """What hostPath volumes show."""
    (directory / "directory/below").mkdir(parents=True)
    (directory / "directory/below/file").write_text("below\n")
    (directory / "shared").mkdir()
    (directory / "file").write_text("file\n")


class Host:
    """An installation in a network namespace of its own."""

    def __init__(self, directory: Path, network_holder: int, oracle: str) -> None:
        self.directory = directory
        self.oracle = oracle
        self._enter = ["nsenter", f"--net=/proc/{network_holder}/ns/net"]
        self.agent = localagent.options_for(directory / "state", directory / "run")
        self.configs: dict[str, Any] = {}  # config.json of each bundle, by pod

    def cli(self, *arguments: str) -> str:
        """Run our command line."""
        directories = ["--state-dir", str(self.directory / "state"), "--run-dir", str(self.directory / "run")]
        command = [*self._enter, sys.executable, "-m", "minikube_raw", *directories, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE).stdout

    def build(self, recipe: Path, instructions: str, tag: str) -> None:
        """Build an image of the probe."""
        (recipe / "Containerfile").write_text(f"FROM scratch\nCOPY root /\n{instructions}")
        self.cli("image", "build", str(recipe), "-t", tag)

    def run(self, manifests: list[dict[str, Any]], objects: list[dict[str, Any]]) -> None:
        """Hand pods to the agent, which the first one starts; the rest is done side by side."""
        first = self.directory / "first.json"
        first.write_text(json.dumps(manifests[0]))
        self.cli("pod", "run", "-f", str(first))
        for manifest in manifests[1:]:
            localagent.submit(self.agent, manifest, objects)

    def give_profiles(self, profiles: dict[str, Any]) -> None:
        """Put seccomp profiles where localhostProfile finds them."""
        directory = Path(self.agent.state_dir, "seccomp/deep")
        directory.mkdir(parents=True)
        for name, profile in profiles.items():
            (directory / f"{name}.json").write_text(json.dumps(profile))

    def pods(self) -> dict[str, dict[str, Any]]:
        """All pods by name."""
        items = json.loads(localagent.get(self.agent, "/pods"))["items"]
        return {item["metadata"]["name"]: item for item in items}

    def remove_all(self) -> None:
        """Remove all pods and wait until the agent has left."""
        with localagent.take_lock(self.agent):
            for path in self.agent.manifests_dir.iterdir():
                path.unlink()
        _until(lambda: not Path(self.agent.run_dir).exists(), "the agent to leave")
        self._remove_cgroups_of_runc()

    def _remove_cgroups_of_runc(self) -> None:
        """Runc removes a container's cgroup but not the parents it made, in hierarchies where we have none of our own."""
        for root in Path("/sys/fs/cgroup").glob(f"*/{self.agent.cgroup_root}"):
            for directory, _, _ in os.walk(root, topdown=False):
                os.rmdir(directory)

    def ours(self, names: list[str]) -> dict[str, Seen]:
        """What the probe saw in each of our containers, once it has seen all."""
        logs = {name: Path(self.agent.state_dir, "logs") for name in names}
        found: dict[str, Seen] = {}
        deadline = time.monotonic() + PATIENCE
        while missing := [name for name in names if name not in found]:
            assert time.monotonic() < deadline, f"no word of {missing}: {self._problems(missing)}"
            for name in missing:
                for path in logs[name].glob(f"*_{name}_*/c/0.log"):
                    if (text := _log(path)).endswith(END):
                        found[name] = _lines(text)
            select.select([], [], [], 0.1)
        return found

    def _problems(self, names: list[str]) -> list[Any]:
        pods = [pod["status"] for name, pod in self.pods().items() if name in names]
        return [pod.get("containerStatuses", [{}])[0].get("state", pod) for pod in pods]

    def theirs(self, names: list[str]) -> dict[str, Seen]:
        """What the probe saw in each container run by the other runtime."""
        pods = self.pods()
        for (
            name
        ) in names:  # one after another: msgspec crashes when threads make their first decoders of a type at once
            self._write_bundle(pods[name])
        with ThreadPoolExecutor(4) as pool:
            return dict(zip(names, pool.map(lambda name: self._under_oracle(pods[name]), names), strict=True))

    def _write_bundle(self, pod: dict[str, Any]) -> None:
        bundle = self.directory / "bundles" / pod["metadata"]["name"]
        bundling.write(bundle, Layout(self.agent.state_dir, self.agent.run_dir), running_id(pod, "c"))
        self.configs[bundle.name] = json.loads((bundle / "config.json").read_text())

    def _under_oracle(self, pod: dict[str, Any]) -> Seen:
        name = pod["metadata"]["name"]
        bundle = self.directory / "bundles" / name
        enter = ["nsenter", "--target", str(localagent.agent_pid(self.agent)), "--mount", "--net"]
        runc = [*enter, self.oracle, "--root", str(self.directory / self.oracle)]
        container, command = pod["spec"]["containers"][0], [*runc, "run", "--detach", "--bundle", str(bundle)]
        try:
            if container.get("tty"):
                text = _run_with_terminal(command, name, bundle)
            else:
                text = _run(command, name, bundle, stdin=container.get("stdin", False))
        finally:
            subprocess.run([*runc, "delete", "--force", name], check=False, capture_output=True)
        assert text.endswith(END), f"{name} under {self.oracle}: {text[-1000:]}"
        shutil.rmtree(bundle)
        return _lines(text)


@contextlib.contextmanager
def network_namespace() -> Iterator[int]:
    """A process that holds a network namespace open."""
    script = "ip link set lo up; echo; exec sleep 1000"
    holder = subprocess.Popen(["unshare", "-n", "sh", "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        yield holder.pid
    finally:
        holder.stdout.close()
        holder.kill()
        holder.wait()


def _run(command: list[str], name: str, directory: Path, *, stdin: bool) -> str:
    """Run a container with streams as our keeper gives them: FIFOs, the output's opened both ways, and /dev/null."""
    for stream in ("stdin", "output"):
        os.mkfifo(directory / stream)
    output = os.open(directory / "output", os.O_RDWR | os.O_CLOEXEC)
    writer = os.open(directory / "stdin", os.O_RDWR | os.O_CLOEXEC)
    source = os.open(directory / "stdin" if stdin else "/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        done = subprocess.run(
            [*command, name],
            stdin=source,
            stdout=output,
            stderr=output,
            check=False,
            timeout=PATIENCE,
            preexec_fn=signals.reset,  # runc hands on what whoever started these tests ignores, be it signal 32
        )
        return _read_to_end(output) if done.returncode == 0 else _read_some(output)
    finally:
        for fd in (output, writer, source):
            os.close(fd)


def _run_with_terminal(command: list[str], name: str, directory: Path) -> str:
    """Run a container that gets a terminal from runc, whose master comes through a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(directory / "console"))
        listener.listen()
        command = [*command, "--console-socket", str(directory / "console"), name]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
            preexec_fn=signals.reset,
        )
        if done.returncode:
            return done.stderr.decode()
        with listener.accept()[0] as connection:
            _, received, _, _ = socket.recv_fds(connection, 4096, 1)
    try:
        return _read_to_end(received[0])
    finally:
        os.close(received[0])


def _read_to_end(source: int) -> str:
    data = b""
    deadline = time.monotonic() + PATIENCE
    while not data.endswith((END.encode(), END.replace("\n", "\r\n").encode())) and time.monotonic() < deadline:
        if select.select([source], [], [], 1)[0]:
            data += os.read(source, 1 << 16)
    return data.decode("utf-8", "replace").replace("\r\n", "\n")


def _read_some(source: int) -> str:
    return os.read(source, 1 << 16).decode() if select.select([source], [], [], 0)[0] else ""


def _log(path: Path) -> str:
    """A container's output, put together from its log."""
    text = ""
    for line in path.read_text(errors="replace").split("\n"):
        parts = line.split(" ", 3)
        if len(parts) == 4 and parts[1] == "stdout":
            text += parts[3].removesuffix("\r") + ("\n" if parts[2] == "F" else "")
    return text


def _lines(text: str) -> Seen:
    return dict(line.split("\t", 1) for line in text.split("\n") if "\t" in line)


def _until(reached: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, f"waited for {what}"
        select.select([], [], [], 0.02)
