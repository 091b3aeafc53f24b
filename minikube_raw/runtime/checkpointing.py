"""CheckpointContainer (KEP-2008): a running container's processes and what it has written, in one archive, while it goes on.

CRIU dumps the processes; while it still holds them its action script packs the writable layer, so that both are of one moment.
The archive is laid out as CRI-O, podman and containerd do (checkpoint-restore/checkpointctl, lib/metadata): config.dump, spec.dump,
checkpoint/, rootfs-diff.tar, deleted.files, dump.log, stats-dump. What makes containers of them is restoring.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minikube_raw.linux import paths
from minikube_raw.linux.cgroups import manager

from . import bundling, wire
from .cri import RuntimeServiceError
from .criu import last_errors, place_in
from .pods import Container
from .state import NodeState

ERROR = "CheckpointContainerError"
SHORTEST_CRIU = 31600  # as containerd asks for it: 3.16
LONGEST_SECONDS = 120.0  # without a timeout of the client's
_VOLUMES = ("bind", "image")
DESCRIPTORS = "descriptors.json"
_OPAQUE = "SCHILY.xattr.trusted.overlay.opaque"  # as a tar has the attribute
_UNFINISHED = ".unfinished-"
_NEVER = "0001-01-01T00:00:00Z"
_PACK = """#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
exec tar --create --file {archive} --xattrs --xattrs-include='*' --directory {upper} .
"""


class Checkpoints:
    """Makes the archives of one node."""

    def __init__(self, state: NodeState) -> None:
        self._state = state

    async def checkpoint(self, container_id: str, location: str, timeout: float = 0) -> None:
        """CheckpointContainer: writes the archive to `location`. RuntimeServiceError says why there is none.

        After `timeout` seconds (0: two minutes) nobody waits any longer; CRIU is not killed, since it stands in the middle of
        the container's processes then: it lets go of them and the archive is dropped.
        """
        sandbox, container = self._state.container(container_id)
        given_up = asyncio.Event()

        async def make() -> None:
            async with sandbox.lock:
                await self._make(container, Path(location), given_up)

        work = asyncio.ensure_future(make())
        try:
            await asyncio.wait_for(asyncio.shield(work), timeout or LONGEST_SECONDS)
        except TimeoutError:
            given_up.set()
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise RuntimeServiceError(
                ERROR, "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
            ) from None

    async def _make(self, container: Container, location: Path, given_up: asyncio.Event) -> None:
        request, identity = container.record.request, container.identity
        if not container.running or identity is None or not container.is_alive():
            raise _unknown(f'container "{container.id}" is not running')
        if request["spec"]["process"].get("terminal"):
            raise _unknown("a container with a terminal cannot be dumped: CRIU would need the end that is ours")
        failed = f'Failed to checkpoint container "{container.id}"'
        criu = await self._state.in_thread(lambda: find_criu(ERROR, failed))
        location.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=location.parent))
        try:
            await self._dump(criu, container, identity.pid, work)
            await self._state.in_thread(lambda: self._describe(container, identity.pid, work))
            lowers = container.record.request["rootfs"]["lowers"]
            await self._state.in_thread(lambda: _archive(work, [Path(lower) for lower in lowers]))
            if not given_up.is_set():
                os.rename(work / "archive.tar", location)
        finally:
            await self._state.in_thread(lambda: shutil.rmtree(work, ignore_errors=True))

    async def _dump(self, criu: str, container: Container, pid: int, work: Path) -> None:
        request = container.record.request
        (work / "checkpoint").mkdir()
        script = work / "pack"
        layer, upper = shlex.quote(str(work / "layer.tar")), shlex.quote(request["rootfs"]["upper"])
        script.write_text(_PACK.format(archive=layer, upper=upper))
        script.chmod(0o700)
        shm = self._state.layout.shm(container.record.sandbox_id)
        external = await self._state.in_thread(lambda: list(_external(request, shm, pid)))
        options = ["--tree", str(pid), "--images-dir", str(work / "checkpoint"), "--work-dir", str(work)]
        options += ["--log-file", "dump.log", "-v4", "--action-script", str(script), "--leave-running"]
        options += ["--manage-cgroups=ignore", "--ext-unix-sk", "--tcp-established", "--file-locks"]
        options += (word for each in external for word in ("--external", each))
        (work / "checkpoint" / DESCRIPTORS).write_text(json.dumps(_streams(request["runDir"], external)))
        done = await self._state.in_thread(lambda: _run(criu, "dump", *options))
        if done.returncode:
            told = last_errors(f"{work}/dump.log") or done.stderr.strip()
            raise _unknown(f"criu dump failed (`criu check` says what it lacks on this kernel): {told}")

    def _describe(self, container: Container, pid: int, work: Path) -> None:
        """Writes the JSON documents of the archive."""
        record = container.record
        try:
            document = bundling.describe(self._state.layout, record, Path(f"/proc/{pid}/root"))
        except LookupError as error:
            raise _unknown(str(error)) from error
        restored: Mapping[str, Any] | None = record.request.get("restore")
        made_of = {"ref": record.config.image, "name": record.config.image_name, "since": _NEVER}
        made_of |= restored["made_of"] if restored is not None else {}
        config = {
            "id": record.id,
            "name": record.config.name,
            "rootfsImage": made_of["name"],
            "rootfsImageRef": made_of["ref"],
            "rootfsImageName": made_of["name"],
            "runtime": record.request.get("runtime", {}).get("command", ["minikube-raw"])[0],
            "createdTime": rfc3339(record.created_at),
            "checkpointedTime": rfc3339(time.time_ns()),
            "restoredTime": made_of["since"],
            "restored": restored is not None,
        }
        for name, value in (("spec.dump", document), ("config.dump", config)):
            (work / name).write_text(json.dumps(value))


def forget_unfinished(directory: Path) -> None:
    """Removes what a kubelet that was killed left of checkpoints on their way."""
    for work in directory.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(work, ignore_errors=True)


def find_criu(reason: str, failed: str) -> str:
    """Finds CRIU. RuntimeServiceError in containerd's words, with the cure; `failed` says what comes to nothing."""
    path = shutil.which("criu", path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin")
    why, number = 'exec: "criu": executable file not found in $PATH; apt-get install criu', 0
    if path is not None:
        number, why = _version(_run(path, "--version").stdout), f"{path} is older: install a newer one"
    if path is None or number < SHORTEST_CRIU:
        text = f"CRIU binary not found or too old (<{SHORTEST_CRIU}). {failed}: failed to check for criu version: {why}"
        raise RuntimeServiceError(reason, f"rpc error: code = Unknown desc = {text}")
    return path


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)


def _version(text: str) -> int:
    """`Version: 3.17.1` as CRIU's own RPC has it: 31701; 0 if it is not said."""
    for line in text.splitlines():
        if line.startswith("Version:"):
            numbers = [int(part) for part in line.split()[1].split(".") if part.isdigit()][:3]
            return sum(number * factor for number, factor in zip(numbers, (10_000, 100, 1), strict=False))
    return 0


def _external(request: Mapping[str, Any], shm: str, pid: int) -> Iterator[str]:
    """What is not the container's own, in CRIU's words: volumes, the pod's namespaces, files that were opened outside.

    A volume's name is its place in the pod's words, as runc has it; mounts inside volumes CRIU has to find itself (`mnt[]`).
    """
    yield "mnt[]:ms"
    yield from (f"mnt[{place_in(pid, place)}]:{place}" for place in external_places(request["spec"], shm))
    for kind, name in (("net", "extRootNetNS"), ("pid", "extRootPidNS")):
        inode = os.stat(f"/proc/{pid}/ns/{kind}").st_ino
        # A PID namespace that it is the first process of is dumped with it.
        if inode != os.stat(f"/proc/self/ns/{kind}").st_ino and not (kind == "pid" and _is_first(pid)):
            yield f"{kind}[{inode}]:{name}"
    yield from sorted(_opened_outside(request["cgroup"], pid))


def external_places(spec: Mapping[str, Any], shm: str) -> list[str]:
    """Where a container has volumes; the pod's shared memory (`shm`) is saved with it."""
    entries = [entry for entry in spec["mounts"] if entry["type"] in _VOLUMES]
    return [entry["destination"] for entry in entries if entry["source"] != shm]


def _is_first(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return numbers.split()[-1] == "1"


def _opened_outside(cgroup: str, pid: int) -> set[str]:
    """Our FIFOs and null device, wherever the container's processes have them: files of mounts that it does not have."""
    own = {int(line.split()[0]) for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    found = set()
    for process in manager(cgroup).procs():
        for fd in _descriptors(process):
            try:
                mount, named = _mount_id(process, fd), os.readlink(f"/proc/{process}/fd/{fd}").startswith("/")
                if named and mount not in own:
                    found.add(f"file[{mount:x}:{os.stat(f'/proc/{process}/fd/{fd}').st_ino:x}]")
            except OSError:
                continue  # closed meanwhile
    return found


def _descriptors(process: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{process}/fd")
    except OSError:
        return []


def _mount_id(process: int, fd: str) -> int:
    lines = Path(f"/proc/{process}/fdinfo/{fd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def _archive(work: Path, lowers: Sequence[Path]) -> None:
    """Makes archive.tar of what lies in `work`, with the writable layer taken apart into what there is and what was deleted."""
    deleted = _split_layer(work / "layer.tar", work / "rootfs-diff.tar", lowers)
    (work / "deleted.files").write_text(json.dumps(deleted))
    with tarfile.open(work / "archive.tar", "w") as archive:
        for name in ("config.dump", "spec.dump", "rootfs-diff.tar", "deleted.files", "dump.log", "stats-dump"):
            if (work / name).exists():
                archive.add(work / name, name)
        archive.add(work / "checkpoint", "checkpoint")
    os.chmod(work / "archive.tar", 0o600)


def _split_layer(layer: Path, files: Path, lowers: Sequence[Path]) -> list[str]:
    """Copies an overlay's upper directory from one archive to another without its whiteouts; returns what is hidden, from the root.

    That is what they hide, and what the layers below (`lowers`) have in directories that were made anew.
    """
    deleted: list[str] = []
    made_anew: list[str] = []
    with tarfile.open(layer) as source, tarfile.open(files, "w", format=tarfile.PAX_FORMAT) as target:
        for member in source:
            if member.ischr() and (member.devmajor, member.devminor) == (0, 0):
                deleted.append(member.name.removeprefix("."))
                continue
            if member.isdir() and member.pax_headers.get(_OPAQUE) == "y":
                made_anew.append(member.name.removeprefix("."))
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
        names = set(source.getnames())
    hidden = (f"{place}/{name}" for place in made_anew for lower in lowers for name in _names(lower, place))
    return [*deleted, *dict.fromkeys(path for path in hidden if f".{path}" not in names)]


def _names(layer: Path, place: str) -> list[str]:
    """What a layer has in the directory at `place`, if it has one there that no link leads to."""
    directory = found = -1
    try:
        directory = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        flags = os.O_RDONLY | os.O_DIRECTORY
        found = paths.open_beneath(directory, place.lstrip("/"), flags, resolve=paths.RESOLVE_NO_SYMLINKS)
        return os.listdir(found)
    except OSError:
        return []
    finally:
        wire.close([directory, found])


def _streams(run_dir: str, external: Sequence[str]) -> list[str]:
    """By which names a restorer has to give stdin, stdout and stderr; "" for one that nobody has open. runc's file of them is alike."""
    keys = {key.rpartition(":")[2].rstrip("]"): key for key in external if key.startswith("file[")}
    found = []
    for name in ("stdin", "stdout", "stderr"):
        try:
            found.append(keys.get(f"{os.stat(f'{run_dir}/{name}').st_ino:x}", ""))
        except FileNotFoundError:
            found.append("")
    return found


def rfc3339(nanoseconds: int) -> str:
    """A time since the epoch, in UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def _unknown(text: str) -> RuntimeServiceError:
    return RuntimeServiceError(ERROR, f"rpc error: code = Unknown desc = {text}")
