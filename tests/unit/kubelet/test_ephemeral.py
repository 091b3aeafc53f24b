"""Ephemeral containers: started once beside what runs, shown apart, counted for nothing."""

from __future__ import annotations

from typing import Any

from pod_builders import NOW, finding, pod, run, sandbox

from minikube_raw.kubelet import ephemeral, podstatus
from minikube_raw.kubelet.circumstances import Circumstances
from minikube_raw.kubelet.pods import field_path
from minikube_raw.kubelet.syncpod import StartContainer
from minikube_raw.runtime.cri import ContainerState

DEBUGGED = pod("c", ephemeralContainers=[{"name": "dbg", "image": "busybox", "targetContainerName": "c"}])


def shown(*runs: Any) -> dict[str, Any]:
    return podstatus.pod_status(DEBUGGED, finding(*runs), Circumstances(host_ip="10.0.0.1", now=NOW), {})


def test_an_ephemeral_container_starts_beside_its_running_target() -> None:
    assert ephemeral.actions(DEBUGGED, finding(run("c"))) == [StartContainer(name="dbg", attempt=0)]
    assert ephemeral.target_id(DEBUGGED.spec.ephemeral_containers[0], finding(run("c"))) == "c0"


def test_it_waits_for_its_target_and_for_a_sandbox() -> None:
    assert ephemeral.actions(DEBUGGED, finding()) == []
    assert ephemeral.actions(DEBUGGED, finding(run("c"), sandboxes=(sandbox(ready=False),))) == []


def test_it_is_never_started_again_but_continued_after_a_crash() -> None:
    created = run("dbg", state=ContainerState.CREATED)

    assert ephemeral.actions(DEBUGGED, finding(run("c"), run("dbg", code=1))) == []
    assert ephemeral.actions(DEBUGGED, finding(run("c"), run("dbg"))) == []
    assert ephemeral.actions(DEBUGGED, finding(run("c"), created)) == [StartContainer(name="dbg", attempt=0)]


def test_a_pod_that_has_ended_gets_none() -> None:
    ending = pod("c", restartPolicy="Never", ephemeralContainers=[{"name": "dbg", "image": "busybox"}])

    assert ephemeral.actions(ending, finding(run("c", code=0))) == []


def test_its_status_stands_apart_and_leaves_the_pod_ready() -> None:
    waiting, running, over = shown(run("c")), shown(run("c"), run("dbg")), shown(run("c"), run("dbg", code=4))

    (first,), (second,), (third,) = (each["ephemeralContainerStatuses"] for each in (waiting, running, over))
    assert first["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert (list(second["state"]), second["ready"], "started" in second) == (["running"], False, False)
    assert (third["state"]["terminated"]["exitCode"], third["state"]["terminated"]["reason"]) == (4, "Error")
    for status in (waiting, running, over):
        assert {each["type"]: each["status"] for each in status["conditions"]}["Ready"] == "True"
        assert status["phase"] == "Running"


def test_events_name_its_field() -> None:
    assert field_path(DEBUGGED, "dbg") == "spec.ephemeralContainers{dbg}"
