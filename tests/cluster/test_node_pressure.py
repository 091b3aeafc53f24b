"""A node that runs short of memory, disk, inodes or processes protects itself: clusters of their own, whose one node has little."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minikube_raw.kubelet.node import most_pids
from minikube_raw.linux import mounts
from tests.clusters import Cluster, cluster_of_one, need_root_and_loopback

from .manifests import pod
from .waiting import until

NODE = "short-1"
ROOM = ("--node-memory", "1Gi", "--system-reserved", "memory=128Mi", "--eviction-hard", "memory.available<600Mi")
DISK_MIB, INODES = 256, 30_000
DISK = (
    "--eviction-hard",
    "nodefs.available<100Mi,nodefs.inodesFree<5000",
    "--eviction-pressure-transition-period",
    "0s",
    "--minimum-image-ttl-duration",
    "0s",
)
SHELVES = "volumeMounts: [{name: v, mountPath: /v}]"


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of_one(tmp_path_factory.mktemp("short"), *ROOM) as made:
        yield made


def amounts(requests: str, limits: str = "{}") -> str:
    return f"resources: {{requests: {requests}, limits: {limits}}}"


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Everything of the node, its images too, lies on one small file system."""
    need_root_and_loopback()
    folder = tmp_path_factory.mktemp("small")
    state = folder / "state"
    state.mkdir()
    mounts.tmpfs(str(state), size=f"{DISK_MIB}m", options=f"nr_inodes={INODES}")
    try:
        with cluster_of_one(folder, *DISK) as made:
            yield made
    finally:
        mounts.umount_all(str(state))


def write(mebibytes: int, path: str) -> str:
    return f"dd if=/dev/zero of={path} bs=1M count={mebibytes}"


def ended(cluster: Cluster, name: str) -> Any:
    """The status of a pod once it is Failed."""
    return until(lambda: cluster.get("pod", name)["status"], lambda s: s.get("phase") == "Failed", seconds=90)


def condition(cluster: Cluster, kind: str) -> Any:
    return next(each for each in cluster.get("node", NODE)["status"]["conditions"] if each["type"] == kind)


def node_events(cluster: Cluster) -> set[tuple[str, str]]:
    events = cluster.get("events", "--field-selector", "involvedObject.kind=Node")["items"]
    return {(each["reason"], each["message"]) for each in events}


def with_volume(name: str, script: str = "exec sleep 3600") -> str:
    return pod(name, script, spec="restartPolicy: Never\nvolumes: [{name: v, emptyDir: {}}]", container=SHELVES)


def ready(cluster: Cluster, *manifests: str) -> None:
    cluster.kubectl("apply", "-f", "-", stdin="---\n".join(manifests))
    cluster.kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")


@pytest.mark.slow
def test_short_of_memory_a_node_evicts_who_exceeds_what_it_asked_for_and_takes_no_more(short: Cluster) -> None:
    assert short.get("node", NODE)["status"]["allocatable"]["memory"] == "296Mi"
    frugal = pod("frugal", container="resources: {requests: {memory: 8Mi}, limits: {memory: 32Mi}}")
    memory = "restartPolicy: Never\nvolumes: [{name: v, emptyDir: {medium: Memory}}]"
    fill = "dd if=/dev/zero of=/v/f bs=1M count=500; exec sleep 3600"
    hog = pod("hog", fill, spec=memory, container="volumeMounts: [{name: v, mountPath: /v}]")
    short.kubectl("apply", "-f", "-", stdin=f"{frugal}---\n{hog}")

    status = until(lambda: short.get("pod", "hog")["status"], lambda s: s.get("phase") == "Failed", seconds=60)
    short.kubectl("wait", f"node/{NODE}", "--for=condition=MemoryPressure", "--timeout=50s")
    late = pod("late", spec=f"restartPolicy: Never\nnodeName: {NODE}")
    short.kubectl("apply", "-f", "-", stdin=late)
    refused = until(lambda: short.get("pod", "late")["status"], lambda s: s.get("phase") == "Failed", seconds=60)

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


@pytest.mark.slow
def test_a_static_pod_gets_its_room_from_the_least_important_pod_that_has_enough(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    room = ("--node-cpus", "1", "--system-reserved", "cpu=500m")
    with cluster_of_one(tmp_path_factory.mktemp("full"), *room) as cluster:
        sure, small, large = "{cpu: 250m, memory: 32Mi}", "{cpu: 50m}", "{cpu: 150m}"
        ready(
            cluster,
            pod("sure", container=amounts(sure, sure)),
            pod("small", container=amounts(small)),
            pod("large", container=amounts(large)),
        )
        manifests = cluster.folder / "state/clusters/short/nodes" / NODE / "manifests"
        (manifests / "static.yaml").write_text(pod("static", container=amounts("{cpu: 180m}")))

        gone = ended(cluster, "large")
        cluster.kubectl("wait", f"pod/static-{NODE}", "--for=condition=Ready", "--timeout=60s")

        assert (gone["reason"], gone["message"]) == ("Preempting", "Preempted in order to admit critical pod")
        (target,) = [each for each in gone["conditions"] if each["type"] == "DisruptionTarget"]
        assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
        phases = {each["metadata"]["name"]: each["status"]["phase"] for each in cluster.get("pods")["items"]}
        assert phases == {"sure": "Running", "small": "Running", "large": "Failed", f"static-{NODE}": "Running"}


@pytest.mark.slow
def test_short_of_disk_a_node_gives_up_dead_containers_and_unused_images_and_then_a_pod(small_disk: Cluster) -> None:
    cluster = small_disk
    cluster.cli("image", "build", "httpd")
    ready(cluster, with_volume("modest"), with_volume("greedy"))
    dead = pod("dead", write(70, "/big"), spec="restartPolicy: Never")
    cluster.kubectl("apply", "-f", "-", stdin=dead)
    until(lambda: cluster.get("pod", "dead")["status"], lambda s: s.get("phase") == "Succeeded", seconds=60)

    cluster.kubectl("exec", "greedy", "--", "sh", "-c", write(85, "/v/1"))
    until(lambda: cluster.cli("image", "list").stdout, lambda text: "httpd" not in text, seconds=60)
    until(lambda: condition(cluster, "DiskPressure")["status"], lambda status: status == "False", seconds=60)
    phases = {each["metadata"]["name"]: each["status"]["phase"] for each in cluster.get("pods")["items"]}
    told = node_events(cluster)
    kept = cluster.cli("image", "list").stdout
    cluster.kubectl("exec", "greedy", "--", "sh", "-c", write(85, "/v/2"))
    evicted = ended(cluster, "greedy")

    assert phases == {"modest": "Running", "greedy": "Running", "dead": "Succeeded"}
    assert "busybox" in kept  # containers hold it
    assert ("EvictionThresholdMet", "Attempting to reclaim ephemeral-storage") in told
    assert ("NodeHasDiskPressure", f"Node {NODE} status is now: NodeHasDiskPressure") in told
    assert evicted["reason"] == "Evicted"
    words = "The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi, available: "
    assert evicted["message"].startswith(words)
    assert cluster.get("pod", "modest")["status"]["phase"] == "Running"
    assert cluster.get("pod", "dead")["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"


@pytest.mark.slow
def test_short_of_inodes_a_node_evicts_who_has_most_files(small_disk: Cluster) -> None:
    cluster = small_disk
    cluster.kubectl("delete", "pods", "--all", "--timeout=60s")
    until(lambda: condition(cluster, "DiskPressure")["status"], lambda status: status == "False", seconds=60)
    ready(cluster, with_volume("few"), with_volume("many"))

    cluster.kubectl("exec", "many", "--", "sh", "-c", f"cd /v; seq {INODES} | xargs touch", check=False)
    evicted = ended(cluster, "many")

    assert evicted["message"].startswith("The node was low on resource: inodes. Threshold quantity: 5000, available: ")
    assert cluster.get("pod", "few")["status"]["phase"] == "Running"
    assert ("EvictionThresholdMet", "Attempting to reclaim inodes") in node_events(cluster)


@pytest.mark.slow
def test_short_of_processes_a_node_evicts_who_has_most(tmp_path: Path) -> None:
    room = 1000  # for everything else that comes and goes on this host
    left = most_pids() - int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2]) - room
    few_pids = ("--eviction-hard", f"pid.available<{left}")
    with cluster_of_one(tmp_path, *few_pids, name="crowded", port=6448) as cluster:
        few = pod("few", "exec sleep 3600", spec="restartPolicy: Never")
        fork = f"for i in $(seq {2 * room}); do sleep 3600 & done; exec sleep 3600"
        ready(cluster, few, pod("many", fork, spec="restartPolicy: Never"))

        evicted = ended(cluster, "many")

        words = f"The node was low on resource: pids. Threshold quantity: {left}, available: "
        assert evicted["message"].startswith(words)
        assert cluster.get("pod", "few")["status"]["phase"] == "Running"
        assert ("EvictionThresholdMet", "Attempting to reclaim pids") in node_events(cluster)
