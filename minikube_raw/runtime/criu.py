"""`criu restore` for one container: a checkpoint's processes, in the pod's namespaces and with streams, volumes and cgroup of ours.

CRIU is run as the keeper's child and makes the first process its sibling, so that this is the keeper's child too. It leaves
all of them stopped: they are looked at (restored.py) and get their limits before they run on.
"""

from __future__ import annotations

import fcntl
import os

from minikube_raw.linux import fds, files, mounts, namespaces, paths, pidfd, process, signals, steps

from . import init, ociruntime, recording, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn

    from .wire import Socket

    Message = dict[str, Any]

_STREAMS, _NET = 3, 6  # where CRIU finds what it inherits; streams follow each other
_SCRIPT = """#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = post-resume ] || exit 0
echo "$CRTOOLS_INIT_PID" >{done}
"""
_LOG, _OUTPUT, _DONE = "restore.log", "output", "restored"  # until it has read its options CRIU has no log
_LOG_TAIL = 1 << 16
# What CRIU says in a container's devices cgroup and without CAP_SYS_RESOURCE before it goes on.
_HARMLESS = ("tun: Unable to create tun", "RLIMIT_NOFILE for self")


class Failed(Exception):
    """CRIU could not do it; the text is its own account."""


class Restore:
    """A container of a checkpoint on its way. `request` is what the kubelet asked to start (restoring.py adds `restore` to it)."""

    def __init__(self, request: Message) -> None:
        self._given: Message = request["restore"]
        self._spec: Message = request["spec"]
        self._id, self._root = request["id"], request["rootfs"]["mountPoint"]
        self._work = f"{request['runDir']}/restore"
        self._volumes = f"{request['runDir']}/volumes"
        self.steps = b""  # what was done before CRIU was executed, packed

    def run(self, fork: Callable[[], tuple[int, int]], prepare: Callable[[], None], streams: Sequence[int]) -> int:
        """Makes the processes; returns the first one. All are stopped, as by SIGSTOP. Raises Failed.

        `fork` forks a child of the keeper in a mount namespace of its own (pid, pidfd), and `prepare` mounts there what CRIU
        binds into the container.
        """
        files.make_directories(self._work)
        self._write_script()
        with steps.step("criu restore", self._id):
            status, theirs = wire.pair()
            pid, criu = fork()
            if pid == 0:
                self._become(theirs, prepare, streams)
            theirs.close()
            found = ociruntime.hear(status)
            pidfd.has_ended(criu, -1)
            os.close(criu)
        if "error" in found:
            raise Failed(found["error"])
        self.steps = recording.pack(found.get("steps", []))
        try:
            with open(f"{self._work}/{_DONE}", encoding="ascii") as file:
                return int(file.read())
        except (FileNotFoundError, ValueError):
            told = last_errors(f"{self._work}/{_LOG}") or last_errors(f"{self._work}/{_OUTPUT}")
            raise Failed(f"criu restore failed: {told or 'it was killed, or cannot be run here'}") from None

    def _write_script(self) -> None:
        """Writes what CRIU runs last: whoever is not CRIU's parent does not learn how it ended."""
        if os.path.lexists(f"{self._work}/{_DONE}"):
            os.unlink(f"{self._work}/{_DONE}")
        with open(f"{self._work}/action", "w", encoding="utf-8") as file:
            file.write(_SCRIPT.format(done=f"'{self._work}/{_DONE}'"))
        os.chmod(f"{self._work}/action", 0o700)

    def _become(self, status: Socket, prepare: Callable[[], None], streams: Sequence[int]) -> NoReturn:
        """Turns a child of the keeper into CRIU."""
        try:
            steps.start_recording()
            process.set_parent_death_signal(signals.SIGKILL)
            os.setsid()
            mounts.set_propagation("/", mounts.MS_PRIVATE | mounts.MS_REC)
            prepare()
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            given = dict(enumerate(streams, _STREAMS))
            output = os.open(f"{self._work}/{_OUTPUT}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            given |= {0: null, 1: output, 2: output, _NET: namespaces.open_namespace("net")}
            given = {number: fd for number, fd in given.items() if fd >= 0}
            argv = self._command(given)
            wire.send(status, {"steps": steps.stop_recording()})
            status.close()
            _place(given)
            os.chdir(self._work)
            os.umask(0o022)
            signals.reset()
            process.go_with_others()
            os.execve(argv[0], argv, {"PATH": init.DEFAULT_PATH})
        except OSError as error:
            wire.send(status, {"error": init.describe(error)})
        except BaseException as error:  # whatever it is, it must not unwind into the worker
            wire.send(status, {"error": f"{type(error).__name__}: {error}"})
        finally:
            os._exit(1)

    def _command(self, given: Iterable[int]) -> list[str]:
        """CRIU's arguments; `given` are the numbers of the descriptors that it will have."""
        argv = [self._given["criu"], "restore", "--images-dir", self._given["images"], "--work-dir", self._work]
        argv += ["--log-file", _LOG, "--root", self._root, "--action-script", f"{self._work}/action"]
        argv += ["--restore-detached", "--restore-sibling", "--leave-stopped"]
        argv += ["--manage-cgroups=ignore", "--ext-unix-sk", "--file-locks"]
        argv += ["--tcp-close"]  # whoever was connected is so with the original, or was
        keys = {_NET: "extRootNetNS"} | {
            _STREAMS + number: key for number, key in enumerate(self._given["streams"]) if key
        }
        for number in sorted(keys.keys() & set(given)):
            argv += ["--inherit-fd", f"fd[{number}]:{keys[number]}"]
        for number, entry in enumerate(self._spec["mounts"]):
            if entry["type"] in ("bind", "image"):
                argv += ["--external", f"mnt[{entry['destination']}]:{self._volumes}/{number}"]
        return argv


def _place(descriptors: dict[int, int]) -> None:
    """Puts each descriptor at its number, open across exec, and closes all others."""
    highest = max(descriptors) + 1
    moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, highest) for number, fd in descriptors.items()}
    for number, fd in moved.items():
        os.dup2(fd, number, inheritable=True)
    fds.close_all_but(descriptors)


def place_in(pid: int, path: str) -> str:
    """Where a path leads in the file system that a process sees, as mountinfo names it: /var/run is a link in many images."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    found = -1
    try:
        found = paths.open_in_root(root, path)
        return os.readlink(f"/proc/self/fd/{found}")
    finally:
        wire.close([root, found])


def last_errors(log: str) -> str:
    """CRIU's own account of a failure: the errors in its log, without times and places; "" if there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    errors = (line.partition("): ")[2] for line in lines if "Error (" in line)
    return "; ".join(error for error in errors if not any(known in error for known in _HARMLESS))
