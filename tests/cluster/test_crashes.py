"""What survives when something is killed: containers, output, acknowledged objects; and what comes back."""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import Cluster

from .manifests import WEB, pod
from .waiting import until

Apply = Callable[..., str]
COUNTER = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"


def container(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """The first container's status."""
    statuses = cluster.get("-n", namespace, "pod", name)["status"].get("containerStatuses", [{}])
    return dict(statuses[0])


def node_of(cluster: Cluster, namespace: str, name: str) -> str:
    """Where the pod runs."""
    return str(cluster.get("-n", namespace, "pod", name)["spec"]["nodeName"])


def ready(cluster: Cluster, namespace: str, name: str) -> None:
    """Wait until the pod is Ready."""
    cluster.kubectl("-n", namespace, "wait", f"pod/{name}", "--for=condition=Ready", "--timeout=50s")


def test_a_killed_process_is_restarted_and_counted(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(pod("phoenix", "sleep 3600 & wait $!"))
    ready(cluster, namespace, "phoenix")
    cluster.kubectl("-n", namespace, "exec", "phoenix", "--", "sh", "-c", "kill -TERM $(pidof sleep)")
    status = until(
        lambda: container(cluster, namespace, "phoenix"),
        lambda found: found.get("restartCount") == 1 and "running" in found["state"],
        seconds=60,
    )
    assert status["lastState"]["terminated"]["exitCode"] == 143


@pytest.mark.parametrize("role", ["kubelet", "launcher", "keeper"])
def test_killing_one_of_our_processes_leaves_containers_and_output_alone(
    cluster: Cluster, namespace: str, apply: Apply, role: str
) -> None:
    apply(pod("steady", COUNTER))
    ready(cluster, namespace, "steady")
    node = node_of(cluster, namespace, "steady")
    before = container(cluster, namespace, "steady")
    victims = [p["pid"] for p in cluster.status()["processes"] if p["role"] == role and p["node"] == node]
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    cluster.cli("start")
    until(
        lambda: cluster.kubectl("-n", namespace, "logs", "steady", "--tail=1", check=False).stdout.split() or ["0"],
        lambda last: int(last[-1]) > 60,
        seconds=60,
    )
    lines = cluster.kubectl("-n", namespace, "logs", "steady").stdout.split()
    assert lines == [str(n) for n in range(len(lines))], "a line was lost or doubled"
    after = container(cluster, namespace, "steady")
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    assert cluster.kubectl("-n", namespace, "exec", "steady", "--", "echo", "alive").stdout == "alive\n"


def test_a_killed_master_has_every_acknowledged_object_and_disturbs_no_container(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    apply(pod("calm"))
    ready(cluster, namespace, "calm")
    before = container(cluster, namespace, "calm")
    for n in range(20):
        cluster.kubectl("-n", namespace, "create", "configmap", f"written-{n}")
    os.kill(cluster.pid("master"), signal.SIGKILL)
    refused = cluster.kubectl("get", "nodes", check=False)
    assert refused.returncode != 0
    cluster.cli("start")
    names = {item["metadata"]["name"] for item in cluster.get("-n", namespace, "configmaps")["items"]}
    assert {f"written-{n}" for n in range(20)} <= names
    apply(pod("after"))
    ready(cluster, namespace, "after")
    assert container(cluster, namespace, "calm")["containerID"] == before["containerID"]


@pytest.mark.timeout(180)
def test_a_power_cut_moves_a_nodes_pods_elsewhere_and_the_node_can_return(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    apply(WEB)
    cluster.kubectl("-n", namespace, "rollout", "status", "deploy/web", "--timeout=50s")
    lost = cluster.get("-n", namespace, "pods")["items"][0]["spec"]["nodeName"]
    os.kill(cluster.pid("machine", lost), signal.SIGKILL)
    until(
        lambda: [
            p["spec"]["nodeName"]
            for p in cluster.get("-n", namespace, "pods")["items"]
            if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
            and "deletionTimestamp" not in p["metadata"]
        ],
        lambda nodes: len(nodes) == 3 and lost not in nodes,
        seconds=60,
        pause=0.5,
    )
    cluster.cli("start")
    conditions = cluster.get("node", lost)["status"]["conditions"]
    assert next(c["status"] for c in conditions if c["type"] == "Ready") == "True"
    until(lambda: cluster.get("node", lost)["spec"].get("taints", []), lambda taints: not taints, seconds=60)


def test_start_makes_a_damaged_configuration_of_a_kubelet_whole(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(pod("steady"))
    ready(cluster, namespace, "steady")
    node = node_of(cluster, namespace, "steady")
    before = container(cluster, namespace, "steady")
    (damaged,) = cluster.folder.glob(f"state/clusters/*/nodes/{node}/kubelet.json")
    damaged.write_text('{"half": ')
    os.kill(cluster.pid("kubelet", node), signal.SIGKILL)
    cluster.cli("start")
    until(
        lambda: cluster.kubectl("-n", namespace, "exec", "steady", "--", "true", check=False).returncode,
        lambda code: code == 0,
        seconds=60,
    )
    assert container(cluster, namespace, "steady") == before


def static_pod(namespace: str, name: str, seconds: str) -> str:
    container = {"name": "c", "image": "busybox", "command": ["sleep", seconds]}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    meta = {"name": name, "namespace": namespace}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


def mirrored(cluster: Cluster, namespace: str, name: str) -> None:
    """Wait until the API server shows a static pod, and that it is Ready."""

    def names() -> list[str]:
        return [each["metadata"]["name"] for each in cluster.get("-n", namespace, "pods")["items"]]

    until(names, lambda found: name in found, seconds=60)
    ready(cluster, namespace, name)


def sleepers(seconds: str) -> list[str]:
    """Pids of the processes that sleep so long."""
    argv = f"sleep\0{seconds}\0".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found += [directory.name] if (directory / "cmdline").read_bytes() == argv else []
    return found


def test_a_kubelet_that_starts_again_without_its_master_goes_on_with_static_pods_and_takes_new_ones(
    cluster: Cluster, namespace: str
) -> None:
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    (manifests,) = (cluster.folder / "state").rglob(f"{node}/**/manifests")
    old, new = manifests / "old.json", manifests / "new.json"
    seconds = str(secrets.randbelow(10**6) + 10**6), str(secrets.randbelow(10**6) + 10**7)
    old.write_text(static_pod(namespace, "old", seconds[0]))
    try:
        mirrored(cluster, namespace, f"old-{node}")
        (before,) = sleepers(seconds[0])
        os.kill(cluster.pid("master"), signal.SIGKILL)
        killed = cluster.pid("kubelet", node)
        os.kill(killed, signal.SIGKILL)
        until(lambda: cluster.pids("kubelet", node), lambda pids: pids and killed not in pids, seconds=60)

        new.write_text(static_pod(namespace, "new", seconds[1]))

        until(lambda: sleepers(seconds[1]), lambda pids: len(pids) == 1, seconds=60)
        assert sleepers(seconds[0]) == [before]
        cluster.cli("start")
        for name in ("old", "new"):
            mirrored(cluster, namespace, f"{name}-{node}")
        address = cluster.get("-n", namespace, "pod", f"new-{node}")["status"]["podIP"]
        assert address.startswith("10.244.")
        assert sleepers(seconds[0]) == [before]
    finally:
        for file in (old, new):
            file.unlink(missing_ok=True)
    until(lambda: cluster.get("-n", namespace, "pods")["items"], lambda items: items == [], seconds=60)
