"""Workers drive pods over a runtime made by hand and a clock that tests move."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from pod_builders import pod
from worked_node import Image, with_status

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import convert
from minikube_raw.kubelet.ending import Ending
from minikube_raw.kubelet.pods import logged
from minikube_raw.kubelet.podworker import PodWorker
from minikube_raw.kubelet.room import NodeView, Room
from minikube_raw.runtime import cri


def deleted(wish: Pod, grace: int = 30) -> Pod:
    gone = {"deletion_timestamp": "2023-11-14T22:14:20Z", "deletion_grace_period_seconds": grace}
    return msgspec.structs.replace(wish, metadata=msgspec.structs.replace(wish.metadata, **gone))


DISRUPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "TerminationByKubelet",
    "message": "The node was low on resource: memory. ",
}


async def test_a_pod_runs_and_says_so(node, eventually) -> None:
    node.workers.update(pod())

    await eventually(lambda: node.phase() == "Running")

    assert node.runtime.verbs() == ["run_pod_sandbox", "create_container", "start_container"]
    assert node.events == ["Pulled", "Created", "Started"]
    assert [each["phase"] for each in node.statuses] == ["Pending", "Running"]


async def test_a_pod_that_asks_for_a_sysctl_of_the_host_fails_before_anything_is_made(node, eventually) -> None:
    node.workers.update(pod(securityContext={"sysctls": [{"name": "kernel.core_pattern", "value": "|/x"}]}))

    await eventually(lambda: node.phase() == "Failed")

    message = 'forbidden sysctl: "kernel.core_pattern" not allowlisted'
    assert node.runtime.verbs() == []
    assert node.events == [f"Warning SysctlForbidden {message}"]
    assert (node.statuses[-1]["reason"], node.statuses[-1]["message"]) == (
        "SysctlForbidden",
        f"Pod was rejected: {message}",
    )


async def test_an_ended_container_is_restarted_at_once_then_after_growing_waits(node, eventually) -> None:
    node.workers.update(pod())
    await eventually(lambda: node.state == "running")

    for attempt, wait in ((1, 0), (2, 10), (3, 20), (4, 40)):
        node.runtime.exit(node.runtime.named("c").id, 1)
        if wait:
            await eventually(lambda: node.state == "CrashLoopBackOff")
            node.clock.advance(wait - 1)
            assert node.runtime.named("c").attempt == attempt - 1
            node.clock.advance(1)
        await eventually(lambda n=attempt: node.container.get("restartCount") == n and node.state == "running")

    assert [each for each in node.events if each.startswith("Warning")] == [
        "Warning BackOff Back-off restarting failed container c in pod p_ns(u1)"
    ] * 3


async def test_ten_good_minutes_make_the_next_restart_immediate(node, eventually) -> None:
    node.workers.update(pod())
    await eventually(lambda: node.state == "running")
    node.runtime.exit(node.runtime.named("c").id, 1)
    await eventually(lambda: node.runtime.named("c").attempt == 1 and node.state == "running")

    node.clock.advance(601)
    node.runtime.exit(node.runtime.named("c").id, 1)

    await eventually(lambda: node.runtime.named("c").attempt == 2 and node.state == "running")


async def test_a_pod_that_ends_is_taken_down_before_it_is_called_succeeded(node, eventually) -> None:
    node.workers.update(pod(restartPolicy="Never"))
    await eventually(lambda: node.state == "running")

    node.runtime.exit(node.runtime.named("c").id, 0)

    await eventually(lambda: node.phase() == "Succeeded")
    assert node.runtime.verbs()[-1] == "stop_pod_sandbox"


async def test_deletion_stops_containers_with_the_grace_asked_for_then_deletes(node, eventually) -> None:
    wish = pod("a", "b")
    node.workers.update(wish)
    await eventually(lambda: node.phase() == "Running")

    node.workers.update(deleted(wish, 7))
    await eventually(lambda: node.deleted == ["u1"] and not node.runtime.sandboxes)
    node.workers.remove("u1")

    await eventually(lambda: node.workers.get("u1") is None)
    assert [call for call in node.runtime.calls if call[0] == "stop_container"] == [
        ("stop_container", "a", 7),
        ("stop_container", "b", 7),
    ]
    assert node.phase() == "Succeeded"


async def test_a_forced_deletion_shortens_a_grace_period_that_runs(node, eventually) -> None:
    wish = pod()
    node.runtime.ignores_term.add("c")
    node.workers.update(wish)
    await eventually(lambda: node.state == "running")
    node.workers.update(deleted(wish, 30))
    await eventually(lambda: ("stop_container", "c", 30) in node.runtime.calls)

    node.workers.remove("u1")

    await eventually(lambda: node.workers.get("u1") is None)
    assert ("stop_container", "c", 2) in node.runtime.calls


async def test_a_pod_past_its_deadline_is_stopped_then_failed(node, eventually) -> None:
    node.workers.update(pod(activeDeadlineSeconds=4, terminationGracePeriodSeconds=9))
    await eventually(lambda: node.phase() == "Running")

    node.clock.advance(4)

    await eventually(lambda: node.phase() == "Failed")
    stopping, ended = node.statuses[-2], node.statuses[-1]
    assert (stopping["phase"], stopping["conditions"][2]["reason"], stopping.get("reason")) == (
        "Running",
        "PodFailed",
        None,
    )
    assert (ended["reason"], ended["message"]) == (
        "DeadlineExceeded",
        "Pod was active on the node longer than the specified deadline",
    )
    assert node.state == "terminated"
    assert ("stop_container", "c", 9) in node.runtime.calls
    assert node.events[-2:] == ["DeadlineExceeded", "Killing"]


async def test_a_deadline_given_to_a_running_pod_counts_from_its_start(node, eventually) -> None:
    node.workers.update(pod())
    await eventually(lambda: node.phase() == "Running")
    node.clock.advance(10)

    node.workers.update(pod(activeDeadlineSeconds=3, metadata={"generation": 2}))

    await eventually(lambda: node.phase() == "Failed")


async def test_a_pod_ended_as_a_whole_keeps_its_reason_after_a_restart_of_the_kubelet(node, eventually) -> None:
    evicted = Ending("Evicted", "The node was low on resource: memory. ", grace=1, conditions=(DISRUPTED,))
    wish = pod(restartPolicy="Always")
    node.workers.update(wish)
    await eventually(lambda: node.phase() == "Running")

    node.workers.end("u1", evicted)
    await eventually(lambda: node.phase() == "Failed")
    ended = node.statuses[-1]
    node.workers.end("u1", Ending("Other", "too late"))
    again = PodWorker("u1", node.tools, with_status(wish, node.statuses[-1]))
    assert not await again._sync()

    assert ("stop_container", "c", 2) in node.runtime.calls
    assert {each["type"]: each.get("reason") for each in node.statuses[-2]["conditions"]}["Ready"] == "PodFailed"
    for status in (ended, again.status):
        assert (status["phase"], status["reason"], status["message"]) == ("Failed", evicted.reason, evicted.message)
    assert {**ended["conditions"][-1], "lastTransitionTime": 0} == {
        **DISRUPTED, "observedGeneration": 1, "lastProbeTime": None, "lastTransitionTime": 0
    }  # fmt: skip


async def test_a_pod_that_has_ended_holds_no_volumes_and_no_room(node, eventually, tmp_path) -> None:
    volume = tmp_path / "pods/u1/volumes/kubernetes.io~empty-dir/v"
    node.workers.update(pod(restartPolicy="Never", volumes=[{"name": "v", "emptyDir": {}}]))
    await eventually(lambda: node.state == "running")
    assert volume.is_dir()

    node.runtime.exit(node.runtime.named("c").id, 0)

    await eventually(lambda: node.tools.room.admitted() == [])
    assert node.phase() == "Succeeded"
    await node.tools.preparation.settled()
    assert not volume.exists()


async def test_a_pod_that_comes_back_after_a_shutdown_finds_its_volumes(node, eventually, tmp_path) -> None:
    volume = tmp_path / "pods/u1/volumes/kubernetes.io~empty-dir/v"
    node.workers.update(pod(volumes=[{"name": "v", "emptyDir": {}}]))
    await eventually(lambda: node.state == "running")

    node.workers.end("u1", Ending("Terminated", "shutdown", keeps_volumes=True))

    await eventually(lambda: node.tools.room.admitted() == [])
    assert volume.is_dir()


async def test_a_container_that_a_power_cut_made_the_runtime_forget_is_counted_by_its_logs(
    node, eventually, tmp_path
) -> None:
    logs = tmp_path / "logs/ns_p_u1/c"
    logs.mkdir(parents=True)
    for name in ("2.log", "10.log.20260131-093000.gz", "notes"):
        (logs / name).touch()

    node.workers.update(pod())

    await eventually(lambda: node.state == "running")
    assert ("create_container", "c", 11) in node.runtime.calls
    assert node.container["restartCount"] == 11


async def test_dead_containers_are_given_up_without_a_word_about_the_pod(node, eventually, tmp_path) -> None:
    node.workers.update(pod(restartPolicy="Never"))
    node.workers.update(pod(metadata={"name": "other", "uid": "u2"}))
    await eventually(lambda: node.runtime.verbs().count("start_container") == 2)
    log = tmp_path / "logs/ns_p_u1/c"
    log.mkdir(parents=True)
    ended = next(each for each in node.runtime.containers.values() if node.uid_of(each) == "u1")
    node.runtime.exit(ended.id, 0)
    await eventually(lambda: bool(node.told("Succeeded")))

    await node.workers.remove_dead()

    assert [each.config.uid for each in node.runtime.sandboxes.values()] == ["u2"]
    assert not log.exists()
    node.workers.update(deleted(pod(restartPolicy="Never")))
    await eventually(lambda: node.deleted == ["u1"])
    assert len(node.told("Succeeded")) == 1


async def test_a_missing_image_is_an_error_then_a_back_off(node, eventually) -> None:
    node.images.present.clear()
    node.workers.update(pod())

    await eventually(lambda: node.state == "ErrImagePull")
    node.clock.advance(1)
    await eventually(lambda: node.state == "ImagePullBackOff")
    node.images.present["docker.io/library/busybox:latest"] = Image()
    node.clock.advance(10)

    await eventually(lambda: node.state == "running")
    assert node.events[:3] == [
        "Pulling",
        (
            'Warning Failed Failed to pull image "busybox": failed to pull and unpack image '
            '"docker.io/library/busybox:latest": not in the image store of this node, and no recipe of that name is known'
        ),
        "Warning Failed Error: ErrImagePull",
    ]


@pytest.mark.parametrize(
    ("container", "reason", "message"),
    [
        pytest.param({"image": "busybox:2", "imagePullPolicy": "Never"}, "ErrImageNeverPull", "not present", id="never"),
        pytest.param({"image": "Bad:UPPER:x"}, "InvalidImageName", "couldn't parse image name", id="invalid name"),
        pytest.param(
            {"image": "busybox", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "nosuch", "key": "k"}}}]},
            "CreateContainerConfigError",
            'configmap "nosuch" not found',
            id="missing ConfigMap",
        ),
        pytest.param(
            {"image": "busybox", "securityContext": {"runAsNonRoot": True}},
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
            id="root refused",
        ),
    ],
)  # fmt: skip
async def test_what_hinders_a_container_is_its_waiting_reason(node, eventually, container, reason, message) -> None:
    node.workers.update(pod(containers=[{"name": "c", **container}]))

    await eventually(lambda: node.state == reason)

    assert message in node.container["state"]["waiting"]["message"]
    assert node.phase() == "Pending"


async def test_a_program_that_cannot_be_executed_is_shown_a_second_then_goes_into_back_off(node, eventually) -> None:
    error = cri.RuntimeServiceError("StartError", 'exec: "nosuch": executable file not found in $PATH')
    node.runtime.fail["start_container"] = [error] * 3
    node.workers.update(pod())

    # restartCount, reason and the seconds until the next, as a kubelet 1.36 was seen to write them
    for count, reason, seconds in (
        (0, "RunContainerError", 1),
        (1, "RunContainerError", 1),
        (1, "CrashLoopBackOff", 10),
    ):
        await eventually(lambda: (node.container.get("restartCount"), node.state) == (count, reason))  # noqa: B023
        assert node.container["lastState"]["terminated"]["reason"] == "StartError"
        node.clock.advance(seconds)

    await eventually(lambda: (node.container.get("restartCount"), node.state) == (2, "RunContainerError"))
    assert node.container["state"]["waiting"]["message"] == str(error)
    assert (node.phase(), node.events.count(f"Warning Failed Error: {error}")) == ("Running", 3)
    assert [event for event in node.events if "BackOff" in event] != []


@pytest.mark.parametrize("verb", ["create_container", "start_container"])
async def test_what_the_runtime_cannot_make_waits_as_create_container_error(node, eventually, verb) -> None:
    gone = cri.RuntimeServiceError("RuntimeUnavailable", "the launcher is away")
    node.runtime.fail["create_container"] = [gone]
    node.workers.update(pod(restartPolicy="Never"))

    await eventually(lambda: node.state == "CreateContainerError")
    assert (node.phase(), node.container["restartCount"], node.container["imageID"]) == ("Pending", 0, "")

    node.clock.advance(1)
    await eventually(lambda: node.state == "running")


async def test_a_sandbox_that_cannot_be_made_is_tried_again(node, eventually) -> None:
    node.runtime.fail["run_pod_sandbox"] = [cri.RuntimeServiceError("", "no address left")]
    node.workers.update(pod())
    await eventually(lambda: any("no address left" in each for each in node.events))

    node.clock.advance(10)

    await eventually(lambda: node.phase() == "Running")


async def test_a_lost_sandbox_is_made_anew_with_its_containers(node, eventually) -> None:
    node.workers.update(pod())
    await eventually(lambda: node.phase() == "Running")

    node.runtime.lose_sandbox("sandbox1")
    await eventually(lambda: ("run_pod_sandbox", "u1", 1) in node.runtime.calls)

    await eventually(lambda: node.state == "running" and node.runtime.named("c").attempt == 1)
    assert "SandboxChanged" in node.events


async def test_a_restarted_kubelet_disturbs_nothing_that_runs(node, eventually, tmp_path) -> None:
    await node.runtime.run_pod_sandbox(cri.PodSandboxConfig(name="p", namespace="ns", uid="u1"))
    config = cri.ContainerConfig(name="c", attempt=3, image="sha256:abc")
    await node.runtime.start_container(await node.runtime.create_container("sandbox1", config))
    before = list(node.runtime.calls)

    node.workers.update(pod())
    await eventually(lambda: node.phase() == "Running")

    assert node.runtime.calls == before
    assert node.container["restartCount"] == 3


async def test_pods_deleted_while_no_kubelet_ran_are_cleaned_up(node, eventually, tmp_path) -> None:
    await node.runtime.run_pod_sandbox(cri.PodSandboxConfig(name="gone", namespace="ns", uid="u9"))
    config = cri.ContainerConfig(name="c", attempt=0, image="x", annotations={convert.GRACE_PERIOD: "5"})
    await node.runtime.start_container(await node.runtime.create_container("sandbox1", config))
    (tmp_path / "pods" / "u8" / "volumes").mkdir(parents=True)
    (tmp_path / "logs" / "ns_logged_u7" / "c").mkdir(parents=True)

    await node.workers.adopt_leftovers(["u8", *logged(tmp_path / "logs")])

    await eventually(lambda: not node.workers.all())
    assert ("stop_container", "c", 5) in node.runtime.calls
    assert not node.runtime.sandboxes
    assert not (tmp_path / "pods" / "u8").exists()
    assert not (tmp_path / "logs" / "ns_logged_u7").exists()


async def test_the_echo_of_our_own_status_wakes_nobody(node, eventually) -> None:
    wish = pod()
    node.workers.update(wish)
    await eventually(lambda: node.phase() == "Running")
    listed = len(node.runtime.calls)
    status = msgspec.structs.replace(wish.status, phase="Running")

    node.workers.update(msgspec.structs.replace(wish, status=status))
    await asyncio.sleep(0)

    assert not node.workers.get("u1")._due.is_set()
    assert len(node.runtime.calls) == listed


async def test_a_class_has_the_shares_that_its_pods_ask_for(node, eventually) -> None:
    assert node.shares == {"kubepods/besteffort": 2}
    for uid, requests in (("u1", {"cpu": "250m"}), ("u2", {"cpu": "500m"}), ("u3", {})):
        containers = [{"name": "c", "image": "busybox", "resources": {"requests": requests}}]
        node.workers.update(pod(containers=containers, metadata={"uid": uid}))
    assert node.shares == {"kubepods/besteffort": 2, "kubepods/burstable": 768}

    node.workers.remove("u2")
    await eventually(lambda: node.shares["kubepods/burstable"] == 256)
    node.workers.remove("u1")
    await eventually(lambda: node.shares["kubepods/burstable"] == 2)


async def test_a_container_that_cannot_be_killed_is_told_and_tried_again(node, eventually) -> None:
    node.workers.update(pod())
    await eventually(lambda: node.phase() == "Running")
    why = "container id1 does not end: a process of it is in uninterruptible sleep"
    node.runtime.fail["stop_container"] = [cri.RuntimeServiceError("KillContainerError", why)]

    node.workers.update(deleted(pod()))

    told = (
        f'Warning FailedKillPod error killing pod: failed to "KillContainer" for "c" with KillContainerError: "{why}"'
    )
    await eventually(lambda: told in node.events)
    node.clock.advance(1)
    await eventually(lambda: "remove_pod_sandbox" in node.runtime.verbs())


async def test_a_container_that_cannot_be_killed_does_not_call_off_the_end_of_another(node, eventually) -> None:
    called_off: list[str] = []
    stop = node.runtime.stop_container

    async def watched(container_id: str, grace: float) -> None:
        try:
            await stop(container_id, grace)
        except asyncio.CancelledError:
            called_off.append(node.runtime.containers[container_id].name)
            raise

    node.runtime.stop_container = watched
    node.runtime.ignores_term.add("b")
    wish = pod("a", "b")
    node.workers.update(wish)
    await eventually(lambda: node.phase() == "Running")
    node.runtime.fail["stop_container"] = [cri.RuntimeServiceError("KillContainerError", "not yet")]

    node.workers.update(deleted(wish))
    await eventually(lambda: any("FailedKillPod" in event for event in node.events))
    node.runtime.exit(node.runtime.named("b").id, 137)
    node.clock.advance(1)

    await eventually(lambda: node.deleted == ["u1"])
    assert called_off == []


async def test_a_pod_whose_object_is_gone_makes_room_though_it_still_ends(node, eventually) -> None:
    full_with_one = Room(lambda: NodeView(name="n1", allocatable={"pods": "1"}))
    node.use(msgspec.structs.replace(node.tools, room=full_with_one))
    node.workers.update(pod())
    await eventually(lambda: node.phase() == "Running")
    node.runtime.fail["stop_container"] = [cri.RuntimeServiceError("KillContainerError", "not yet")]

    node.workers.remove("u1")
    node.workers.update(pod(metadata={"uid": "u2", "name": "next"}))

    await eventually(lambda: {each.config.uid for each in node.runtime.sandboxes.values()} == {"u1", "u2"})


async def test_a_pod_that_claims_devices_waits_since_no_driver_is_there(node, eventually) -> None:
    node.workers.update(pod(resourceClaims=[{"name": "gpu", "resourceClaimName": "x"}]))

    why = "this node has no driver for the pod's resource claims (gpu)"
    told = f"Warning FailedPrepareDynamicResources Failed to prepare dynamic resources: {why}"
    await eventually(lambda: told in node.events)
    assert node.runtime.sandboxes == {}
    assert (node.phase(), node.state) == ("Pending", "ContainerCreating")
