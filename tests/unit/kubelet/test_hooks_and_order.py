"""postStart and preStop hooks, and the order in which a pod's containers end."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from pod_builders import finding, pod, run

from minikube_raw.kubelet import syncpod
from minikube_raw.kubelet.stopping import goes_after
from minikube_raw.kubelet.syncpod import Finish, StartContainer, StopContainer
from minikube_raw.runtime import cri

NOW = 1_700_000_000.0


def hooked(grace: int = 10, **lifecycle: Any) -> Any:
    container = {"name": "c", "image": "busybox", "lifecycle": lifecycle}
    return pod(containers=[container], terminationGracePeriodSeconds=grace)


def deleted(wish: Any, grace: int) -> Any:
    gone = {"deletion_timestamp": "2023-11-14T22:14:20Z", "deletion_grace_period_seconds": grace}
    return msgspec.structs.replace(wish, metadata=msgspec.structs.replace(wish.metadata, **gone))


async def test_a_container_is_shown_as_running_when_its_post_start_hook_is_done(node, eventually) -> None:
    done = node.runtime.answers["hello"] = asyncio.Event()
    node.workers.update(hooked(postStart={"exec": {"command": ["hello"]}}))
    await eventually(lambda: node.runtime.execs)
    assert node.state == "ContainerCreating"

    done.set()

    await eventually(lambda: node.state == "running")


async def test_a_post_start_hook_that_fails_kills_the_container(node, eventually) -> None:
    node.runtime.answers["no"] = [cri.ExecResult(b"no\n", b"", 4)]
    node.workers.update(hooked(postStart={"exec": {"command": ["no"]}}))

    await eventually(lambda: node.state == "CrashLoopBackOff")

    waiting = [each["containerStatuses"][0]["state"].get("waiting", {}) for each in node.statuses]
    text = (
        'Exec lifecycle hook ([no]) for Container "c" in Pod "p_ns(u1)" failed - '
        "error: command 'no' exited with 4: , message: \"no\\n\""
    )
    assert {"reason": "PostStartHookError", "message": text} in waiting
    assert node.events[3:5] == ["Warning FailedPostStartHook PostStartHook failed", "Killing"]


async def test_deletion_calls_off_a_post_start_hook(node, eventually) -> None:
    node.runtime.answers["hello"] = asyncio.Event()
    wish = hooked(postStart={"exec": {"command": ["hello"]}})
    node.workers.update(wish)
    await eventually(lambda: node.runtime.execs)

    node.workers.update(deleted(wish, 10))

    await eventually(lambda: node.deleted == ["u1"])


async def test_a_deadline_calls_off_a_post_start_hook(node, eventually) -> None:
    node.runtime.answers["hello"] = asyncio.Event()
    lifecycle = {"postStart": {"exec": {"command": ["hello"]}}}
    container = {"name": "c", "image": "busybox", "lifecycle": lifecycle}
    node.workers.update(pod(containers=[container], activeDeadlineSeconds=3))
    await eventually(lambda: node.runtime.execs)

    node.clock.advance(3)

    await eventually(lambda: node.phase() == "Failed")
    assert node.statuses[-1]["reason"] == "DeadlineExceeded"


async def test_a_pre_stop_hook_runs_first_and_uses_up_grace(node, eventually) -> None:
    wish = hooked(preStop={"sleep": {"seconds": 3}})
    node.workers.update(wish)
    await eventually(lambda: node.state == "running")

    node.workers.update(deleted(wish, 10))
    await eventually(lambda: "Killing" in node.events)
    await asyncio.sleep(0.01)
    assert not any(call[0] == "stop_container" for call in node.runtime.calls)
    node.clock.advance(3)

    await eventually(lambda: ("stop_container", "c", 7) in node.runtime.calls)


async def test_a_pre_stop_hook_that_takes_too_long_leaves_two_seconds(node, eventually) -> None:
    node.runtime.answers["bye"] = asyncio.Event()
    wish = hooked(preStop={"exec": {"command": ["bye"]}})
    node.workers.update(wish)
    await eventually(lambda: node.state == "running")
    node.workers.update(deleted(wish, 4))
    await eventually(lambda: node.runtime.execs)

    node.clock.advance(4)

    await eventually(lambda: ("stop_container", "c", 2) in node.runtime.calls)
    assert "Warning FailedPreStopHook PreStopHook failed" in node.events


async def test_a_pre_stop_hook_that_fails_is_told_and_stops_nothing(node, eventually) -> None:
    node.runtime.answers["bye"] = [cri.ExecResult(b"", b"", 5)]
    wish = hooked(preStop={"exec": {"command": ["bye"]}})
    node.workers.update(wish)
    await eventually(lambda: node.state == "running")

    node.workers.update(deleted(wish, 4))

    await eventually(lambda: node.deleted == ["u1"])
    assert "Warning FailedPreStopHook PreStopHook failed" in node.events


def side(name: str) -> dict[str, str]:
    return {"name": name, "image": "busybox", "restartPolicy": "Always"}


async def test_sidecars_end_after_the_main_containers_in_reverse(node, eventually) -> None:
    wish = pod("a", "b", init=(side("s1"), side("s2")))
    node.workers.update(wish)
    await eventually(lambda: node.phase() == "Running")

    node.workers.update(deleted(wish, 9))

    await eventually(lambda: node.deleted == ["u1"])
    stopped = [call[1] for call in node.runtime.calls if call[0] == "stop_container"]
    assert (set(stopped[:2]), stopped[2:]) == ({"a", "b"}, ["s2", "s1"])
    assert goes_after(wish, "s1") == ["a", "b", "s2"]
    assert goes_after(wish, "a") == []


async def test_a_pod_completes_although_its_sidecar_runs(node, eventually) -> None:
    node.workers.update(pod(init=(side("s1"),), restartPolicy="Never"))
    await eventually(lambda: node.phase() == "Running")

    node.runtime.exit(node.runtime.named("c").id, 0)

    await eventually(lambda: node.phase() == "Succeeded")
    running = node.statuses[-2]
    assert running["conditions"][2]["message"] == "containers with unready status: [c]"
    assert ("stop_container", "s1", 30) in node.runtime.calls


async def test_an_image_changed_in_place_restarts_the_container(node, eventually) -> None:
    node.workers.update(pod(restartPolicy="Never"))
    await eventually(lambda: node.state == "running")

    new = [{"name": "c", "image": "busybox:latest"}]
    node.workers.update(pod(containers=new, restartPolicy="Never", metadata={"generation": 2}))

    await eventually(lambda: node.container["restartCount"] == 1 and node.state == "running")
    assert node.container["lastState"]["terminated"]["exitCode"] == 0


RULES = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
BUT = [{"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [42]}}]


@pytest.mark.parametrize(
    ("pod_policy", "container", "code", "restarted"),
    [
        pytest.param("Never", {}, 1, False, id="the pod's policy"),
        pytest.param("Never", {"restartPolicy": "Always"}, 0, True, id="a container's own Always"),
        pytest.param("Always", {"restartPolicy": "Never"}, 1, False, id="a container's own Never"),
        pytest.param("Always", {"restartPolicy": "OnFailure"}, 0, False, id="OnFailure after success"),
        pytest.param("Always", {"restartPolicy": "OnFailure"}, 1, True, id="OnFailure after failure"),
        pytest.param("Never", {"restartPolicy": "Never", "restartPolicyRules": RULES}, 42, True, id="a rule that matches"),
        pytest.param("Never", {"restartPolicy": "Never", "restartPolicyRules": RULES}, 1, False, id="one that does not"),
        pytest.param("Never", {"restartPolicy": "Never", "restartPolicyRules": BUT}, 1, True, id="NotIn matches"),
        pytest.param("Never", {"restartPolicy": "Never", "restartPolicyRules": BUT}, 42, False, id="NotIn does not"),
    ],
)  # fmt: skip
def test_a_containers_own_policy_and_rules_come_first(pod_policy, container, code, restarted) -> None:
    wish = pod(containers=[{"name": "c", "image": "busybox", **container}], restartPolicy=pod_policy)

    actions = syncpod.compute_actions(wish, finding(run(code=code)), {}, NOW)

    assert actions == ([StartContainer("c", 1, after=NOW - 1)] if restarted else [Finish()])


def test_an_init_container_that_must_not_restart_fails_the_pod() -> None:
    wish = pod(init=({"name": "i", "image": "busybox", "restartPolicy": "Never"},))

    assert syncpod.compute_actions(wish, finding(run("i", code=1)), {}, NOW) == [Finish()]


def test_a_failed_probe_in_a_pod_that_never_restarts_stops_its_container() -> None:
    health = syncpod.Health(failed={"c0": "liveness"})

    actions = syncpod.compute_actions(pod(restartPolicy="Never"), finding(run()), {}, NOW, health)

    assert actions == [StopContainer("c0", "c", "Stopping container c", "liveness")]


GANG = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}]


async def test_a_container_may_restart_the_whole_pod_with_its_init_containers(node, eventually) -> None:
    boss = {"name": "boss", "image": "busybox", "restartPolicy": "Never", "restartPolicyRules": GANG}
    node.workers.update(pod(containers=[{"name": "c", "image": "busybox"}, boss], init=("i",), restartPolicy="Never"))
    await eventually(lambda: len(node.runtime.containers) == 1 and node.runtime.named("i").started_at)
    node.clock.advance(1)
    node.runtime.exit(node.runtime.named("i").id, 0)
    await eventually(lambda: node.phase() == "Running")
    node.clock.advance(1)

    node.runtime.exit(node.runtime.named("boss").id, 88)
    await eventually(lambda: node.runtime.named("i").attempt == 1 and node.runtime.named("i").started_at)
    assert node.runtime.named("c").attempt == 0
    assert ("stop_container", "c", 30) in node.runtime.calls
    node.clock.advance(1)
    node.runtime.exit(node.runtime.named("i").id, 0)

    await eventually(lambda: node.runtime.named("c").attempt == 1 and node.runtime.named("boss").attempt == 1)
    assert len(node.runtime.sandboxes) == 1


async def test_a_pod_that_restarts_itself_again_and_again_waits_for_no_back_off(node, eventually) -> None:
    boss = {"name": "boss", "image": "busybox", "restartPolicyRules": GANG, "restartPolicy": "Never"}
    node.workers.update(pod(containers=[boss], restartPolicy="Never"))
    await eventually(lambda: node.phase() == "Running")
    for attempt in range(5):
        await eventually(lambda n=attempt: node.runtime.named("boss").attempt == n and node.state == "running")
        node.clock.advance(0.5)
        node.runtime.exit(node.runtime.named("boss").id, 88)
        node.clock.advance(0.5)
    assert "BackOff" not in node.events


def test_a_pod_that_restarts_itself_does_so_once_a_second_at_most() -> None:
    boss = {"name": "boss", "image": "busybox", "restartPolicyRules": GANG, "restartPolicy": "Never"}
    wish, ended = pod(containers=[boss], restartPolicy="Never"), run("boss", code=88)
    began = ended.created_at / 1e9

    early = syncpod.compute_actions(wish, finding(ended), {}, began + 0.75)
    assert early == [syncpod.Pause(began + 1)]
    assert syncpod.compute_actions(wish, finding(ended), {}, began + 1) == [StartContainer("boss", 1)]
