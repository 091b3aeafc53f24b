"""Every step a pod went through, timed: gathered from kubelet, CNI, keeper and container children, one file per pod.

All processes of a node share CLOCK_MONOTONIC, so their steps fall on one line: {"start_ms", "steps": [{at_ms, took_ms,
what, object, who, pid}]}; at_ms counts from the sandbox's begin (a keeper that was made ahead of time has earlier ones),
start_ms is the time until the first container's program ran.
Whoever recorded steps adds them to the file as they are (recording.py): no pod's start pays for taking them apart, and no kubelet
keeps them in memory. Reading puts them in order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from minikube_raw.linux import filenames, steps

from . import recording
from .callwords import words

Result = TypeVar("Result")


class PodTrace:
    """The steps of one sandbox, from its begin on; what workers and children recorded they add to the file themselves."""

    def __init__(self, path: str, pod: str) -> None:
        """Makes the file; what an earlier pod of this name left goes."""
        self._path = path
        self.began = time.monotonic_ns()
        self._parts: list[bytes] = []  # not in the file yet
        self._recorded: list[tuple[str, list[steps.Step]]] = []  # the same, not packed yet
        self._program_ran = False
        with open(path, "wb", buffering=0) as file:
            file.write(_line({"pod": pod, "began": self.began}))

    def add(self, recorded: Iterable[str]) -> None:
        """Adds what a keeper of an earlier release sends: steps as JSON, with who recorded them or the bare list."""
        for text in recorded:
            line = f'{{"who":"keeper","pid":0,"steps":{text}}}' if text.startswith("[") else text
            self._parts.append(f"{line}\n".encode())

    def program_ran(self, executed_ns: int) -> None:
        """Notes when a container's program began; the first one ends the pod's start."""
        if not self._program_ran:
            self._program_ran = True
            self._parts.append(_line({"program": executed_ns}))

    def record(self, function: Callable[[], Result], who: str = "kubelet") -> Result:
        """Runs a function of the kubelet's own side (in whatever thread) with its steps recorded."""
        steps.start_recording()
        try:
            return function()
        finally:
            self._recorded.append((who, steps.stop_recording()))

    def block(self, what: str, subject: str, began_ns: int) -> None:
        """Adds a verb that is over now as a block around the steps it was made of; `began_ns` is time.monotonic_ns()."""
        self._recorded.append(("kubelet", [(began_ns, time.monotonic_ns() - began_ns, what, subject)]))

    def save(self) -> None:
        """Writes what has come since the last time: a few kilobytes into the run directory, which is memory."""
        parts, self._parts = self._parts, []
        recorded, self._recorded = self._recorded, []
        parts += [recording.part(who, os.getpid(), recording.pack(each)) for who, each in recorded]
        recording.append(self._path, b"".join(parts))


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def trace_path(directory: str, namespace: str, name: str) -> str:
    """Returns the file of a pod's trace."""
    return f"{directory}/{filenames.of_object(namespace, name, beside=len('.json'))}.json"


def load(directory: str, namespace: str, name: str) -> dict[str, Any] | None:
    """Returns a pod's trace as it is shown, None if the node has none."""
    try:
        with open(trace_path(directory, namespace, name), "rb") as file:
            head, *parts = _parts(file.read())
    except FileNotFoundError:
        return None
    began: int = head["began"]
    recorded = [(step, part["who"], part["pid"]) for part in parts for step in part.get("steps", ())]
    return {
        "pod": head["pod"],
        "start_ms": next((_ms(part["program"] - began) for part in parts if "program" in part), None),
        "steps": [
            {"at_ms": _ms(at - began), "took_ms": _ms(took), "what": what, "object": words(what, subject)}
            | {"who": who, "pid": pid}
            for (at, took, what, subject), who, pid in sorted(recorded, key=lambda each: (each[0][0], each[0][1]))
        ],
    }


def _parts(content: bytes) -> Iterator[dict[str, Any]]:
    """Takes a file apart: lines of JSON, those with a number of bytes for steps followed by these. What is cut off is being written."""
    offset = 0
    while (end := content.find(b"\n", offset)) >= 0:
        found = msgspec.json.decode(content[offset:end])
        offset = end + 1
        if isinstance(size := found.get("steps"), int):
            packed = content[offset : offset + size]
            if len(packed) < size:
                return
            found["steps"] = recording.unpack(packed)
            offset += size
        yield found


def forget(directory: str, namespace: str, name: str) -> None:
    """Removes a pod's trace; twice is fine."""
    with suppress(FileNotFoundError):
        os.unlink(trace_path(directory, namespace, name))


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
