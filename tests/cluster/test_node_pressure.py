"""A node that runs short of memory protects itself: a cluster of its own, whose one node has little."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clusters import Cluster, need_root_and_loopback

from .manifests import pod
from .waiting import until

NODE = "short-1"
ROOM = ("--node-memory", "1Gi", "--system-reserved", "memory=128Mi", "--eviction-hard", "memory.available<600Mi")


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    need_root_and_loopback()
    cluster = Cluster(tmp_path_factory.mktemp("short"))
    try:
        cluster.cli("up", "--name", "short", "--api-port", "6447", *ROOM)
        yield cluster
    finally:
        cluster.cli("down", "--name", "short")


@pytest.mark.slow
def test_short_of_memory_a_node_evicts_who_exceeds_what_it_asked_for_and_takes_no_more(short: Cluster) -> None:
    assert short.get("node", NODE)["status"]["allocatable"]["memory"] == "296Mi"
    frugal = pod("frugal", container="resources: {requests: {memory: 8Mi}, limits: {memory: 32Mi}}")
    memory = "restartPolicy: Never\nvolumes: [{name: v, emptyDir: {medium: Memory}}]"
    fill = "dd if=/dev/zero of=/v/f bs=1M count=500; exec sleep 3600"
    hog = pod("hog", fill, spec=memory, container="volumeMounts: [{name: v, mountPath: /v}]")
    short.kubectl("apply", "-f", "-", stdin=f"{frugal}---\n{hog}")

    status = until(lambda: short.get("pod", "hog")["status"], lambda s: s.get("phase") == "Failed", seconds=60)
    short.kubectl("wait", f"node/{NODE}", "--for=condition=MemoryPressure", "--timeout=20s")
    late = pod("late", spec=f"restartPolicy: Never\nnodeName: {NODE}")
    short.kubectl("apply", "-f", "-", stdin=late)
    refused = until(lambda: short.get("pod", "late")["status"], lambda s: s.get("phase") == "Failed", seconds=20)

    assert status["reason"] == "Evicted"
    assert status["message"].startswith("The node was low on resource: memory. Threshold quantity: 600Mi, available: ")
    conditions = {each["type"]: each for each in status["conditions"]}
    assert conditions["DisruptionTarget"]["reason"] == "TerminationByKubelet"
    assert (refused["reason"], refused["message"]) == (
        "Evicted",
        "Pod was rejected: The node had condition: [MemoryPressure]. ",
    )
    assert short.get("pod", "frugal")["status"]["phase"] == "Running"
    taints = short.get("node", NODE)["spec"]["taints"]
    assert [(taint["key"], taint["effect"]) for taint in taints] == [
        ("node.kubernetes.io/memory-pressure", "NoSchedule")
    ]
