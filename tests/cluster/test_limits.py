"""cgroup limits hold against those who try: memory, processes, CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tests.clusters import Cluster

from .manifests import pod
from .waiting import until

Apply = Callable[..., str]


def test_a_memory_hog_ends_oom_killed_with_137(cluster: Cluster, namespace: str, apply: Apply) -> None:
    hog = "exec tail /dev/zero"  # keeps the last line, which never ends
    apply(pod("hog", hog, spec="restartPolicy: Never", container="resources: {limits: {memory: 32Mi}}"))
    status = until(
        lambda: cluster.get("-n", namespace, "pod", "hog")["status"], lambda s: s.get("phase") == "Failed", seconds=60
    )
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_fork_bomb_stays_inside_its_pids_limit(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(pod("bomb", "i=0; while [ $i -lt 20000 ]; do sleep 3600 & i=$((i+1)); done; exec sleep 3600"))
    cluster.kubectl("-n", namespace, "wait", "pod/bomb", "--for=condition=Ready", "--timeout=50s")
    node = cluster.get("-n", namespace, "pod", "bomb")["spec"]["nodeName"]
    until(lambda: cluster.kubectl("-n", namespace, "logs", "bomb").stdout, lambda text: "fork" in text, seconds=60)
    neighbour = pod("neighbour", node=node)
    apply(neighbour)
    cluster.kubectl("-n", namespace, "wait", "pod/neighbour", "--for=condition=Ready", "--timeout=50s")
    cluster.kubectl("-n", namespace, "delete", "pod/bomb", "--timeout=50s")


def test_a_cpu_limit_holds_within_a_tenth(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(pod("spin", "while :; do :; done", container="resources: {limits: {cpu: 200m}}"))
    cluster.kubectl("-n", namespace, "wait", "pod/spin", "--for=condition=Ready", "--timeout=50s")
    used, began = cpu_seconds(cluster, namespace, "spin"), time.monotonic()
    time.sleep(5)  # what is measured is a rate: it needs a stretch of time
    share = (cpu_seconds(cluster, namespace, "spin") - used) / (time.monotonic() - began)
    assert 0.18 <= share <= 0.22


def test_of_a_node_only_its_kubelets_loop_goes_first(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(pod("kept"))
    cluster.kubectl("-n", namespace, "wait", "pod/kept", "--for=condition=Ready", "--timeout=30s")
    node = cluster.get("-n", namespace, "pod", "kept")["spec"]["nodeName"]
    kubelet = cluster.pid("kubelet", node)
    threads = {nice(int(thread)) for thread in os.listdir(f"/proc/{kubelet}/task") if int(thread) != kubelet}
    others = {nice(pid) for role in ("machine", "launcher", "keeper") for pid in cluster.pids(role, node)}
    usual = nice(os.getpid())
    assert (nice(kubelet), others) == (-10, {usual})
    assert usual in threads  # those that prepare pods; uvloop's own, which resolve names, are the loop's children
    told = cluster.kubectl(
        "-n", namespace, "exec", "kept", "--", "cut", "-d ", "-f19", "/proc/1/stat", "/proc/self/stat"
    )
    assert told.stdout.split() == [str(usual)] * 2


def nice(pid: int) -> int:
    """The nice value of a process or thread, as the host sees them."""
    return os.getpriority(os.PRIO_PROCESS, pid)


def cpu_seconds(cluster: Cluster, namespace: str, name: str) -> float:
    """CPU time of the container's first process and of all children it has reaped."""
    ticks = cluster.kubectl("-n", namespace, "exec", name, "--", "cut", "-d ", "-f14,15", "/proc/1/stat").stdout.split()
    return sum(map(int, ticks)) / 100
