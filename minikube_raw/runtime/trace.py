"""Every step a pod went through, timed: gathered from kubelet, launcher, keeper and container children, one JSON file per pod.

All processes of a node share CLOCK_MONOTONIC, so their steps fall on one line: {"start_ms", "steps": [{at_ms, took_ms,
what, object, who}]}; at_ms counts from the sandbox's begin, start_ms is the time until the first container's program ran.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from minikube_raw.linux import steps

from . import atomic

Result = TypeVar("Result")
Step = Sequence[Any]  # began ns, took ns, what, object
_MOST_STEPS = 4000


class PodTrace:
    """The steps of one sandbox, from its begin on."""

    def __init__(self, path: str, pod: str) -> None:
        self._path, self._pod = path, pod
        self._began = time.monotonic_ns()
        self._steps: list[tuple[str, Step]] = []
        self._first_program: int | None = None

    def add(self, who: str, recorded: Iterable[Step]) -> None:
        """Adds what a process recorded; beyond a few thousand steps (a pod that restarts for ever) no more are taken."""
        if len(self._steps) < _MOST_STEPS:
            self._steps += [(who, step) for step in recorded]

    def program_ran(self, executed_ns: int) -> None:
        """Notes when a container's program began; the first one ends the pod's start."""
        if self._first_program is None:
            self._first_program = executed_ns

    def record(self, function: Callable[[], Result]) -> Result:
        """Runs a function of the kubelet's own side (in whatever thread) with its steps recorded."""
        steps.start_recording()
        try:
            return function()
        finally:
            self.add("kubelet", steps.stop_recording())

    def as_dict(self) -> dict[str, Any]:
        """Returns the trace as it is written and shown."""
        ordered = sorted(self._steps, key=lambda item: item[1][0])
        return {
            "pod": self._pod,
            "start_ms": None if self._first_program is None else _ms(self._first_program - self._began),
            "steps": [
                {"at_ms": _ms(began - self._began), "took_ms": _ms(took), "what": what, "object": subject, "who": who}
                for who, (began, took, what, subject) in ordered
            ],
        }

    def save(self) -> None:
        """Writes the file; slow enough (a hundred steps) to belong off the path of a pod."""
        atomic.write(self._path, json.dumps(self.as_dict()).encode())


def trace_path(directory: str, namespace: str, name: str) -> str:
    """Returns the file of a pod's trace; names of pods and namespaces hold no underscore."""
    return f"{directory}/{namespace}_{name}.json"


def load(directory: str, namespace: str, name: str) -> dict[str, Any] | None:
    """Returns a pod's trace, None if the node has none."""
    return atomic.read_json(trace_path(directory, namespace, name))


def forget(directory: str, namespace: str, name: str) -> None:
    """Removes a pod's trace; twice is fine."""
    with suppress(FileNotFoundError):
        os.unlink(trace_path(directory, namespace, name))


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
