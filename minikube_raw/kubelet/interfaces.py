"""Traffic of a network namespace, from the proc(5) directory of a process in it."""

from __future__ import annotations

from typing import Any, NamedTuple

Json = dict[str, Any]


class Traffic(NamedTuple):
    """One interface's counters since it was made, as /proc/net/dev has them."""

    receive_bytes: int
    receive_packets: int
    receive_errors: int
    receive_packets_dropped: int
    transmit_bytes: int
    transmit_packets: int
    transmit_errors: int
    transmit_packets_dropped: int


def traffic(process: str) -> dict[str, Traffic]:
    """All interfaces but loopback, as a process ("self" or a pid) has them; none when it has gone."""
    try:
        with open(f"/proc/{process}/net/dev", encoding="ascii") as file:
            lines = [line.partition(":") for line in file.read().splitlines()[2:]]
    except OSError:
        return {}
    return {name.strip(): _traffic(rest.split()) for name, _, rest in lines if name.strip() != "lo"}


def _traffic(columns: list[str]) -> Traffic:
    return Traffic(*(int(columns[number]) for number in (0, 1, 2, 3, 8, 9, 10, 11)))


def network(process: str, default: str, at: str) -> Json | None:
    """The summary's `network`: the default interface's figures and all of them; None when the process has gone."""
    interfaces = [_interface(name, each) for name, each in traffic(process).items()]
    if not interfaces:
        return None
    main = next((each for each in interfaces if each["name"] == default), {})
    return {"time": at, **main, "interfaces": interfaces}


def _interface(name: str, found: Traffic) -> Json:
    received = {"rxBytes": found.receive_bytes, "rxErrors": found.receive_errors}
    return {"name": name, **received, "txBytes": found.transmit_bytes, "txErrors": found.transmit_errors}
