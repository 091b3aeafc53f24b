"""Figures of real cgroups and directories."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from minikube_raw.kubelet.diskusage import DiskUsage, Holding
from minikube_raw.kubelet.pods import from_manifest
from minikube_raw.kubelet.usage import Subject, UsageReader
from minikube_raw.linux import disk_usage
from minikube_raw.linux.cgroups import manager

pytestmark = pytest.mark.root
POD = from_manifest({"metadata": {"name": "p", "namespace": "ns", "uid": "u1"}, "spec": {"containers": []}})


@pytest.fixture
def root() -> Iterator[str]:
    """A node's cgroup."""
    path = f"minikube-raw-test-{uuid.uuid4().hex[:8]}"
    try:
        manager(f"{path}/kubepods").create()
        yield path
    finally:
        manager(path).kill_all(5)
        manager(path).remove()


def test_the_rate_is_of_the_time_between_two_readings(root: str) -> None:
    clock = [1000.0]
    reader = UsageReader(root, lambda: clock[0])
    group = manager(f"{root}/kubepods/podu1")
    group.create()
    subject = Subject(POD, "kubepods/podu1", 990.0, ())

    first = reader.read([subject]).pods[0].reading
    group_time = burn(group)
    clock[0] += 5
    second = reader.read([subject]).pods[0].reading

    assert (first.cores, first.window) == (0, 10)
    used = (second.stats.cpu_usage_ns or 0) / 1e9
    assert used >= group_time
    assert (second.window, second.cores) == (5, pytest.approx(used / 5))


def test_what_has_just_begun_has_no_rate(root: str) -> None:
    manager(f"{root}/kubepods/podu1").create()
    subject = Subject(POD, "kubepods/podu1", 999.9, ())

    assert UsageReader(root, lambda: 1000.0).read([subject]).pods[0].reading.cores is None


def burn(group) -> float:
    """Uses CPU in a cgroup for a moment; returns the least that it must have counted, in seconds."""
    # From when it runs in the cgroup: forking and moving there took CPU time that another cgroup was charged for.
    code = "from time import process_time as used\nbegan = used()\nwhile used() - began < 0.2: pass"
    subprocess.run([sys.executable, "-S", "-c", code], check=True, preexec_fn=lambda: group.attach(0))
    return 0.2


def test_a_pod_that_is_gone_is_left_out(root: str) -> None:
    use = UsageReader(root).read([Subject(POD, "kubepods/podgone", 0.0, ())])
    assert use.pods == ()
    assert use.available > 0


def test_a_tree_is_counted_as_du_counts_it(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/file").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "a/file", tmp_path / "a/b/again")
    (tmp_path / "a/b/link").symlink_to("/usr")
    du = subprocess.run(["du", "-sB1", tmp_path], capture_output=True, text=True, check=True).stdout.split()[0]
    inodes = subprocess.run(
        ["du", "-s", "--inodes", tmp_path], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert disk_usage.tree(str(tmp_path)) == (int(du), int(inodes))
    assert disk_usage.tree(str(tmp_path / "gone")) == (0, 0)


def test_a_large_tree_is_not_walked_again_at_once(tmp_path: Path) -> None:
    clock = [0.0]
    usage = DiskUsage(lambda: clock[0])
    (tmp_path / "upper").mkdir()
    holding = Holding(POD, {"c": str(tmp_path / "upper")}, tmp_path / "logs", tmp_path / "volumes")

    before = usage.measure([holding])["u1"].total()
    (tmp_path / "upper/file").write_bytes(b"x" * 100_000)
    at_once = usage.measure([holding])["u1"].total()
    clock[0] = 11.0
    later = usage.measure([holding])["u1"].total()

    assert at_once == before
    assert later.bytes >= before.bytes + 100_000
