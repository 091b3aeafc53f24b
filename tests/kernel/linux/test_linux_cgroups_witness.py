"""What we write into v1 cgroups, read back by an outside witness."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cgroupspy import trees

from minikube_raw.linux import cgroups
from minikube_raw.linux.cgroups import Cgroup, Limits

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(cgroups.detect() == "v2", reason="cgroupspy knows cgroup v1 only, and this host has none"),
]


@pytest.fixture
def group() -> Iterator[Cgroup]:
    """A cgroup in every hierarchy."""
    group = cgroups.manager(f"minikube-raw-witness-{os.getpid()}")
    group.create()
    yield group
    group.remove()


def seen(controller: str, group: Cgroup) -> trees.Node:
    """The cgroup as cgroupspy finds it."""
    return trees.Tree().get_node_by_path(f"/{controller}/{group.path}")


def test_a_witness_reads_the_limits_that_were_set(group: Cgroup) -> None:
    group.set_limits(Limits(memory_limit=64 << 20, cpu_shares=512, cpu_quota=50_000, cpu_period=100_000))
    assert seen("memory", group).controller.limit_in_bytes == 64 << 20
    cpu = seen("cpu", group).controller
    assert (cpu.shares, cpu.cfs_quota_us, cpu.cfs_period_us) == (512, 50_000, 100_000)


def test_a_witness_finds_nothing_after_removal(group: Cgroup) -> None:
    group.remove()
    assert seen("memory", group) is None
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{group.path}"))
