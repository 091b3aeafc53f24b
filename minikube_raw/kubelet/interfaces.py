"""Traffic of a network namespace, from the proc(5) directory of a process in it."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
_COLUMNS = {"rxBytes": 0, "rxErrors": 2, "txBytes": 8, "txErrors": 10}


def network(process: str, default: str, at: str) -> Json | None:
    """The summary's `network`: the default interface's figures and all of them; None when the process has gone."""
    try:
        with open(f"/proc/{process}/net/dev", encoding="ascii") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return None
    interfaces = [_interface(line) for line in lines if not line.strip().startswith("lo:")]
    main = next((each for each in interfaces if each["name"] == default), {})
    return {"time": at, **main, "interfaces": interfaces}


def _interface(line: str) -> Json:
    name, _, rest = line.partition(":")
    fields = rest.split()
    return {"name": name.strip(), **{key: int(fields[column]) for key, column in _COLUMNS.items()}}
