"""Who runs for a cluster: its nodes and processes, as `status` shows them.

Processes are found by what the kernel says, the recorded master and machines and whatever is in a node's system cgroup;
nothing is believed that was only written down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from minikube_raw.cli.output import Table, size
from minikube_raw.linux.cgroups import manager
from minikube_raw.machine import machine, processes
from minikube_raw.machine.layout import ClusterRecord, Layout, NodeRecord


def describe(layout: Layout, record: ClusterRecord) -> dict[str, Any]:
    """Return {name, nodes: [{name, ip, running}], processes: [{role, node, pid, rss_bytes}]}; pids as the host sees them."""
    nodes = [{"name": n.name, "ip": n.ip, "running": machine.find(layout, n) is not None} for n in record.nodes]
    found = [*master(layout), *[process for node in record.nodes for process in node_processes(layout, node)]]
    return {"name": record.name, "api": f"https://127.0.0.1:{record.api_port}", "nodes": nodes, "processes": found}


def master(layout: Layout) -> Iterator[dict[str, Any]]:
    """The master, if it runs."""
    pid = processes.find(layout.process("master"))
    if pid is not None:
        yield from entry("master", None, pid)


def node_processes(layout: Layout, node: NodeRecord) -> Iterator[dict[str, Any]]:
    """The machine of a node and everything of ours on it."""
    machine_pid = machine.find(layout, node)
    if machine_pid is None:
        return
    yield from entry("machine", node.name, machine_pid)
    for pid in manager(layout.cgroup(node.name) + "/system").procs(recursive=True):
        if pid != machine_pid and (role := role_of(pid)):
            yield from entry(role, node.name, pid)


def role_of(pid: int) -> str | None:
    """Tell kubelet, launcher and keeper apart by what they call themselves; None for what is not a long-lived process of ours."""
    try:
        process = psutil.Process(pid)
        words = [*process.cmdline(), process.name()]
    except psutil.NoSuchProcess:
        return None
    return next((role for role in ("keeper", "launcher", "kubelet") if any(role in word for word in words)), None)


def entry(role: str, node: str | None, pid: int) -> Iterator[dict[str, Any]]:
    """One process, none if it has just ended."""
    try:
        yield {"role": role, "node": node, "pid": pid, "rss_bytes": psutil.Process(pid).memory_info().rss}
    except psutil.NoSuchProcess:
        return


def tables(data: dict[str, Any]) -> Sequence[Table]:
    """The description for people."""
    nodes = [(n["name"], n["ip"], "running" if n["running"] else "off") for n in data["nodes"]]
    rows = [(p["role"], p["node"] or "", p["pid"], size(p["rss_bytes"])) for p in data["processes"]]
    return [Table(("NODE", "ADDRESS", "STATE"), nodes), Table(("ROLE", "NODE", "PID", "MEMORY"), rows)]
