"""A pod's trace file as its writers see it: each process appends what it recorded, in one write, and nobody takes it apart.

A part is a line of JSON, {"who", "pid", "steps": N}, and the steps as N bytes of marshal: five times as fast as JSON, without a
thousand strings on the way that each dirty a page of a fork. Whoever shows the trace reads them (trace.py).
"""

from __future__ import annotations

import marshal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minikube_raw.linux.steps import Step

MOST_BYTES = 400_000  # twenty starts of a container; a pod that restarts for ever must not fill the disk
_FORMAT = 4  # of marshal: every Python since 3.4 reads it


def pack(recorded: Sequence[Step]) -> bytes:
    """Returns steps as bytes; b"" when there are none."""
    if not recorded:
        return b""
    try:
        return marshal.dumps(list(recorded), _FORMAT)
    except ValueError:  # an argument that is no plain value: its name will do
        return marshal.dumps([(began, took, what, str(subject)) for began, took, what, subject in recorded], _FORMAT)


def unpack(packed: bytes) -> list[Step]:
    """Returns what pack() was given. Only for what processes of ours have written: marshal trusts its input."""
    steps: list[Step] = marshal.loads(packed)
    return steps


def part(who: str, pid: int, packed: bytes) -> bytes:
    """Returns the steps of a process as they stand in the file; b"" when there are none."""
    return b'{"who":"%b","pid":%d,"steps":%d}\n%b' % (who.encode(), pid, len(packed), packed) if packed else b""


def append(path: str, parts: bytes) -> None:
    """Adds parts to a trace; one that is gone, or has grown too long, stays as it is."""
    if not parts:
        return
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if os.fstat(file).st_size < MOST_BYTES:
            os.write(file, parts)
    finally:
        os.close(file)
