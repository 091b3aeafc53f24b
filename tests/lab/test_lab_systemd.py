"""`pod enable` on a machine that boots: pods come back after a reboot and a power cut, and systemd's own doings leave them alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.machine import Machine
from tests.lab.pods import running

UNIT = "minikube-raw-pods.service"
POD = """
kind: Pod
metadata: {name: NAME}
spec:
  terminationGracePeriodSeconds: 20
  volumes: [{name: said, hostPath: {path: /var/said, type: DirectoryOrCreate}}]
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "trap 'echo politely >> /said/NAME; exit 0' TERM; echo started >> /said/NAME; tail -f /dev/null & wait"]
    resources: {limits: {cpu: 500m, memory: 32Mi}}
    volumeMounts: [{name: said, mountPath: /said}]
"""


@pytest.fixture
def enabled(lab: Machine) -> Iterator[Machine]:
    """A machine whose pods systemd looks after; one pod runs."""
    lab.product("pod run --timeout 240 -f -", stdin=POD.replace("NAME", "kept"))
    lab.product("pod enable")
    yield lab
    lab.product("pod disable")
    lab.product("pod rm kept")
    lab.run("rm -r /var/said")


def said(lab: Machine, name: str) -> list[str]:
    """What the pod has told the host's disk, over all boots."""
    return lab.run(f"cat /var/said/{name}").split()


def processes(lab: Machine) -> dict[str, str]:
    """Our processes and those of pods: pid → cgroup. One in a cgroup that could be removed has ended, and waits to be reaped."""
    lines = lab.run("grep -s '' /proc/[0-9]*/cgroup || true").splitlines()
    found = dict(line.removeprefix("/proc/").split("/cgroup:0::") for line in lines)
    return {pid: group for pid, group in found.items() if "minikube-raw" in group and not group.endswith(" (deleted)")}


def limits(lab: Machine) -> str:
    """All values of the pods' control files that are settings."""
    files = "cpu.weight cpu.max memory.max memory.swap.max memory.oom.group pids.max cpuset.cpus cgroup.subtree_control"
    return lab.run(
        f"cd /sys/fs/cgroup; grep -rs '' minikube-raw* {' '.join(f'--include={name}' for name in files.split())} || true"
    )


def test_pods_come_back_after_a_reboot_and_were_given_their_grace(enabled: Machine) -> None:
    enabled.reboot()
    pod = running(enabled, "kept")
    assert said(enabled, "kept") == ["started", "politely", "started"]
    assert pod["status"]["containerStatuses"][0]["restartCount"] <= 1
    assert enabled.run(f"systemctl is-active {UNIT}") == "active\n"
    assert enabled.run("systemctl is-system-running") == "running\n"


def test_a_pod_comes_back_after_a_power_cut_the_moment_it_ran(enabled: Machine) -> None:
    enabled.product("pod run --timeout 240 -f -", stdin=POD.replace("NAME", "young"))
    enabled.cut_power()
    enabled.boot()
    for name in ("kept", "young"):
        running(enabled, name)
    assert enabled.run(f"systemctl is-active {UNIT}") == "active\n"
    enabled.product("pod rm young")


def test_reloading_and_executing_systemd_anew_leaves_pods_and_their_limits_alone(enabled: Machine) -> None:
    before = processes(enabled), limits(enabled)
    for command in ("daemon-reload", "daemon-reexec", "restart ssh.service systemd-journald.service", "daemon-reload"):
        enabled.run(f"systemctl {command}")
        assert set(processes(enabled)) == set(before[0])
        assert limits(enabled) == before[1]
    running(enabled, "kept")


def test_stopping_the_unit_halts_pods_and_starting_it_brings_them_back(enabled: Machine) -> None:
    enabled.run(f"systemctl stop {UNIT}", timeout=120)
    assert processes(enabled) == {}
    assert said(enabled, "kept") == ["started", "politely"]
    enabled.run(f"systemctl start {UNIT}", timeout=120)
    running(enabled, "kept")
