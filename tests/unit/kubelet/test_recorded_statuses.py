"""Statuses that a real kubelet 1.36 wrote (fixtures/kubelet/statuses.jsonl): from the same runs ours must say the same.

Each recorded status tells which runs the kubelet had found; they are put together again, and what we make of them is compared
with what it said: phase, conditions with reasons and messages, and each container's state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pod_builders import NOW, finding, pod, run, sandbox

from minikube_raw.kubelet import ending, podstatus
from minikube_raw.kubelet.circumstances import Circumstances, Waiting
from minikube_raw.kubelet.ending import Ending
from minikube_raw.runtime import cri

RECORDED = Path(__file__).parents[2] / "fixtures" / "kubelet" / "statuses.jsonl"
KNOWN_DIFFERENCES = {
    "command-not-found 2": "between a StartError and the end of its pod the kubelet shows the phase from before",
    "permission-denied 2": "between a StartError and the end of its pod the kubelet shows the phase from before",
    "deadline-pending 4": "the kubelet needs another look to see that what never ran has gone",
    "sidecar-crash 11": "a failed pod's sidecar shows how it ended; the kubelet goes on with CrashLoopBackOff",
    "sidecar-crash 12": "a failed pod's sidecar shows how it ended; the kubelet forgets it",
}
NOT_STARTED = ("ContainerCreating", "PodInitializing", "ContainerStatusUnknown")
Json = dict[str, Any]


def cases() -> list[Any]:
    found = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    return [
        case_of(case["spec"], status, f"{case['name']} {number}")
        for case in found
        for number, status in enumerate(case["statuses"])
        if not lags(case["spec"], status)
    ]


def case_of(spec: Json, status: Json, name: str) -> Any:
    reason = KNOWN_DIFFERENCES.get(name)
    return pytest.param(spec, status, id=name, marks=[pytest.mark.xfail(strict=True, reason=reason)] if reason else [])


def lags(spec: Json, status: Json) -> bool:
    """Whether a status mixes findings of two moments, as the kubelet's do when a container was started in between."""
    known = {each["name"]: each for each in (*spec["containers"], *spec.get("initContainers", ()))}
    for each in status["main"] + status["init"]:
        sidecar = known[each["name"]].get("restartPolicy") == "Always"
        plain_init = each in status["init"] and not sidecar
        if each["started"] and not each["ready"] and "readinessProbe" not in known[each["name"]] and not plain_init:
            return True
    return False


def runs_of(each: Json) -> list[cri.ContainerStatus]:
    count = each["restartCount"]
    (kind, state), *_ = each["state"].items()
    before = each["lastState"].get("terminated")
    runs = []
    if kind == "running":
        runs = [run(each["name"], attempt=count)]
    elif kind == "terminated" and state["reason"] not in NOT_STARTED:
        runs = [ended(each["name"], count, state)]
    elif kind == "waiting" and before:
        return [ended(each["name"], count, before)]
    return runs + ([ended(each["name"], count - 1, before)] if before else [])


def ended(name: str, attempt: int, state: Json) -> cri.ContainerStatus:
    return run(name, attempt=attempt, code=state["exitCode"], reason=state["reason"], message=state.get("message", ""))


def circumstances(spec: Json, status: Json) -> Circumstances:
    every = status["main"] + status["init"]
    waiting = {each["name"]: each["state"]["waiting"] for each in every if "waiting" in each["state"]}
    running = {each["name"]: each for each in every if "running" in each["state"]}
    over = status["phase"] in ("Succeeded", "Failed")
    failing = ["Ready", "False", "PodFailed", ""] in status["conditions"] and not over and bool(running or waiting)
    init_failed = any(each["state"].get("terminated", {}).get("exitCode") for each in status["init"])
    return Circumstances(
        host_ip="10.0.0.1",
        now=NOW,
        waiting={
            name: Waiting(each["reason"], each.get("message", ""))
            for name, each in waiting.items()
            if each["reason"] not in NOT_STARTED
        },
        unready=frozenset(f"{name}{each['restartCount']}" for name, each in running.items() if not each["ready"]),
        not_started=frozenset(f"{name}{each['restartCount']}" for name, each in running.items() if not each["started"]),
        terminating=status["deleted"],
        terminated=over,
        ending=Ending(status["reason"], "")
        if status["reason"]
        else ending.DEADLINE
        if failing and not init_failed
        else None,
    )


def shown(each: Json) -> Json:
    """A container's status without times and ids, which are not the kubelet's decision."""

    def plain(state: Json) -> Json:
        return {
            kind: {key: value for key, value in fields.items() if key not in ("startedAt", "finishedAt", "containerID")}
            for kind, fields in state.items()
        }

    kept = {key: each[key] for key in ("name", "ready", "restartCount", "started")}
    return {**kept, "state": plain(each["state"]), "lastState": plain(each["lastState"])}


@pytest.mark.parametrize(("spec", "recorded"), cases())
def test_the_same_runs_give_the_status_a_kubelet_gives(spec: Json, recorded: Json) -> None:
    named = {
        each["name"]: {"image": "busybox", **each} for each in (*spec["containers"], *spec.get("initContainers", ()))
    }
    wish = pod(
        containers=[named[each["name"]] for each in spec["containers"]],
        init=tuple(named[each["name"]] for each in spec.get("initContainers", ())),
        restartPolicy=spec["restartPolicy"],
        metadata={"uid": "<uid:1>"},
    )
    runs = [each for status in recorded["main"] + recorded["init"] for each in runs_of(status)]
    has_sandbox = recorded["conditions"][0][1] == "True"
    found = finding(*runs, sandboxes=(sandbox(ready=has_sandbox),) if has_sandbox or runs else ())

    ours = podstatus.pod_status(wish, found, circumstances(spec, recorded), {})

    conditions = [
        [each["type"], each["status"], each.get("reason", ""), each.get("message", "")] for each in ours["conditions"]
    ]
    assert ours["phase"] == recorded["phase"]
    assert conditions == recorded["conditions"]
    assert [shown(each) for each in ours["containerStatuses"]] == recorded["main"]
    assert [shown(each) for each in ours.get("initContainerStatuses", ())] == recorded["init"]
