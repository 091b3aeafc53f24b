"""Events are counted, combined and cut, and never hold up whoever records them."""

from __future__ import annotations

import asyncio

import pytest

from minikube_raw.api import scheme, status
from minikube_raw.api.core import ObjectReference
from minikube_raw.client.clock import ManualClock
from minikube_raw.client.events import NORMAL, WARNING, EventRecorder

POD = ObjectReference(kind="Pod", namespace="default", name="p", uid="u", api_version="v1")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def recorder(client, clock, background):
    recorder = EventRecorder(client, "kubelet", host="n1", clock=clock)
    background(recorder.run())
    return recorder


async def test_an_event_says_what_happened_to_what_and_who_saw_it(api, recorder):
    recorder.event(POD, NORMAL, "Started", "Container started")
    await recorder.flush()
    [event] = api.all(scheme.EVENT)
    assert event["metadata"]["namespace"] == "default"
    assert event["metadata"]["name"].startswith("p.")
    assert event["involvedObject"] == {
        "kind": "Pod",
        "namespace": "default",
        "name": "p",
        "uid": "u",
        "apiVersion": "v1",
    }
    assert event["source"] == {"component": "kubelet", "host": "n1"}
    assert (event["type"], event["reason"], event["message"], event["count"]) == (
        "Normal",
        "Started",
        "Container started",
        1,
    )
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2023-11-14T22:13:20Z"


async def test_the_same_event_again_raises_the_count(api, recorder, clock):
    for _ in range(3):
        recorder.event(POD, WARNING, "BackOff", "Back-off restarting failed container")
        clock.advance(10)
    await recorder.flush()
    [event] = api.all(scheme.EVENT)
    assert (event["count"], event["firstTimestamp"], event["lastTimestamp"]) == (
        3,
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:40Z",
    )


async def test_an_event_that_somebody_removed_is_made_anew(api, recorder):
    recorder.event(POD, NORMAL, "Pulled", "x")
    await recorder.flush()
    [event] = api.all(scheme.EVENT)
    api.remove(scheme.EVENT, event["metadata"]["name"], "default")
    recorder.event(POD, NORMAL, "Pulled", "x")
    await recorder.flush()
    assert [event["count"] for event in api.all(scheme.EVENT)] == [1]


async def test_many_messages_of_one_reason_are_combined(api, recorder):
    for number in range(14):
        recorder.event(POD, WARNING, "Unhealthy", f"probe {number}")
    await recorder.flush()
    combined = [
        event for event in api.all(scheme.EVENT) if event["message"].startswith("(combined from similar events)")
    ]
    assert len(api.all(scheme.EVENT)) == 11
    assert [(event["count"], event["message"]) for event in combined] == [
        (4, "(combined from similar events): probe 13")
    ]


async def test_a_flood_from_one_object_is_cut_and_others_are_heard(api, recorder, clock):
    for _ in range(100):
        recorder.event(POD, WARNING, "BackOff", "again")
    recorder.event(ObjectReference(kind="Pod", namespace="default", name="q", uid="v"), NORMAL, "Started", "x")
    await recorder.flush()
    assert sorted(event["count"] for event in api.all(scheme.EVENT)) == [1, 25]
    clock.advance(300)
    recorder.event(POD, WARNING, "BackOff", "again")
    await recorder.flush()
    assert sorted(event["count"] for event in api.all(scheme.EVENT)) == [1, 26]


async def test_cluster_objects_have_their_events_in_default(api, recorder):
    recorder.event(ObjectReference(kind="Node", name="n1", uid="n1"), NORMAL, "Starting", "x")
    await recorder.flush()
    assert api.all(scheme.EVENT)[0]["metadata"]["namespace"] == "default"


async def test_a_refused_event_is_dropped_and_the_next_one_written(api, recorder):
    def refuse(request):
        raise status.forbidden("", "events", "", "namespace is being terminated")

    api.fail = refuse
    recorder.event(POD, NORMAL, "Killing", "x")
    await recorder.flush()
    api.fail = lambda request: None
    recorder.event(POD, NORMAL, "Killed", "x")
    await recorder.flush()
    assert [event["reason"] for event in api.all(scheme.EVENT)] == ["Killed"]


async def test_a_server_that_is_away_holds_up_nobody_and_gets_the_event_later(api, recorder, clock, eventually):
    tries = []

    def away(request):
        tries.append(request)
        raise ConnectionRefusedError

    api.fail = away
    recorder.event(POD, NORMAL, "Started", "x")
    await eventually(lambda: tries)
    api.fail = lambda request: None
    await eventually(lambda: clock.advance(1) or api.all(scheme.EVENT))


async def test_what_many_objects_tell_at_once_is_written_a_part_each_second(api, recorder, clock, eventually):
    for number in range(200):
        pod = ObjectReference(kind="Pod", namespace="default", name=f"p{number}", uid=f"u{number}")
        recorder.event(pod, NORMAL, "Started", "x")
    await eventually(lambda: len(api.all(scheme.EVENT)) == 50)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(api.all(scheme.EVENT)) == 50
    await eventually(lambda: clock.advance(0.02) or len(api.all(scheme.EVENT)) == 200)
    assert clock.monotonic() >= 3
