"""Records as files that are either old or new, never half: the one way in which launcher, keeper and kubelet write them.

linux/ and the standard library only, since keepers write exit records with it.
"""

from __future__ import annotations

from minikube_raw.linux.durability import write_file as write

from . import jsontext

__all__ = ["read_json", "write", "write_json"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write_json(path: str, value: object, *, sync: bool = False) -> None:
    """write() of a JSON value."""
    write(path, jsontext.dumps(value).encode(), sync=sync)


def read_json(path: str) -> dict[str, Any] | None:
    """Returns the object in a file, or None when there is no such file. Raises ValueError when it is not a JSON object."""
    try:
        with open(path, "rb") as file:
            value = jsontext.loads(file.read())
    except FileNotFoundError:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value
