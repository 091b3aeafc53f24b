"""Machines on a switch: namespaces of their own, services kept running, off in one signal, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minikube_raw.linux.cgroups import Limits, manager
from minikube_raw.machine import machine, processes
from minikube_raw.machine.layout import ClusterRecord, Layout, NodeRecord
from minikube_raw.machine.underlay import Underlay
from tests import host

pytestmark = pytest.mark.root

NODES = (NodeRecord("m-1", "10.243.9.11"), NodeRecord("m-2", "10.243.9.12"))
RECORD = ClusterRecord("machinetest", "mkrtest0", "10.243.9.0/24", "10.244.0.0/16", "10.96.0.0/12", 6443, "/k", NODES)
OTHERS = ("cgroups", "processes")  # the host's, which other tests and people change; ours are looked at by name
SLEEP = machine.Service("sleeper", ["/bin/sleep", "4321"])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Layout]:
    """A switch; afterwards everything is taken away again."""
    before = host.snapshot(without=OTHERS)
    layout = Layout(tmp_path / "state", tmp_path / "run", RECORD.name)
    layout.save(RECORD)
    network = Underlay(layout, RECORD)
    network.ensure()
    yield layout
    for node in NODES:
        machine.power_off(layout, node)
        manager(layout.cgroup(node.name)).remove()
    network.remove()
    manager(layout.cgroup()).remove()
    manager(layout.cgroup_root).remove()
    layout.remove()
    assert host.difference(before, host.snapshot(without=OTHERS)) == {}
    assert not any(path.exists() for path in Path("/sys/fs/cgroup").glob(f"*/{layout.cgroup_root}"))


def power_on(layout: Layout, node: NodeRecord, *services: machine.Service, limits: Limits | None = None) -> int:
    """Start a machine with a sleeping service."""
    plug = Underlay(layout, RECORD).plug
    return machine.power_on(layout, node, services or (SLEEP,), limits or Limits(), plug)


def inside(pid: int, *command: str) -> str:
    """Run a command in all namespaces of a machine."""
    return subprocess.run(
        ["nsenter", "-t", str(pid), "-a", *command], capture_output=True, text=True, check=True
    ).stdout


def children(pid: int) -> list[int]:
    """Children of a process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(look: object, seconds: float = 5) -> None:
    """Wait until a predicate holds; there is no event for another process' children."""
    deadline = time.monotonic() + seconds
    while not look():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_machine_has_its_own_name_processes_and_address(place: Layout) -> None:
    pid = power_on(place, NODES[0])
    assert inside(pid, "hostname") == "m-1\n"
    assert inside(pid, "cat", "/proc/1/cmdline").count("machine.init") == 1
    assert "10.243.9.11/24" in inside(pid, "ip", "-br", "address", "show", "eth0")
    assert machine.find(place, NODES[0]) == pid


def test_a_machine_shows_no_more_processes_than_its_host_can_have(place: Layout) -> None:
    pid = power_on(place, NODES[0])
    assert inside(pid, "cat", "/proc/sys/kernel/pid_max") == Path("/proc/sys/kernel/pid_max").read_text()


def test_machines_reach_each_other_and_the_host(place: Layout) -> None:
    pids = [power_on(place, node) for node in NODES]
    for target in ("10.243.9.12", "10.243.9.1"):
        assert "1 packets received" in inside(pids[0], "busybox", "ping", "-c1", "-W2", target)


def test_frames_between_machines_meet_no_firewall_hooks_and_those_of_a_machine_do(place: Layout) -> None:
    parameter = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    if not Path(parameter).exists():
        pytest.skip("this kernel has no br_netfilter")
    pid = power_on(place, NODES[0])
    switch = subprocess.run(
        ["nsenter", f"--net={place.underlay_netns}", "cat", parameter], capture_output=True, text=True, check=True
    )
    assert switch.stdout == "0\n"
    assert inside(pid, "cat", parameter) == "1\n"  # its pods' host ports need them


def test_a_service_that_dies_is_started_again(place: Layout) -> None:
    pid = power_on(place, NODES[0])
    wait_for(lambda: children(pid))
    first = children(pid)
    os.kill(first[0], signal.SIGKILL)
    wait_for(lambda: children(pid) and children(pid) != first)


def test_killing_the_machine_ends_everything_on_it(place: Layout) -> None:
    pid = power_on(place, NODES[0])
    wait_for(lambda: children(pid))
    service = os.pidfd_open(children(pid)[0])
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: machine.find(place, NODES[0]) is None)
    wait_for(lambda: not manager(place.cgroup("m-1")).procs(recursive=True))
    os.close(service)


def test_powering_on_again_after_a_power_cut_finds_an_empty_run_directory(place: Layout) -> None:
    pid = power_on(place, NODES[0])
    run_dir = str(place.node_run("m-1"))
    inside(pid, "touch", f"{run_dir}/left")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: machine.find(place, NODES[0]) is None)
    again = power_on(place, NODES[0])
    assert inside(again, "ls", run_dir) == ""
    assert os.listdir(run_dir) == [], "the machine's tmpfs is not seen by the host"


def test_limits_bound_everything_on_the_machine(place: Layout) -> None:
    power_on(place, NODES[0], limits=Limits(memory_limit=64 << 20))
    assert manager(place.cgroup("m-1")).stats().memory_limit == 64 << 20


def test_off_twice_is_fine_and_a_stranger_with_its_pid_is_not_touched(place: Layout) -> None:
    power_on(place, NODES[0])
    machine.power_off(place, NODES[0])
    machine.power_off(place, NODES[0])
    with subprocess.Popen(["sleep", "60"]) as stranger:
        processes.remember(stranger.pid, place.process("machine-m-1"))
        record = place.process("machine-m-1")
        record.write_text(record.read_text().replace('"start_time":', '"start_time":1'))
        machine.power_off(place, NODES[0])
        assert stranger.poll() is None
        stranger.kill()
