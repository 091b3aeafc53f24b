"""A cluster of one node where cgroup v2 is all there is: what its node shows and how it protects itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.machine import KUBECTL, REPOSITORY, Machine

NODE = "minikube-raw-1"
OPTIONS = "--node-memory 420Mi --eviction-hard 'memory.available<160Mi' --eviction-pressure-transition-period 0s"
HOG = """
apiVersion: v1
kind: Pod
metadata: {name: hog}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {medium: Memory}}]
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "dd if=/dev/zero of=/v/f bs=1M count=300; exec sleep 3600"]
    volumeMounts: [{name: v, mountPath: /v}]
---
apiVersion: v1
kind: Pod
metadata: {name: frugal}
spec:
  containers:
  - name: c
    image: busybox
    command: [sleep, "3600"]
    resources: {requests: {memory: 8Mi}, limits: {memory: 32Mi}}
"""


def kubectl(lab: Machine, words: str, *, stdin: str | None = None, timeout: float = 120) -> str:
    return lab.run(f"{REPOSITORY}/{KUBECTL} {words}", stdin=stdin, timeout=timeout)


def get(lab: Machine, words: str) -> Any:
    return json.loads(kubectl(lab, f"get {words} -o json"))


@pytest.fixture(scope="module")
def cluster(lab: Machine) -> Iterator[Machine]:
    """A machine with a cluster whose one node has little memory, beside some huge pages."""
    lab.run("sysctl -q vm.compact_memory=1 vm.nr_hugepages=4")
    lab.product(f"up --nodes 1 --timeout 240 {OPTIONS}", timeout=400)
    yield lab
    lab.product("down")
    lab.run("sysctl -q vm.nr_hugepages=0")


def test_a_node_shows_the_huge_pages_that_its_kernel_keeps(cluster: Machine) -> None:
    status = get(cluster, f"node {NODE}")["status"]
    assert status["capacity"]["hugepages-2Mi"] == status["allocatable"]["hugepages-2Mi"] == "8Mi"
    assert status["capacity"]["memory"] == "420Mi"


def test_a_node_short_of_memory_has_the_kernel_tell_when_tasks_stall_and_ends_who_has_most(cluster: Machine) -> None:
    (agent,) = cluster.run(f"pgrep -f '^kubelet {NODE}'").split()
    watched = cluster.run(f"find -L /proc/{agent}/fd -samefile /sys/fs/cgroup/minikube-raw/*/{NODE}/memory.pressure")
    assert watched.count("\n") == 1

    kubectl(cluster, "apply -f -", stdin=HOG)
    kubectl(cluster, "wait pod/hog --for=condition=DisruptionTarget --timeout=240s", timeout=260)
    status = get(cluster, "pod hog")["status"]

    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert "low on resource: memory. Threshold quantity: 160Mi, available: " in status["message"]
    assert get(cluster, "pod frugal")["status"]["phase"] == "Running"
