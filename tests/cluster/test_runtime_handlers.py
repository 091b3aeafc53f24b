"""A RuntimeClass whose handler is an OCI runtime of the host, as `up` was told: by kubectl, beside pods that are ours."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import Cluster, cluster_of_one

from .manifests import pod
from .waiting import until

CRUN = shutil.which("crun") or ""
pytestmark = pytest.mark.skipif(not CRUN, reason="crun is not installed: scripts/setup test")
CLASS = """
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: other}
handler: crun
overhead: {podFixed: {cpu: 10m, memory: 8Mi}}
"""
PROBED = """readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}
resources: {limits: {cpu: 200m, memory: 24Mi}}
volumeMounts: [{name: config, mountPath: /config}, {name: scratch, mountPath: /scratch}]"""
VOLUMES = "volumes: [{name: config, configMap: {name: said}}, {name: scratch, emptyDir: {medium: Memory}}]"


@pytest.fixture
def crun(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of_one(tmp_path, "--runtime-handler", f"crun={CRUN}", name="crun", port=6451) as made:
        made.kubectl("apply", "-f", "-", stdin=CLASS)
        made.kubectl("create", "configmap", "said", "--from-literal=word=hello")
        yield made


def status(cluster: Cluster, name: str) -> dict[str, object]:
    """The status of a pod's container, empty until its kubelet has said one."""
    found: list[dict[str, object]] = cluster.get("pod", name)["status"].get("containerStatuses", [{}])
    return found[0]


def test_a_pod_of_another_runtime_is_a_pod_like_any_other(crun: Cluster) -> None:
    (node,) = crun.get("nodes")["items"]
    assert {"recursiveReadOnlyMounts", "userNamespaces"} == set(node["status"]["runtimeHandlers"][-1]["features"])
    assert [each.get("name", "") for each in node["status"]["runtimeHandlers"]] == ["", "minikube-raw", "runc", "crun"]

    script = "echo begun; cat /config/word; touch /tmp/ready; trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done"
    spec = f"runtimeClassName: other\n{VOLUMES}"
    crun.kubectl("apply", "-f", "-", stdin=pod("p", script, spec=spec, container=PROBED))
    crun.kubectl("apply", "-f", "-", stdin=pod("ours"))
    crun.kubectl("wait", "pod/p", "pod/ours", "--for=condition=Ready", "--timeout=50s")
    # a line without an end is held back for its rest at first
    until(lambda: crun.kubectl("logs", "p").stdout, "begun\nhello".__eq__, seconds=30)
    assert crun.get("pod", "p")["spec"]["overhead"] == {"cpu": "10m", "memory": "8Mi"}
    assert crun.kubectl("exec", "p", "--", "hostname").stdout == "p\n"
    failed = crun.kubectl("exec", "p", "--", "sh", "-c", "exit 7", check=False)
    assert failed.returncode == 7
    address = crun.get("pod", "p")["status"]["podIP"]
    assert address in crun.kubectl("exec", "p", "--", "ip", "addr").stdout
    assert crun.kubectl("exec", "ours", "--", "ping", "-c1", "-w5", address).returncode == 0

    killed = crun.pid("keeper")
    for pid in (killed, crun.pid("kubelet"), crun.pid("launcher")):
        os.kill(pid, signal.SIGKILL)
    until(lambda: crun.pids("kubelet"), bool, seconds=60)
    until(lambda: crun.kubectl("exec", "p", "--", "echo", "alive", check=False).stdout, "alive\n".__eq__, seconds=60)
    assert status(crun, "p")["restartCount"] == 0

    crun.kubectl("delete", "pod", "p", "--timeout=50s")
    assert crun.kubectl("get", "pods", "-o", "name").stdout == "pod/ours\n"


def test_its_container_is_restarted_and_one_out_of_memory_says_so(crun: Cluster) -> None:
    spec = "runtimeClassName: other"
    crun.kubectl("apply", "-f", "-", stdin=pod("again", "echo once; exit 3", spec=spec))
    crun.kubectl(
        "apply",
        "-f",
        "-",
        stdin=pod(
            "greedy",
            "exec tail /dev/zero",
            spec=f"restartPolicy: Never\n{spec}",
            container="resources: {limits: {memory: 24Mi}}",
        ),
    )
    until(lambda: int(str(status(crun, "again").get("restartCount", 0))), lambda count: count >= 1, seconds=60)
    ended = crun.get("pod", "again")["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")
    crun.kubectl("wait", "pod/greedy", "--for=jsonpath={.status.phase}=Failed", "--timeout=50s")
    ended = crun.get("pod", "greedy")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
    crun.kubectl("apply", "-f", "-", stdin=pod("users", spec=f"hostUsers: false\n{spec}"))
    refused = until(
        lambda: crun.kubectl("get", "events", "--field-selector=involvedObject.name=users").stdout,
        lambda text: "FailedCreatePodSandBox" in text,
        seconds=60,
    )
    assert 'RuntimeClass handler "crun" does not support user namespaces' in refused
