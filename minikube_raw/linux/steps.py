"""The recorder behind `trace`: each system call made through this package leaves one timed step while recording is on.

It holds facts only (when, how long, which call, on what) and neither prints nor stores them: whoever started recording
takes the list and sends it where it belongs. Off, a call costs one attribute test; on, one tuple in a list.
MINIKUBE_RAW_NO_STEPS=1 in the environment turns it off for good, which is how its cost is measured.
"""

from __future__ import annotations

import _thread
import os
from time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import TypeAlias

    # Began (CLOCK_MONOTONIC ns), took (ns), what, object: words, or the arguments of a system call as it was made.
    Step: TypeAlias = tuple[int, int, str, str | tuple[object, ...]]


class _Recorder(_thread._local):
    log: list[Step] | None = None


_recorder = _Recorder()
_KEPT = (str, tuple)
_wanted = not os.environ.get("MINIKUBE_RAW_NO_STEPS")


def start_recording() -> None:
    """Records the steps of the calling thread from now on; a second call starts an empty list."""
    _recorder.log = [] if _wanted else None


def take() -> list[Step]:
    """Returns the steps since the last take as (began ns, took ns, what, object), oldest first; recording goes on."""
    log = _recorder.log
    if log is None:
        return []
    _recorder.log = []
    return log


def stop_recording() -> list[Step]:
    """Ends recording in this thread and returns what was not taken yet."""
    log = _recorder.log
    _recorder.log = None
    return log or []


def recording() -> bool:
    """Says whether the calling thread records."""
    return _recorder.log is not None


def begin() -> int:
    """Returns the time a step begins, or 0 when nobody records; begin() and end() are the cheap pair."""
    return 0 if _recorder.log is None else monotonic_ns()


def end(began: int, what: str, subject: object = "") -> None:
    """Notes that the step which began at `began` (from begin()) is over; `subject` is what it was done to.

    A tuple is the system call's arguments, flags as numbers: whoever shows them names the bits (runtime/callwords.py).
    """
    if began and (log := _recorder.log) is not None:
        took = monotonic_ns() - began
        log.append((began, took, what, subject if subject.__class__ in _KEPT else str(subject)))


def add(steps: list[Step]) -> None:
    """Adds steps that another thread or process recorded for this one."""
    if _recorder.log is not None:
        _recorder.log.extend(steps)


class step:
    """`with step("unpack", layer):` records a block that is more than one call."""

    __slots__ = ("_began", "_subject", "_what")

    def __init__(self, what: str, subject: object = "") -> None:
        self._what = what
        self._subject = subject

    def __enter__(self) -> None:
        self._began = begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._began, self._what, self._subject)
