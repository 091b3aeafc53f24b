"""The command line's side of the standalone agent: start it when it is needed, hand it manifests, ask it over its socket.

Light on purpose (no event loop, no netlink): `pod list` imports this and nothing of the agent. Manifests are the wish and
survive the agent; a lock keeps it from leaving while somebody hands it a pod.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import select
import socket
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from minikube_raw.kubelet import manifests
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.linux.socket_paths import short_name

START_SECONDS = 180.0  # an agent that dies is told at once; one that lives may start while a slow machine boots
Json = dict[str, Any]


class AgentError(Exception):
    """The agent cannot be reached or refuses; `status` is its HTTP status, 0 when it did not answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def options_for(state_dir: Path, run_dir: Path) -> KubeletOptions:
    """The agent's options below an installation's directories.

    Each installation has a cgroup of its own: an agent sweeps away what its records do not know.
    """
    return KubeletOptions(
        node_name=os.uname().nodename,
        node_ip="127.0.0.1",
        state_dir=str(state_dir / "standalone"),
        run_dir=str(run_dir / "standalone"),
        images_dir=str(state_dir / "images"),
        cgroup_root=f"minikube-raw-standalone-{hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:8]}",
    )


def take_lock(options: KubeletOptions) -> IO[bytes]:
    """Wait for and take the lock on the pods of this host; closing the file gives it back."""
    file = open(Path(options.state_dir, "lock"), "wb")  # noqa: SIM115 -- handed to the caller, who closes it
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def submit(options: KubeletOptions, pod: Json, objects: Iterable[Json] = (), *, replace: bool = False) -> Json:
    """Store a pod (it gets a uid) with the objects beside it, and see to it that an agent runs.

    Raises FileExistsError unless it may `replace` a pod of that name, AgentError, OSError.
    """
    meta = pod["metadata"]
    meta["uid"] = str(uuid.uuid4())
    options.manifests_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = manifest_path(options, meta["namespace"], meta["name"])
    with take_lock(options):
        before = path.read_bytes() if path.exists() else None
        if before is not None and not replace:
            raise FileExistsError(f"pod {meta['namespace']}/{meta['name']} exists")
        manifests.write(path, pod, objects)
        try:
            ensure_agent(options)
        except BaseException:
            path.unlink() if before is None else path.write_bytes(before)
            raise
    return pod


def manifest_path(options: KubeletOptions, namespace: str, name: str) -> Path:
    """Where a pod's manifest lies."""
    return options.manifests_dir / manifests.file_name(namespace, name)


def ensure_agent(options: KubeletOptions) -> None:
    """Start the agent in the background unless it answers. Raises AgentError with the end of its log."""
    if answers(options):
        return
    Path(options.run_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    reading, writing = os.pipe()
    argv = [sys.executable, "-I", "-m", "minikube_raw.kubelet.standalone"]
    argv += [msgspec.json.encode(options).decode(), str(writing)]
    log = Path(options.state_dir, "agent.log")
    with open(log, "ab") as output:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, pass_fds=(writing,)
        )
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], START_SECONDS)
    up = bool(ready) and os.read(reading, 1) == b"1"
    os.close(reading)
    child.returncode = 0  # it is meant to outlive us: say so to Popen, which otherwise warns
    if not up:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise AgentError(f"the agent did not start: {' '.join(last) or 'no word of it'} (see {log})")


def answers(options: KubeletOptions) -> bool:
    """Whether an agent serves its socket. Raises PermissionError for who may not ask it."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, short_name(str(options.socket)) as name:
            probe.connect(name)
    except PermissionError:
        raise
    except OSError:
        return False
    return True


def agent_pid(options: KubeletOptions) -> int:
    """The process that serves the socket, in whose namespaces the node's mounts and links are. Raises AgentError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, short_name(str(options.socket)) as name:
            probe.connect(name)
            peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError as error:
        raise AgentError(f"no agent answers on {options.socket}: {error.strerror or error}") from error
    pid: int = struct.unpack("3i", peer)[0]
    return pid


def get(options: KubeletOptions, path: str) -> bytes:
    """GET a path of the agent. Raises AgentError."""
    return b"".join(stream(options, path))


def halt(options: KubeletOptions) -> None:
    """Have every pod stopped; the agent leaves, and what is wished for stays. Returns when that is done. Raises AgentError."""
    b"".join(stream(options, "/halt", "POST"))


def stream(options: KubeletOptions, path: str, method: str = "GET") -> Iterator[bytes]:
    """Ask the agent for a path; its answer as it comes in. Raises AgentError."""
    connection = _UnixConnection(str(options.socket))
    with contextlib.closing(connection):
        try:
            connection.request(method, path)
            response = connection.getresponse()
        except OSError as error:
            raise AgentError(f"no agent answers on {options.socket}: {error.strerror or error}") from error
        if response.status >= 300:
            raise AgentError(response.read().decode(errors="replace").strip(), response.status)
        while chunk := response.read1(65_536):
            yield chunk


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with short_name(self._path) as name:
            self.sock.connect(name)
