"""`pod top` and `pod stats`: what runs in pods and what it uses, from cgroups and /proc as this host sees them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import click
import psutil

from minikube_raw.cli import podagent
from minikube_raw.cli.errors import need_root
from minikube_raw.cli.main import Options
from minikube_raw.cli.output import Table, print_as, size
from minikube_raw.cli.podagent import Json, namespace_option, output_option
from minikube_raw.kubelet import localagent, pods, qos
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.linux.cgroups import manager
from minikube_raw.runtime import users

_SAMPLE_SECONDS = 0.2
_SHOWN = 120  # letters of a command line in a table


@click.command()
@click.argument("name")
@namespace_option
@output_option
@click.pass_obj
def top(options: Options, name: str, namespace: str, output: str) -> None:
    """List a pod's processes: inside and outside pid, user, cpu, memory, command."""
    need_root("looking into a pod's processes")
    agent = podagent.agent_of(options)
    found = podagent.pod(agent, namespace, name)
    seen = [(container, pid) for container, pids in _processes(agent, found) for pid in pids]
    data = {"pod": f"{namespace}/{name}", "processes": [*_described(seen)]}
    print_as(output, data, _top_table)


@click.command()
@click.argument("name", required=False)
@namespace_option
@output_option
@click.pass_obj
def stats(options: Options, name: str | None, namespace: str, output: str) -> None:
    """Show what pods use: cpu, memory, processes, network; JSON and YAML have each container's figures as well."""
    agent = podagent.agent_of(options)
    if name is not None:
        podagent.pod(agent, namespace, name)
    found = podagent.get(agent, "/stats/summary")["pods"] if localagent.answers(agent) else []
    shown = [each for each in found if name is None or _is(each["podRef"], namespace, name)]
    print_as(output, {"pods": shown}, _stats_table)


def _is(reference: Json, namespace: str, name: str) -> bool:
    return (reference["namespace"], reference["name"]) == (namespace, name)


def _processes(agent: KubeletOptions, found: Json) -> Iterator[tuple[str, list[int]]]:
    """Each running container with the pids of its cgroup."""
    parent = qos.cgroup_parent(pods.from_manifest(found))
    for status in podagent.statuses(found):
        if "running" in status["state"]:
            container_id = status["containerID"].partition("://")[2]
            yield status["name"], manager(f"{agent.cgroup_root}/{parent}/{container_id}").procs(recursive=True)


def _described(seen: list[tuple[str, int]]) -> Iterator[Json]:
    """The processes that are still there, with their use of CPU over a moment."""
    present: list[tuple[str, psutil.Process]] = []
    for container, pid in seen:
        try:
            process = psutil.Process(pid)
            process.cpu_percent()
        except psutil.NoSuchProcess:
            continue
        present.append((container, process))
    time.sleep(_SAMPLE_SECONDS)
    for container, process in present:
        try:
            yield _description(container, process)
        except (psutil.NoSuchProcess, OSError):
            continue


def _description(container: str, process: psutil.Process) -> Json:
    uid = process.uids().effective
    return {
        "container": container,
        "pid": _inner_pid(process.pid),
        "hostPid": process.pid,
        "uid": uid,
        "user": _user(process.pid, uid),
        "cpuPercent": process.cpu_percent(),
        "memoryBytes": process.memory_info().rss,
        "command": process.cmdline() or [process.name()],
    }


def _inner_pid(pid: int) -> int:
    """The pid in its innermost PID namespace (proc_pid_status(5), NSpid)."""
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("NSpid:"))
    return int(line.split()[-1])


def _user(pid: int, uid: int) -> str:
    """The name that the container's own /etc/passwd has for a user, read as hostile input; "" when it has none."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lines = users.read_in_root(root, "/etc/passwd").splitlines()
    finally:
        os.close(root)
    return next((fields[0] for fields in (line.split(":") for line in lines) if fields[2:3] == [str(uid)]), "")


def _top_table(data: Json) -> Sequence[Table]:
    rows = [
        [
            each["container"],
            each["pid"],
            each["hostPid"],
            each["user"] or each["uid"],
            f"{each['cpuPercent']:.1f}",
            size(each["memoryBytes"]),
            " ".join(each["command"])[:_SHOWN],
        ]
        for each in data["processes"]
    ]
    return [Table(["CONTAINER", "PID", "HOST PID", "USER", "%CPU", "MEMORY", "COMMAND"], rows)]


def _stats_table(data: Json) -> Sequence[Table]:
    rows = []
    for each in data["pods"]:
        network = each.get("network") or {}
        rows.append(
            [
                each["podRef"]["namespace"],
                each["podRef"]["name"],
                f"{each['cpu']['usageNanoCores'] / 1e6:.0f}m" if "usageNanoCores" in each["cpu"] else "",
                size(each["memory"]["workingSetBytes"]),
                each.get("process_stats", {}).get("process_count", ""),
                size(network.get("rxBytes", 0)),
                size(network.get("txBytes", 0)),
            ]
        )
    return [Table(["NAMESPACE", "NAME", "CPU", "MEMORY", "PIDS", "RECEIVED", "SENT"], rows)]
