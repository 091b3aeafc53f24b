"""Statuses reach the API server at once, newest last, and never stand in a worker's way."""

from __future__ import annotations

from typing import Any

import pytest
from pod_builders import pod

from minikube_raw.api import scheme, status
from minikube_raw.client.clock import ManualClock
from minikube_raw.kubelet.statusmanager import StatusManager, status_patch


@pytest.fixture
async def manager(client, api):
    api.put(scheme.POD, {"metadata": {"name": "p", "namespace": "ns", "uid": "u1"}})
    made = StatusManager(client, ManualClock())
    yield made
    await made.close()


def test_a_patch_holds_what_changed_and_nulls_what_is_gone() -> None:
    old = {"phase": "Pending", "message": "m", "qosClass": "BestEffort"}
    new = {"phase": "Running", "qosClass": "BestEffort", "conditions": [{"type": "Ready", "status": "True"}]}

    assert status_patch(pod(), old, new) == {
        "metadata": {"uid": "u1"},
        "status": {
            "phase": "Running",
            "message": None,
            "conditions": [{"type": "Ready", "status": "True"}],
            "$setElementOrder/conditions": [{"type": "Ready"}],
        },
    }


def test_a_condition_loses_the_reason_it_no_longer_has() -> None:
    unready = {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"}
    patch = status_patch(pod(), {"conditions": [unready]}, {"conditions": [{"type": "Ready", "status": "True"}]})

    assert patch["status"]["conditions"] == [{"type": "Ready", "status": "True", "reason": None, "message": None}]


def test_a_condition_that_is_over_is_taken_away_and_those_of_others_stay() -> None:
    ready, theirs = {"type": "Ready", "status": "True"}, {"type": "example.com/gate", "status": "True"}
    resizing = {"type": "PodResizeInProgress", "status": "True"}

    patch = status_patch(pod(), {"conditions": [resizing, theirs, ready]}, {"conditions": [ready]})

    assert patch["status"]["conditions"] == [ready, {"$patch": "delete", "type": "PodResizeInProgress"}]


def test_a_refused_pod_loses_the_conditions_it_had() -> None:
    scheduled = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}

    patch = status_patch(pod(), scheduled, {"phase": "Failed", "reason": "SysctlForbidden"})

    assert patch["status"] == {"phase": "Failed", "reason": "SysctlForbidden", "conditions": None}


def test_a_new_address_replaces_the_old_one() -> None:
    patch = status_patch(pod(), {"podIPs": [{"ip": "10.0.0.1"}]}, {"podIPs": [{"ip": "10.0.0.2"}]})

    assert patch["status"]["podIPs"] == [{"ip": "10.0.0.2"}, {"$patch": "replace"}]


async def test_only_the_newest_status_waits_behind_one_that_is_under_way(manager, api, eventually) -> None:
    for phase in ("Pending", "Running", "Succeeded"):
        manager.set(pod(), {"phase": phase}, {})

    await eventually(lambda: api.get(scheme.POD, "p", "ns").get("status") == {"phase": "Succeeded"})

    assert [method for method, _ in api.writes()] == ["PATCH"]


async def test_an_equal_status_is_not_sent(manager, api, eventually) -> None:
    manager.set(pod(), {"phase": "Pending"}, {"phase": "Pending"})
    manager.set(pod(), {"phase": "Running"}, {})
    await eventually(lambda: api.writes())
    manager.set(pod(), {"phase": "Running"}, {})
    manager.delete(pod())

    await eventually(lambda: not api.all(scheme.POD))
    assert [method for method, _ in api.writes()] == ["PATCH", "DELETE"]


@pytest.mark.parametrize("problem", [OSError("away"), status.internal_error("no")])
async def test_a_server_that_is_away_gets_it_later(manager, api, eventually, problem) -> None:
    problems = [problem]

    def fail(request: Any) -> None:
        if problems:
            raise problems.pop()

    api.fail = fail
    manager.set(pod(), {"phase": "Running"}, {})
    await eventually(lambda: len(api.log) == 1 and manager._clock._timers)
    manager._clock.advance(1)

    await eventually(lambda: api.get(scheme.POD, "p", "ns").get("status") == {"phase": "Running"})


async def test_a_refused_status_does_not_keep_the_pod_from_being_deleted(manager, api, eventually) -> None:
    def refuse(request: Any) -> None:
        if request.method == "PATCH":
            raise status.StatusError(422, "Invalid", "nonsense")

    api.fail = refuse
    manager.set(pod(), {"phase": "Nonsense"}, {})
    manager.delete(pod())

    await eventually(lambda: not api.all(scheme.POD))
