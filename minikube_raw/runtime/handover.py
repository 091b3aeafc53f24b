"""What a worker hands to its keeper: a message, any number of descriptors by name, and a container as its keeper needs it.

A container's request holds its whole spec, tens of kilobytes once it is taken apart. A keeper at rest needs a few words of
it; the whole lies in the container's run directory, for a worker that executes something in it later.
"""

from __future__ import annotations

import errno

from minikube_raw.linux.cgroups import manager

from . import atomic, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .wire import Socket

    Request = dict[str, Any]

_KEPT = ("id", "runDir", "logPath", "exitPath", "cgroup", "pid", "stdin", "stdinOnce")


def give(control: Socket, message: Request, descriptors: dict[str, int]) -> None:
    """Sends a message with named descriptors, in as many packets as those need. Raises OSError when the keeper is gone."""
    names = list(descriptors)
    while len(names) > wire.MOST_DESCRIPTORS:
        part, names = names[: wire.MOST_DESCRIPTORS], names[wire.MOST_DESCRIPTORS :]
        wire.send(control, {"names": part, "more": True}, [descriptors[name] for name in part])
    wire.send(control, {**message, "names": names}, [descriptors[name] for name in names])


def take(control: Socket) -> tuple[Request, dict[str, int]]:
    """Receives what give() sent; the caller owns the descriptors. Raises wire.Closed when the worker ended instead."""
    taken: dict[str, int] = {}
    while True:
        message, received = wire.receive(control)
        taken.update(zip(message["names"], received, strict=True))
        if "more" not in message:
            return message, taken


def summary(request: Request, process: int, started_at: int) -> Request:
    """Returns what a keeper must know of a container all the time."""
    kept = {key: request[key] for key in _KEPT if key in request}
    tty = bool(request["spec"]["process"].get("terminal"))
    oom_file = manager(request["cgroup"]).oom_file()
    if "runtime" in request or "restore" in request:
        kept["runtime"] = True
    return {**kept, "process": process, "startedAt": started_at, "tty": tty, "oomFile": oom_file}


def write_request(request: Request) -> None:
    """Puts a container's whole request into its run directory."""
    atomic.write_json(f"{request['runDir']}/request.json", request)


def read_request(run_dir: str) -> Request:
    """Returns what write_request() put there. Raises FileNotFoundError when the container is gone."""
    request = atomic.read_json(f"{run_dir}/request.json")
    if request is None:
        raise FileNotFoundError(errno.ENOENT, "the container is gone", run_dir)
    return request
