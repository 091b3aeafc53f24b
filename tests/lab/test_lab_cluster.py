"""A cluster of one node where cgroup v2 is all there is: what its node shows, how it protects itself, other OCI runtimes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.machine import KUBECTL, REPOSITORY, Machine

NODE = "minikube-raw-1"
OPTIONS = "--node-memory 420Mi --eviction-hard 'memory.available<160Mi' --eviction-pressure-transition-period 0s"
HANDLERS = ("runc", "crun")
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

OTHER = """
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {{name: class-{handler}}}
handler: {handler}
overhead: {{podFixed: {{memory: 8Mi}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: by-{handler}}}
spec:
  runtimeClassName: class-{handler}
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "echo begun; touch /ready; exec sleep 3600"]
    readinessProbe: {{exec: {{command: [test, -e, /ready]}}, timeoutSeconds: 20}}
    resources: {{limits: {{memory: 24Mi}}}}
"""


def kubectl(lab: Machine, words: str, *, stdin: str | None = None, timeout: float = 120) -> str:
    return lab.run(f"{REPOSITORY}/{KUBECTL} {words}", stdin=stdin, timeout=timeout)


def get(lab: Machine, words: str) -> Any:
    return json.loads(kubectl(lab, f"get {words} -o json"))


@pytest.fixture(scope="module")
def cluster(lab: Machine) -> Iterator[Machine]:
    """A machine with a cluster whose one node has little memory, beside some huge pages."""
    lab.run("sysctl -q vm.compact_memory=1 vm.nr_hugepages=4")
    handlers = " ".join(f"--runtime-handler {name}=/usr/bin/{name}" for name in HANDLERS)
    lab.product(f"up --nodes 1 --timeout 240 {OPTIONS} {handlers}", timeout=400)
    yield lab
    lab.product("down")
    lab.run("sysctl -q vm.nr_hugepages=0")


def test_a_node_shows_the_huge_pages_that_its_kernel_keeps(cluster: Machine) -> None:
    status = get(cluster, f"node {NODE}")["status"]
    assert status["capacity"]["hugepages-2Mi"] == status["allocatable"]["hugepages-2Mi"] == "8Mi"
    assert status["capacity"]["memory"] == "420Mi"


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_pod_of_another_oci_runtime_is_ready_logged_executed_in_and_limited(cluster: Machine, handler: str) -> None:
    name = f"by-{handler}"
    kubectl(cluster, "apply -f -", stdin=OTHER.format(handler=handler))
    kubectl(cluster, f"wait pod/{name} --for=condition=Ready --timeout=200s", timeout=220)

    assert kubectl(cluster, f"logs {name}") == "begun\n"
    assert kubectl(cluster, f"exec {name} -- hostname") == f"{name}\n"
    pod_group = cluster.run(f"find /sys/fs/cgroup -name pod{get(cluster, f'pod {name}')['metadata']['uid']}").strip()
    limits = {
        pod_group: 32,  # with the class's overhead
        cluster.run(f"find {pod_group} -mindepth 1 -maxdepth 1 -type d").strip(): 24,
    }
    for group, mebibytes in limits.items():
        assert cluster.run(f"cat {group}/memory.max") == f"{mebibytes << 20}\n"
    kubectl(cluster, f"delete pod {name} --timeout=100s", timeout=120)


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
