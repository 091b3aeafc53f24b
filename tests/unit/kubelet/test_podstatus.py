"""Statuses as Kubernetes 1.36 writes them: expectations are what a real kubelet was seen to write in the same case."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pod_builders import NOW, finding, pod, run, sandbox
from worked_node import with_status

from minikube_raw.kubelet.circumstances import Circumstances, Waiting
from minikube_raw.kubelet.podstatus import pod_status
from minikube_raw.runtime.cri import ContainerState

T = "2023-11-14T22:13:20Z"  # NOW
BEFORE = "2023-11-14T22:13:19Z"
NAMES = {"sha256:abc": ("docker.io/library/busybox:latest", "docker.io/library/busybox@sha256:def")}
AROUND = Circumstances(host_ip="10.243.0.11", now=NOW, image_names=NAMES)


def status(wish: Any, found: Any, previous: dict[str, Any] | None = None, **around: Any) -> dict[str, Any]:
    return pod_status(wish, found, msgspec.structs.replace(AROUND, **around), previous or {})


def condition(kind: str, value: str, since: str = T, **more: str) -> dict[str, Any]:
    return {
        "type": kind,
        "observedGeneration": 1,
        "status": value,
        "lastProbeTime": None,
        "lastTransitionTime": since,
        **more,
    }


UNREADY = {"reason": "ContainersNotReady", "message": "containers with unready status: [c]"}


def test_a_pod_that_was_just_seen_is_pending_with_creating_containers() -> None:
    assert status(pod(), finding(sandboxes=())) == {
        "observedGeneration": 1,
        "phase": "Pending",
        "conditions": [
            condition("PodReadyToStartContainers", "False"),
            condition("Initialized", "True"),
            condition("Ready", "False", **UNREADY),
            condition("ContainersReady", "False", **UNREADY),
            condition("PodScheduled", "True"),
        ],
        "hostIP": "10.243.0.11",
        "hostIPs": [{"ip": "10.243.0.11"}],
        "startTime": T,
        "containerStatuses": [
            {
                "name": "c",
                "state": {"waiting": {"reason": "ContainerCreating"}},
                "lastState": {},
                "ready": False,
                "restartCount": 0,
                "image": "busybox",
                "imageID": "",
                "started": False,
            }
        ],
        "qosClass": "BestEffort",
        "resources": {},
    }


def test_a_running_pod_with_requests_shows_what_it_got() -> None:
    resources = {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
    wish = pod(containers=[{"name": "c", "image": "busybox", "resources": resources}])

    shown = status(wish, finding(run()))

    assert shown["phase"] == "Running"
    assert [each["status"] for each in shown["conditions"]] == ["True"] * 5
    assert (shown["podIP"], shown["podIPs"]) == ("10.244.1.5", [{"ip": "10.244.1.5"}])
    assert shown["containerStatuses"] == [
        {
            "name": "c",
            "state": {"running": {"startedAt": "2023-11-14T22:13:18Z"}},
            "lastState": {},
            "ready": True,
            "restartCount": 0,
            "image": "docker.io/library/busybox:latest",
            "imageID": "docker.io/library/busybox@sha256:def",
            "containerID": "minikube-raw://c0",
            "started": True,
            "allocatedResources": {"cpu": "50m", "memory": "16Mi"},
            "resources": resources,
        }
    ]
    assert (shown["qosClass"], shown["allocatedResources"], shown["resources"]) == (
        "Burstable",
        {"cpu": "50m", "memory": "16Mi"},
        resources,
    )


@pytest.mark.parametrize(
    ("wish", "found", "around", "phase", "reason", "container"),
    [
        pytest.param(
            pod(restartPolicy="Never"), finding(run(code=3)), {}, "Running", "PodFailed", "terminated", id="ended, not yet stopped"
        ),
        pytest.param(
            pod(restartPolicy="Never"), finding(run(code=3)), {"terminated": True}, "Failed", "PodFailed", "terminated", id="failed"
        ),
        pytest.param(
            pod(restartPolicy="Never"),
            finding(run(code=0)),
            {"terminated": True},
            "Succeeded",
            "PodCompleted",
            "terminated",
            id="succeeded",
        ),
        pytest.param(pod(), finding(run(code=1)), {}, "Running", "ContainersNotReady", "terminated", id="between two runs"),
        pytest.param(
            pod(),
            finding(),
            {"waiting": {"c": Waiting("ErrImagePull", "gone")}},
            "Pending",
            "ContainersNotReady",
            "waiting",
            id="no image",
        ),
        pytest.param(pod(init=("i",)), finding(run("i")), {}, "Pending", "ContainersNotReady", "waiting", id="initializing"),
        pytest.param(
            pod(), finding(sandboxes=()), {"terminated": True}, "Failed", "PodFailed", "terminated", id="deleted before it ran"
        ),
        pytest.param(
            pod("c", "d"),
            finding(run("c"), run("d", state=ContainerState.CREATED)),
            {},
            "Pending",
            "ContainersNotReady",
            "running",
            id="one of two has never run",
        ),
    ],
)  # fmt: skip
def test_phase_reason_and_state(wish, found, around, phase, reason, container) -> None:
    shown = status(wish, found, **around)

    ready = next(each for each in shown["conditions"] if each["type"] == "Ready")
    assert (shown["phase"], ready["reason"], *shown["containerStatuses"][0]["state"]) == (phase, reason, container)


def test_a_container_in_back_off_waits_and_shows_how_it_ended() -> None:
    message = "back-off 10s restarting failed container=c pod=p_ns(u1)"
    found = finding(run(attempt=1, code=1), run(code=2, ago=9))

    shown = status(pod(), found, waiting={"c": Waiting("CrashLoopBackOff", message)})["containerStatuses"][0]

    assert shown["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
    assert shown["lastState"]["terminated"] == {
        "exitCode": 1,
        "reason": "Error",
        "startedAt": "2023-11-14T22:13:18Z",
        "finishedAt": BEFORE,
        "containerID": "minikube-raw://c1",
    }
    assert (shown["restartCount"], shown["ready"], shown["started"]) == (1, False, False)


def test_a_program_that_could_not_be_executed_never_started() -> None:
    run_ = run(
        code=128, started_at=0, reason="StartError", message='exec: "nosuch": executable file not found in $PATH'
    )

    terminated = status(pod(restartPolicy="Never"), finding(run_))["containerStatuses"][0]["state"]["terminated"]

    assert (terminated["reason"], terminated["exitCode"], terminated["startedAt"]) == (
        "StartError",
        128,
        "1970-01-01T00:00:00Z",
    )
    assert "executable file not found" in terminated["message"]


def test_conditions_keep_their_time_until_they_change() -> None:
    first = status(pod(), finding(sandboxes=()))

    second = status(pod(), finding(run()), first, now=NOW + 60)

    times = {each["type"]: each["lastTransitionTime"] for each in second["conditions"]}
    assert (times["Initialized"], times["PodScheduled"]) == (T, T)
    assert times["Ready"] == times["PodReadyToStartContainers"] == "2023-11-14T22:14:20Z"
    assert second["startTime"] == T


def test_init_containers_are_listed_until_done() -> None:
    shown = status(pod(init=("i1", "i2")), finding(run("i1", code=0)))

    initialized = next(each for each in shown["conditions"] if each["type"] == "Initialized")
    assert initialized["message"] == "containers with incomplete status: [i2]"
    assert [each["ready"] for each in shown["initContainerStatuses"]] == [True, False]
    assert shown["initContainerStatuses"][1]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert shown["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}


def test_a_terminal_phase_is_never_left() -> None:
    assert status(pod(), finding(run()), {"phase": "Failed"})["phase"] == "Failed"


def test_the_pod_ip_stays_known_after_the_sandbox_is_gone() -> None:
    first = status(pod(restartPolicy="Never"), finding(run(code=0)))

    second = status(pod(restartPolicy="Never"), finding(sandboxes=()), first, terminated=True)

    assert second["podIP"] == "10.244.1.5"


def test_a_restarted_kubelet_takes_image_names_from_the_status_it_wrote() -> None:
    first = status(pod(), finding(run()))

    assert status(pod(), finding(run()), first, image_names={}) == first


def test_a_host_network_pod_has_the_nodes_address() -> None:
    assert status(pod(hostNetwork=True), finding(run(), sandboxes=(sandbox(),)))["podIP"] == "10.243.0.11"


def test_readiness_gates_hold_ready_back() -> None:
    wish = pod(readinessGates=[{"conditionType": "example.com/lb"}, {"conditionType": "example.com/ad"}])
    wish = with_status(wish, {"conditions": [{"type": "example.com/ad", "status": "False"}]})

    conditions = {each["type"]: each for each in status(wish, finding(run()))["conditions"]}

    assert conditions["ContainersReady"]["status"] == "True"
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("False", "ReadinessGatesNotReady")
    assert conditions["Ready"]["message"] == (
        'corresponding condition of pod readiness gate "example.com/lb" does not exist., '
        'the status of pod readiness gate "example.com/ad" is not "True", but False'
    )


def test_after_a_failed_init_container_the_ones_behind_it_are_shown_as_never_begun() -> None:
    wish = pod(init=("first", "second"), restartPolicy="Never")
    found = status(wish, finding(run("first", code=1), sandboxes=(sandbox(ready=False),)), terminated=True)

    assert found["phase"] == "Failed"
    behind = [found["initContainerStatuses"][1]["state"], found["containerStatuses"][0]["state"]]
    assert behind == [{"waiting": {"reason": "PodInitializing"}}] * 2


def test_a_container_that_was_due_and_cannot_be_found_has_ended_with_137() -> None:
    wish = pod(init=("first",), restartPolicy="Never")
    found = status(wish, finding(run("first", code=0), sandboxes=(sandbox(ready=False),)), terminated=True)

    assert found["containerStatuses"][0]["state"]["terminated"]["reason"] == "ContainerStatusUnknown"
