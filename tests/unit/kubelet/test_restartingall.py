"""RestartAllContainers (KEP-5532) as it shows in statuses: what a kubelet 1.36 writes while it happens, and afterwards."""

from __future__ import annotations

from typing import Any

import msgspec
from pod_builders import pod, run

from minikube_raw.kubelet import restarts

RULE = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}]
BOSS = {"name": "boss", "image": "busybox", "restartPolicy": "OnFailure", "restartPolicyRules": RULE}
HOOKED = {"name": "c", "image": "busybox", "lifecycle": {"preStop": {"exec": {"command": ["bye"]}}}}
MESSAGE = "The container is removed because RestartAllContainers in place"
REASON = {"reason": "RestartingAllContainers", "message": MESSAGE}
ENDED = {"terminated": {"exitCode": 137, **REASON, "startedAt": None, "finishedAt": None}}


def gang(*containers: dict[str, Any], **spec: Any) -> Any:
    return pod(containers=[*containers, BOSS], restartPolicy="Never", **spec)


def restarting(status: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in status["conditions"] if each["type"] == "AllContainersRestarting")
    return {key: found[key] for key in ("status", "reason", "message") if key in found}


def states(status: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each["state"] for each in status["containerStatuses"]}


async def ask_for_restart(node, eventually, wish: Any) -> None:
    node.workers.update(wish)
    await eventually(lambda: node.phase() == "Running")
    node.clock.advance(1)
    node.runtime.exit(node.runtime.named("boss").id, 88)


async def test_the_condition_holds_until_every_container_has_ended_then_all_wait(node, eventually) -> None:
    node.runtime.ignores_term.add("c")
    await ask_for_restart(node, eventually, gang(HOOKED))
    await eventually(lambda: any(call[0] == "stop_container" for call in node.runtime.calls))
    shown = node.statuses[-1]
    why = {"reason": "RestartAllContainersStarted", "message": "container exited with restart policy rule"}
    assert restarting(shown) == {"status": "True", **why}
    assert states(shown)["boss"]["terminated"]["exitCode"] == 88
    assert "running" in states(shown)["c"]
    assert node.runtime.execs == []  # a kubelet runs no preStop hooks then

    node.runtime.exit(node.runtime.named("c").id, 137)
    await eventually(lambda: node.runtime.named("boss").attempt == 1 and node.runtime.named("c").attempt == 1)
    await eventually(lambda: node.state == "running")

    between = next(each for each in node.statuses if states(each)["c"].get("waiting") == REASON)
    assert restarting(between) == {"status": "False"}
    assert (between["phase"], states(between)["boss"]) == ("Running", {"waiting": REASON})
    for status in (between, node.statuses[-1]):
        assert [each["restartCount"] for each in status["containerStatuses"]] == [1, 1]
        assert [each["lastState"] for each in status["containerStatuses"]] == [ENDED, ENDED]


async def test_the_condition_is_there_before_and_is_shown_for_a_container_that_is_alone(node, eventually) -> None:
    await ask_for_restart(node, eventually, gang())
    await eventually(lambda: node.runtime.named("boss").attempt == 1 and node.state == "running")
    seen = [restarting(status)["status"] for status in node.statuses]
    assert [seen[0], "True" in seen, seen[-1]] == ["False", True, "False"]


async def test_how_it_ended_before_stays_shown_when_what_asked_for_it_is_forgotten(node, eventually) -> None:
    await ask_for_restart(node, eventually, gang({"name": "c", "image": "busybox"}))
    await eventually(lambda: node.runtime.named("boss").attempt == 1 and node.runtime.named("boss").started_at)
    node.clock.advance(1)
    node.runtime.exit(node.runtime.named("boss").id, 1)

    await eventually(lambda: "running" in states(node.statuses[-1])["boss"] and node.runtime.named("boss").attempt == 2)
    assert [each for each in node.runtime.containers.values() if each.name == "boss" and each.attempt == 0] == []
    ends = {
        each["name"]: each["lastState"]["terminated"]["exitCode"] for each in node.statuses[-1]["containerStatuses"]
    }
    assert (ends, node.container["lastState"]) == ({"c": 137, "boss": 1}, ENDED)


async def test_a_kubelet_that_starts_later_does_not_tell_of_it_again(node, eventually) -> None:
    wish = gang({"name": "c", "image": "busybox"})
    await ask_for_restart(node, eventually, wish)
    await eventually(lambda: node.runtime.named("boss").attempt == 1 and node.state == "running")
    told = len(node.statuses)

    node.use(node.tools)
    node.workers.update(wish)

    await eventually(lambda: len(node.statuses) > told)
    assert [restarting(status)["status"] for status in node.statuses[told:]] == ["False"] * (len(node.statuses) - told)


def test_ephemeral_containers_are_none_of_those_that_restart() -> None:
    wish = gang()
    look = msgspec.structs.replace(wish.spec.containers[0], name="look", restart_policy_rules=())
    wish = msgspec.structs.replace(wish, spec=msgspec.structs.replace(wish.spec, ephemeral_containers=(look,)))
    runs = [run("boss", code=88, ago=1), run("look", ago=2)]
    assert restarts.whole_restart(wish, runs) == restarts.WholeRestart(runs[0].finished_at, running=False, begun=False)
