"""Pods with a user namespace of their own (hostUsers: false): all that pods can do otherwise works there too."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_node_streams import port_forward

from minikube_raw.linux import features
from tests.cluster.waiting import until
from tests.clusters import Cluster, newest_kubectl

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not features.idmapped_mounts(), reason="this kernel has no idmapped mounts"),
]
NAMESPACE = "mapped"
SLEEP = "trap 'exit 0' TERM; while true; do sleep 0.1; done"
SERVE = "mkdir /w; echo hello > /w/i; echo from c > /v/disk/c; echo said; exec httpd -f -p 8080 -h /w"

VOLUMES = {
    "config": {"configMap": {"name": "data"}},
    "secret": {"secret": {"secretName": "data", "defaultMode": 0o440}},
    "all": {
        "projected": {
            "sources": [
                {"configMap": {"name": "data"}},
                {"secret": {"name": "data", "items": [{"key": "key", "path": "hidden"}]}},
                {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                {"serviceAccountToken": {"path": "token"}},
            ]
        }
    },
    "disk": {"emptyDir": {}},
    "memory": {"emptyDir": {"medium": "Memory"}},
}


def probe(**action: Any) -> dict[str, Any]:
    return {**action, "periodSeconds": 1, "failureThreshold": 30}


def container(name: str, script: str, **more: Any) -> dict[str, Any]:
    mounts = [{"name": each, "mountPath": f"/v/{each}"} for each in VOLUMES]
    return {"name": name, "image": "busybox", "command": ["sh", "-c", script], "volumeMounts": mounts, **more}


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    volumes = [{"name": each, **source} for each, source in VOLUMES.items()]
    body = {"hostUsers": False, "terminationGracePeriodSeconds": 1, "volumes": volumes, "containers": list(containers)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body | spec}


PROBES = {
    "startupProbe": probe(tcpSocket={"port": 8080}),
    "readinessProbe": probe(httpGet={"path": "/i", "port": 8080}),
    "livenessProbe": probe(exec={"command": ["sh", "-c", "[ $(id -u) = 0 ] && cat /w/i"]}),
}
READS = f"until [ -e /v/disk/c ]; do sleep 0.05; done; echo from d > /v/disk/d; {SLEEP}"
USER = {"runAsUser": 1000, "runAsGroup": 3000}
PODS = [
    pod("p", container("c", SERVE, **PROBES), container("d", READS, securityContext=USER), securityContext={"fsGroup": 2000}),
    pod("ends", container("c", "echo -n bye > /dev/termination-log; echo out; echo err >&2; exit 3"), restartPolicy="Never"),
    pod("sick", container("c", SLEEP, livenessProbe=probe(exec={"command": ["false"]}) | {"failureThreshold": 1})),
    pod("talks", container("c", "read line; echo got $line as $(id -u)", stdin=True, stdinOnce=True), restartPolicy="Never"),
]  # fmt: skip
OBJECTS = [
    {"apiVersion": "v1", "kind": kind, "metadata": {"name": "data"}, "data": {"key": value}}
    for kind, value in (("ConfigMap", "value"), ("Secret", "aGlkZGVu"))
]


@pytest.fixture(scope="module")
def mapped(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with these pods, and two more that are only there, on each of two nodes."""
    nodes = [each["metadata"]["name"] for each in cluster.get("nodes")["items"]][:2]
    there = [pod(f"there-{number}", container("c", SLEEP), nodeName=nodes[number % 2]) for number in range(4)]
    cluster.kubectl("create", "namespace", NAMESPACE)
    items = [*OBJECTS, *PODS, *there]
    cluster.kubectl(
        "-n", NAMESPACE, "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    )
    names = ["pod/p", *(f"pod/there-{number}" for number in range(4))]
    cluster.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "--timeout=50s", *names)
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def sh(cluster: Cluster, name: str, script: str, inside: str = "c") -> str:
    return cluster.kubectl("-n", NAMESPACE, "exec", name, "-c", inside, "--", "sh", "-c", script).stdout


def status(cluster: Cluster, name: str, wanted: Any) -> Any:
    return until(lambda: cluster.get("-n", NAMESPACE, "pod", name)["status"], wanted, seconds=60)


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("config/key", "644 0:2000 value"),
        ("secret/key", "440 0:2000 hidden"),
        ("all/key", "644 0:2000 value"),
        ("all/hidden", "644 0:2000 hidden"),
        ("all/name", "644 0:2000 p"),
    ],
)
def test_files_made_from_objects_are_roots_and_the_groups(mapped: Cluster, path: str, seen: str) -> None:
    assert sh(mapped, "p", f"stat -L -c '%a %u:%g' /v/{path}; cat /v/{path}").replace("\n", " ") == seen
    assert sh(mapped, "p", f"cat /v/{path}", "d") == seen.split(" ")[2]  # by its group


def test_a_token_is_read_by_whoever_is_in_the_group(mapped: Cluster) -> None:
    assert sh(mapped, "p", "cat /v/all/token", "d").count(".") == 2


def test_containers_share_empty_dirs_as_different_users(mapped: Cluster) -> None:
    status(mapped, "p", lambda status: all(each["ready"] for each in status["containerStatuses"]))
    script = "until [ -e /v/disk/d ]; do sleep 0.05; done; cd /v/disk; stat -c '%n %u:%g' c d; cat c d"
    assert sh(mapped, "p", script).splitlines() == ["c 0:2000", "d 1000:2000", "from c", "from d"]
    assert sh(mapped, "p", "echo x > /v/memory/x; stat -c %u:%g /v/memory/x", "d") == "1000:2000\n"


def test_probes_of_every_kind_reach_inside(mapped: Cluster) -> None:
    (c,) = [each for each in status(mapped, "p", bool)["containerStatuses"] if each["name"] == "c"]
    assert (c["started"], c["ready"], c["restartCount"]) == (True, True, 0)
    status(mapped, "sick", lambda status: status["containerStatuses"][0]["restartCount"] >= 1)


def test_an_end_leaves_its_message_its_code_and_its_log(mapped: Cluster) -> None:
    ended = status(mapped, "ends", lambda status: status["phase"] == "Failed")["containerStatuses"][0]["state"]
    assert (ended["terminated"]["exitCode"], ended["terminated"]["message"]) == (3, "bye")
    assert sorted(mapped.kubectl("-n", NAMESPACE, "logs", "ends").stdout.splitlines()) == ["err", "out"]


def test_attached_input_arrives(mapped: Cluster) -> None:
    status(mapped, "talks", lambda status: status["phase"] == "Running")
    command = [newest_kubectl(), "-n", NAMESPACE, "attach", "-i", "talks"]
    subprocess.run(command, input=b"word\n", env=mapped.environment, capture_output=True, timeout=30, check=True)
    status(mapped, "talks", lambda status: status["phase"] == "Succeeded")
    assert mapped.kubectl("-n", NAMESPACE, "logs", "talks").stdout == "got word as 0\n"


def test_files_are_copied_in_and_out_and_executed_programs_are_root_inside(mapped: Cluster, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("carried")
    mapped.kubectl("-n", NAMESPACE, "cp", str(tmp_path / "there"), "p:/tmp/there", "-c", "c")
    assert sh(mapped, "p", "cat /tmp/there; touch /made; stat -c ' %u' /made; id -u") == "carried 0\n0\n"
    mapped.kubectl("-n", NAMESPACE, "cp", "p:/v/disk/c", str(tmp_path / "back"), "-c", "c")
    assert (tmp_path / "back").read_text() == "from c\n"


def test_ports_are_forwarded(mapped: Cluster) -> None:
    with (
        port_forward(mapped, None, NAMESPACE, ":8080") as (port,),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/i", timeout=20) as answer,
    ):
        assert answer.read() == b"hello\n"


def test_ranges_of_ids_do_not_overlap_within_and_between_nodes(mapped: Cluster) -> None:
    ranges = []
    for name in ("p", *(f"there-{number}" for number in range(4))):
        for kind in ("uid_map", "gid_map"):
            inside, first, count = (int(word) for word in sh(mapped, name, f"cat /proc/self/{kind}").split())
            assert (inside, count) == (0, 65536)
            ranges.append((name, first))
    firsts = sorted({first for _, first in ranges})
    assert len(firsts) == 5  # uids and gids of a pod are alike
    assert all(later - earlier >= 65536 for earlier, later in pairwise(firsts))
