"""Every step a pod went through, timed: gathered from kubelet, CNI, keeper and container children, one file per pod.

All processes of a node share CLOCK_MONOTONIC, so their steps fall on one line: {"start_ms", "steps": [{at_ms, took_ms,
what, object, who, pid}]}; at_ms counts from the sandbox's begin (a keeper that was made ahead of time has earlier ones),
start_ms is the time until the first container's program ran.
Steps are JSON text from whoever recorded them to the file, a line each: no pod's start pays for taking them apart, and no
kubelet keeps them in memory. Reading puts them in order.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from minikube_raw.linux import steps

from . import wire
from .callwords import words

Result = TypeVar("Result")
_MOST_BYTES = 400_000  # twenty starts of a container; a pod that restarts for ever must not fill the disk


class PodTrace:
    """The steps of one sandbox, from its begin on."""

    def __init__(self, path: str, pod: str) -> None:
        self._path = path
        self.began = time.monotonic_ns()
        self._lines = [_line({"pod": pod, "began": self.began})]  # not in the file yet
        self._taken = 0
        self._program_ran = False
        self._mode = "w"  # what an earlier pod of this name left goes
        self._writing = threading.Lock()

    def add(self, recorded: Iterable[str]) -> None:
        """Adds what processes recorded (wire.recorded); a keeper of an earlier release sends the bare list of its steps."""
        for text in recorded:
            if self._taken < _MOST_BYTES:
                line = wire.recorded("keeper", 0, text) if text.startswith("[") else text
                self._taken += len(line)
                self._lines.append(f"{line}\n")

    def program_ran(self, executed_ns: int) -> None:
        """Notes when a container's program began; the first one ends the pod's start."""
        if not self._program_ran:
            self._program_ran = True
            self._lines.append(_line({"program": executed_ns}))

    def record(self, function: Callable[[], Result], who: str = "kubelet") -> Result:
        """Runs a function of the kubelet's own side (in whatever thread) with its steps recorded."""
        steps.start_recording()
        try:
            return function()
        finally:
            recorded = msgspec.json.encode(steps.stop_recording()).decode()
            self.add([wire.recorded(who, os.getpid(), recorded)])

    def block(self, what: str, subject: str, began_ns: int) -> None:
        """Adds a verb that is over now as a block around the steps it was made of; `began_ns` is time.monotonic_ns()."""
        step = (began_ns, time.monotonic_ns() - began_ns, what, subject)
        self.add([wire.recorded("kubelet", os.getpid(), wire.text([step]))])

    def save(self) -> None:
        """Writes what has come since the last time; any thread may."""
        with self._writing:
            lines, self._lines = self._lines, []
            with open(self._path, self._mode, encoding="utf-8") as file:
                file.write("".join(lines))
            self._mode = "a"


def _line(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode() + "\n"


def trace_path(directory: str, namespace: str, name: str) -> str:
    """Returns the file of a pod's trace; names of pods and namespaces hold no underscore."""
    return f"{directory}/{namespace}_{name}.json"


def load(directory: str, namespace: str, name: str) -> dict[str, Any] | None:
    """Returns a pod's trace as it is shown, None if the node has none."""
    try:
        with open(trace_path(directory, namespace, name), "rb") as file:
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    head, *parts = (msgspec.json.decode(line) for line in lines if line.endswith(b"\n"))  # the last is being written
    began: int = head["began"]
    recorded = [(step, part["who"], part["pid"]) for part in parts for step in part.get("steps", ())]
    return {
        "pod": head["pod"],
        "start_ms": next((_ms(part["program"] - began) for part in parts if "program" in part), None),
        "steps": [
            {"at_ms": _ms(at - began), "took_ms": _ms(took), "what": what, "object": words(what, subject)}
            | {"who": who, "pid": pid}
            for (at, took, what, subject), who, pid in sorted(recorded, key=lambda each: each[0][:2])
        ],
    }


def forget(directory: str, namespace: str, name: str) -> None:
    """Removes a pod's trace; twice is fine."""
    with suppress(FileNotFoundError):
        os.unlink(trace_path(directory, namespace, name))


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
