"""Pods as Kubernetes' conformance suite asks for them (sig-node: Pods, Ephemeral Containers), resized and static ones too."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.waiting import until
from tests.clusters import Cluster

pytestmark = pytest.mark.root
Apply = Callable[..., str]
IMAGE = "busybox:latest"
READY = ("--for=condition=Ready", "--timeout=50s")
SLEEPER = """
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: sleeper}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; while true; do sleep 0.1; done"]
    resources: %s
"""


def sleeper(name: str, **resources: Any) -> str:
    return SLEEPER % (name, json.dumps(resources))


def test_the_class_of_a_pod_that_may_have_what_it_asks_for_is_guaranteed(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    amounts = {"cpu": "10m", "memory": "16Mi"}
    apply(sleeper("p", requests=amounts, limits=amounts))

    assert cluster.get("-n", namespace, "pod", "p")["status"]["qosClass"] == "Guaranteed"


def test_a_pod_is_submitted_patched_updated_and_removed(cluster: Cluster, namespace: str, apply: Apply) -> None:
    def kubectl(*words: str) -> str:
        return cluster.kubectl("-n", namespace, *words).stdout

    apply(sleeper("p"))
    kubectl("wait", "pod/p", *READY)
    pod = cluster.get("-n", namespace, "pod", "p")
    nodes = {each["metadata"]["name"]: each["status"]["addresses"] for each in cluster.get("nodes")["items"]}
    addresses = [each["address"] for each in nodes[pod["spec"]["nodeName"]]]

    assert pod["status"]["hostIP"] in addresses
    assert pod["status"]["hostIPs"] == [{"ip": pod["status"]["hostIP"]}]
    assert kubectl("get", "pods", "-l", "app=sleeper", "-o", "name") == "pod/p\n"
    kubectl("label", "pod", "p", "time=changed")
    assert kubectl("get", "pods", "-l", "time=changed", "-o", "name") == "pod/p\n"
    condition = {"type": "example.com/seen", "status": "True"}
    kubectl("patch", "pod", "p", "--subresource=status", "-p", json.dumps({"status": {"conditions": [condition]}}))
    until(
        lambda: {each["type"] for each in cluster.get("-n", namespace, "pod", "p")["status"]["conditions"]},
        lambda types: {"example.com/seen", "Ready"} <= types,
        seconds=60,
    )
    kubectl("delete", "pod", "p", "--timeout=50s")
    assert cluster.get("-n", namespace, "pods")["items"] == []


def test_run_through_the_lifecycle_of_pods_and_podstatus(cluster: Cluster, namespace: str, apply: Apply) -> None:
    """What a watcher is told of a pod that is made, patched, has its status replaced and is deleted with its like."""
    path = f"/api/v1/namespaces/{namespace}/pods"

    def raw(verb: str, *words: str, body: Any = None) -> Any:
        files = () if body is None else ("-f", "-")
        return cluster.kubectl(verb, "--raw", *words, *files, stdin=body and json.dumps(body)).stdout

    def status(wanted: Callable[[Any], bool]) -> Any:
        return until(lambda: cluster.get("-n", namespace, "pod", "p")["status"], wanted, seconds=60)

    before = json.loads(raw("get", path))["metadata"]["resourceVersion"]
    apply(sleeper("p"))
    cluster.kubectl("-n", namespace, "wait", "pod/p", *READY)
    changes = {"metadata": {"labels": {"time": "changed"}}, "spec": {"containers": [{"name": "c", "image": IMAGE}]}}
    cluster.kubectl("-n", namespace, "patch", "pod", "p", "-p", json.dumps(changes))
    status(lambda status: status["containerStatuses"][0]["restartCount"] == 1 and _is(status, "Ready"))
    pod = json.loads(raw("get", f"{path}/p/status"))
    del pod["metadata"]["resourceVersion"]  # the kubelet writes it too
    pod["status"]["conditions"].append({"type": "example.com/seen", "status": "True", "message": "replaced"})
    raw("replace", f"{path}/p/status", body=pod)
    status(lambda status: _is(status, "example.com/seen") and _is(status, "Ready"))
    raw("delete", f"{path}?labelSelector=time%3Dchanged")
    until(lambda: cluster.get("-n", namespace, "pods")["items"], lambda items: items == [], seconds=60)

    told = raw("get", f"{path}?watch=1&resourceVersion={before}&timeoutSeconds=1").splitlines()
    events = [json.loads(line) for line in told]
    assert [each["type"] for each in events] == ["ADDED", *["MODIFIED"] * (len(events) - 2), "DELETED"]
    assert [each["object"]["metadata"]["labels"].get("time") for each in (events[0], events[-1])] == [None, "changed"]
    assert "deletionTimestamp" in events[-1]["object"]["metadata"]


def _is(status: dict[str, Any], condition: str) -> bool:
    return any((each["type"], each["status"]) == (condition, "True") for each in status.get("conditions", ()))


def test_a_shorter_deadline_ends_a_running_pod(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(sleeper("p"))
    cluster.kubectl("-n", namespace, "wait", "pod/p", *READY)

    cluster.kubectl("-n", namespace, "patch", "pod", "p", "-p", '{"spec":{"activeDeadlineSeconds":1}}')

    status = until(
        lambda: cluster.get("-n", namespace, "pod", "p")["status"], lambda s: s["phase"] == "Failed", seconds=60
    )
    assert status["reason"] == "DeadlineExceeded"


def test_a_pod_has_variables_for_the_services_that_were_there_before_it(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: fooservice}\nspec: {ports: [{port: 8765, targetPort: 8080}]}"
    )
    apply(service)
    address = cluster.get("-n", namespace, "service", "fooservice")["spec"]["clusterIP"]
    apply(sleeper("p"))
    cluster.kubectl("-n", namespace, "wait", "pod/p", *READY)

    seen = cluster.kubectl("-n", namespace, "exec", "p", "--", "env").stdout.splitlines()

    assert {
        f"FOOSERVICE_SERVICE_HOST={address}",
        "FOOSERVICE_SERVICE_PORT=8765",
        f"FOOSERVICE_PORT=tcp://{address}:8765",
        f"FOOSERVICE_PORT_8765_TCP=tcp://{address}:8765",
        "FOOSERVICE_PORT_8765_TCP_PROTO=tcp",
        "FOOSERVICE_PORT_8765_TCP_PORT=8765",
        f"FOOSERVICE_PORT_8765_TCP_ADDR={address}",
    } <= set(seen)


def test_a_collection_of_pods_is_deleted_at_once(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply("---".join(sleeper(f"p{number}") for number in range(3)))

    path = f"/api/v1/namespaces/{namespace}/pods?labelSelector=app%3Dsleeper"
    cluster.kubectl("delete", "--raw", path)

    until(lambda: cluster.get("-n", namespace, "pods")["items"], lambda items: items == [], seconds=60)


def test_ephemeral_containers_join_a_pod_that_runs(cluster: Cluster, namespace: str, apply: Apply) -> None:
    def kubectl(*words: str, stdin: str | None = None) -> str:
        return cluster.kubectl("-n", namespace, *words, stdin=stdin).stdout

    def statuses(ended: int) -> dict[str, Any]:
        found = until(
            lambda: cluster.get("-n", namespace, "pod", "p")["status"].get("ephemeralContainerStatuses", []),
            lambda found: sum("terminated" in each["state"] for each in found) == ended,
            seconds=60,
        )
        return {each["name"]: each for each in found}

    apply(sleeper("p"))
    kubectl("wait", "pod/p", *READY)
    look = "cat /proc/1/cmdline | tr '\\0' ' '; readlink /proc/1/root; sleep 0.2; exit 4"
    kubectl("debug", "p", "--image=busybox", "--target=c", "--container=first", "--", "sh", "-c", look)
    first = statuses(1)["first"]

    assert (first["state"]["terminated"]["exitCode"], first["restartCount"], first["ready"]) == (4, 0, False)
    assert kubectl("logs", "p", "-c", "first") == "sh -c trap 'exit 0' TERM; while true; do sleep 0.1; done /\n"
    # the API of it: a second one is added with PUT, the first stays as it was
    pod = json.loads(kubectl("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/p/ephemeralcontainers"))
    talker = {"name": "second", "image": "busybox", "stdin": True, "command": ["sh", "-c", "read a; echo got $a"]}
    pod["spec"]["ephemeralContainers"].append(talker)
    path = f"/api/v1/namespaces/{namespace}/pods/p/ephemeralcontainers"
    kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps(pod))
    until(
        lambda: cluster.get("-n", namespace, "pod", "p")["status"].get("ephemeralContainerStatuses", []),
        lambda found: "running" in {each["name"]: each for each in found}.get("second", {"state": {}})["state"],
        seconds=60,
    )
    kubectl("attach", "-i", "p", "-c", "second", stdin="word\n")
    assert statuses(2)["second"]["state"]["terminated"]["exitCode"] == 0
    assert kubectl("logs", "p", "-c", "second") == "got word\n"
    assert "Ephemeral Containers:" in kubectl("describe", "pod", "p")
    assert cluster.get("-n", namespace, "pod", "p")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_node_is_debugged_from_a_pod_that_sees_it(cluster: Cluster, namespace: str) -> None:
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]

    cluster.kubectl("-n", namespace, "debug", f"node/{node}", "--image=busybox", "--", "ls", "/host/etc")

    (pod,) = until(
        lambda: cluster.get("-n", namespace, "pods")["items"],
        lambda items: [each["status"]["phase"] for each in items] == ["Succeeded"],
        seconds=60,
    )
    assert pod["spec"]["hostPID"]
    assert "passwd" in cluster.kubectl("-n", namespace, "logs", pod["metadata"]["name"]).stdout


def test_a_running_pod_is_resized_in_place(cluster: Cluster, namespace: str, apply: Apply) -> None:
    def container() -> dict[str, Any]:
        found: dict[str, Any] = cluster.get("-n", namespace, "pod", "p")["status"]["containerStatuses"][0]
        return found

    def resize(**resources: Any) -> str:
        patch = {"spec": {"containers": [{"name": "c", "resources": resources}]}}
        words = ("patch", "pod", "p", "--subresource=resize", "-p", json.dumps(patch))
        done = cluster.kubectl("-n", namespace, *words, check=False)
        return done.stdout + done.stderr

    apply(sleeper("p", requests={"cpu": "50m", "memory": "16Mi"}, limits={"cpu": "100m", "memory": "32Mi"}))
    cluster.kubectl("-n", namespace, "wait", "pod/p", *READY)

    resize(requests={"cpu": "80m"}, limits={"cpu": "200m", "memory": "48Mi"})

    wanted = {"requests": {"cpu": "80m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "48Mi"}}
    status = until(container, lambda found: found["resources"] == wanted, seconds=60)
    assert (status["restartCount"], status["allocatedResources"]) == (0, {"cpu": "80m", "memory": "16Mi"})
    until(
        lambda: [each["reason"] for each in cluster.get("-n", namespace, "events")["items"]],
        lambda reasons: {"ResizeStarted", "ResizeCompleted"} <= set(reasons),
        seconds=60,
    )
    assert "node didn't have enough allocatable resources: cpu" in resize(requests={"cpu": "1k"}, limits={"cpu": "1k"})
    assert "may not change as a result of resizing" in resize(requests=None, limits=None)


def test_a_running_pod_is_resized_as_a_whole(cluster: Cluster, namespace: str) -> None:
    at_first = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
    wish = yaml.safe_load(sleeper("p"))
    wish["spec"] |= {"resources": at_first}
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(wish))
    cluster.kubectl("-n", namespace, "wait", "pod/p", *READY)
    later = {"requests": {"cpu": "150m", "memory": "32Mi"}, "limits": {"cpu": "300m", "memory": "96Mi"}}
    words = ("patch", "pod", "p", "--subresource=resize", "-p", json.dumps({"spec": {"resources": later}}))

    cluster.kubectl("-n", namespace, *words)

    status = until(
        lambda: cluster.get("-n", namespace, "pod", "p")["status"],
        lambda status: status["resources"] == later and "PodResize" not in str(status["conditions"]),
        seconds=60,
    )
    assert status["allocatedResources"] == later["requests"]
    assert status["containerStatuses"][0]["restartCount"] == 0
    limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    seen = cluster.kubectl("-n", namespace, "exec", "p", "--", "sh", "-c", limit, check=False).stdout
    assert seen.split() == [str(96 << 20)]
    gone = ("patch", "pod", "p", "--subresource=resize", "-p", '{"spec": {"resources": null}}')
    refused = cluster.kubectl("-n", namespace, *gone, check=False).stderr
    assert "pod-level resources cannot be removed" in refused


def manifests(cluster: Cluster, node: str) -> Path:
    """The directory of a node's static pods."""
    (found,) = (cluster.folder / "state").rglob(f"{node}/**/manifests")
    return found


def test_static_pods_follow_their_files_with_and_without_a_master(cluster: Cluster, namespace: str) -> None:
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    file = manifests(cluster, node) / "web.yaml"
    text = sleeper("web").replace("metadata: {", f"metadata: {{namespace: {namespace}, ")
    name = f"web-{node}"

    def shown() -> dict[str, Any]:
        listed = cluster.get("-n", namespace, "pods")["items"]
        found: dict[str, Any] = next((each for each in listed if each["metadata"]["name"] == name), {})
        return found

    def ready(pod: dict[str, Any]) -> bool:
        return bool(pod) and _is(pod["status"], "Ready")

    file.write_text(text)
    try:
        first = until(shown, ready, seconds=60)
        assert first["metadata"]["ownerReferences"][0]["kind"] == "Node"
        cluster.kubectl("-n", namespace, "delete", "pod", name, "--wait=false")
        again = until(shown, lambda pod: ready(pod) and _uid(pod) != _uid(first), seconds=60)
        assert _container(again) == _container(first)
        master = cluster.pid("master")
        os.kill(master, signal.SIGSTOP)
        try:
            file.write_text(text.replace("sleep 0.1", "sleep 0.2"))
        finally:
            os.kill(master, signal.SIGCONT)
        changed = until(shown, lambda pod: ready(pod) and _container(pod) != _container(first), seconds=60)
        assert "sleep 0.2" in str(changed["spec"])
    finally:
        file.unlink()
    until(shown, lambda pod: pod == {}, seconds=60)


def _uid(pod: dict[str, Any]) -> str:
    return str(pod.get("metadata", {}).get("uid"))


def _container(pod: dict[str, Any]) -> str:
    return str(pod["status"]["containerStatuses"][0]["containerID"])
