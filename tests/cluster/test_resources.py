"""What a node gives to pods, shows of them and refuses, through a real kubectl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.clusters import KUBECTLS, Cluster

from .manifests import pod
from .waiting import until

Apply = Callable[..., str]
HARD = "resources: {limits: {cpu: 100m, memory: 32Mi}}"
NODE = "minikube-raw-1"


def status_of(cluster: Cluster, namespace: str, name: str) -> Any:
    return cluster.get("-n", namespace, "pod", name)["status"]


def ended(cluster: Cluster, namespace: str, name: str) -> tuple[str, str]:
    """(reason, message) of a pod that has failed as a whole."""
    found = until(lambda: status_of(cluster, namespace, name), lambda s: s.get("phase") == "Failed", seconds=60)
    return found["reason"], found["message"]


@pytest.mark.parametrize("binary", KUBECTLS)
def test_kubectl_top_tells_what_nodes_and_pods_use(
    cluster: Cluster, namespace: str, apply: Apply, binary: str | None
) -> None:
    apply(pod("busy", "while :; do :; done", container=HARD))
    cluster.kubectl("-n", namespace, "wait", "pod/busy", "--for=condition=Ready", "--timeout=50s")
    nodes = {node["metadata"]["name"] for node in cluster.get("nodes")["items"]}

    def top(*what: str) -> list[str]:
        """Its lines; none while what it asks for is too young for a rate."""
        told = cluster.kubectl("-n", namespace, "top", *what, "--no-headers", binary=binary, check=False)
        return told.stdout.splitlines()

    until(lambda: top("nodes"), lambda lines: {line.split()[0] for line in lines} == nodes, seconds=60)
    (line,) = until(lambda: top("pods"), bool, seconds=60)
    name, cores, memory = line.split()
    assert name == "busy"
    assert 0 < int(cores.removesuffix("m")) <= 130
    assert memory.endswith("Mi")


def test_a_kubelets_pages_of_figures_know_the_pod(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(pod("seen", node=NODE, container=HARD))
    cluster.kubectl("-n", namespace, "wait", "pod/seen", "--for=condition=Ready", "--timeout=50s")
    raw = f"/api/v1/nodes/{NODE}/proxy/"
    resource = cluster.kubectl("get", "--raw", raw + "metrics/resource").stdout
    assert f'container_memory_working_set_bytes{{container="main",namespace="{namespace}",pod="seen"}}' in resource
    cadvisor = cluster.kubectl("get", "--raw", raw + "metrics/cadvisor").stdout
    assert f'namespace="{namespace}",pod="seen"' in cadvisor
    received = [line for line in cadvisor.splitlines() if line.startswith("container_network_receive_packets_total{")]
    assert any(f'interface="eth0",name="",namespace="{namespace}",pod="seen"' in line for line in received)
    assert "container_fs_usage_bytes{" in cadvisor
    assert "# TYPE prober_probe_total counter" in cluster.kubectl("get", "--raw", raw + "metrics/probes").stdout
    assert "kubelet_running_pods" in cluster.kubectl("get", "--raw", raw + "metrics").stdout


def test_the_limits_are_seen_from_inside(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(pod("inside", container=HARD))
    cluster.kubectl("-n", namespace, "wait", "pod/inside", "--for=condition=Ready", "--timeout=50s")
    files = "cat /sys/fs/cgroup/memory.max || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    told = cluster.kubectl("-n", namespace, "exec", "inside", "--", "sh", "-c", files).stdout
    assert told.strip() == str(32 << 20)


def test_a_pod_bound_to_a_node_without_room_fails_in_the_kubelets_words(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    there = f"nodeName: {NODE}"
    taken = "ports: [{containerPort: 80, hostPort: 18999}]"
    apply(
        "---\n".join(
            [
                pod("huge", spec=there, container="resources: {requests: {memory: 1Ti}}"),
                pod("elsewhere", spec=f"{there}\nnodeSelector: {{no: such}}"),
                pod("first", spec=there, container=taken),
            ]
        )
    )
    cluster.kubectl("-n", namespace, "wait", "pod/first", "--for=condition=Ready", "--timeout=50s")
    apply(pod("second", spec=there, container=taken))
    reason, message = ended(cluster, namespace, "huge")
    assert reason == "OutOfmemory"
    assert message.startswith(
        "Pod was rejected: Node didn't have enough resource: memory, requested: 1099511627776, used: "
    )
    assert ended(cluster, namespace, "elsewhere") == (
        "NodeAffinity",
        "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
    )
    assert ended(cluster, namespace, "second") == (
        "NodePorts",
        "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
    )


@pytest.mark.slow
def test_pods_beyond_their_own_disk_limits_are_evicted(cluster: Cluster, namespace: str, apply: Apply) -> None:
    volume = "restartPolicy: Never\nvolumes: [{name: v, emptyDir: {sizeLimit: 5Mi}}]"
    mounted = "volumeMounts: [{name: v, mountPath: /v}]"
    fill = "dd if=/dev/zero of={}/f bs=1M count=20; exec sleep 3600"
    apply(
        pod("volume", fill.format("/v"), spec=volume, container=mounted)
        + "---\n"
        + pod(
            "layer",
            fill.format(""),
            spec="restartPolicy: Never",
            container="resources: {limits: {ephemeral-storage: 5Mi}}",
        )
    )
    assert ended(cluster, namespace, "volume") == ("Evicted", 'Usage of EmptyDir volume "v" exceeds the limit "5Mi". ')
    assert ended(cluster, namespace, "layer") == (
        "Evicted",
        "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. ",
    )
    found = status_of(cluster, namespace, "layer")
    assert "DisruptionTarget" not in {each["type"] for each in found["conditions"]}
    assert found["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
