"""The scheduler against an API: every pod gets its node once, whatever happens around it."""

from __future__ import annotations

import json

import pytest

from minikube_raw.api import scheme, status
from minikube_raw.client.clock import ManualClock
from minikube_raw.client.informer import Informers
from minikube_raw.client.rest import Client
from minikube_raw.scheduler.scheduler import Scheduler

BINDING = "/binding"


def node_body(name: str = "n1", cpu: str = "4", **spec: object) -> dict:
    allocatable = {"cpu": cpu, "memory": "8Gi", "pods": "110"}
    return {"metadata": {"name": name}, "spec": spec, "status": {"allocatable": allocatable}}


def pod_body(name: str = "p", cpu: str = "1", **spec: object) -> dict:
    containers = [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]
    return {
        "metadata": {"name": name, "namespace": "default", "generation": 1},
        "spec": {"containers": containers, **spec},
        "status": {"phase": "Pending"},
    }


class Cluster:
    def __init__(self, api, clock):
        self.api, self.clock = api, clock

    def place_of(self, name: str = "p") -> str:
        return self.api.get(scheme.POD, name, "default")["spec"].get("nodeName", "")

    def condition(self, name: str = "p") -> dict:
        conditions = self.api.get(scheme.POD, name, "default").get("status", {}).get("conditions", [])
        return next((entry for entry in conditions if entry["type"] == "PodScheduled"), {})

    def events(self, reason: str) -> list[str]:
        return [event["message"] for event in self.api.all(scheme.EVENT) if event["reason"] == reason]

    def binds(self) -> int:
        return sum(1 for _, path in self.api.log if path.endswith(BINDING))


@pytest.fixture
def cluster(api):
    return Cluster(api, ManualClock())


@pytest.fixture
def start(api, client, cluster, background):
    """Start the scheduler; calling the result again starts another one, as after a restart."""

    def run():
        informers = Informers(client, clock=cluster.clock)
        scheduler = Scheduler(client, informers, clock=cluster.clock, seed=1)
        return background(informers.run()), background(scheduler.run())

    return run


async def test_a_pod_is_bound_and_an_event_says_so(api, cluster, start, eventually):
    api.put(scheme.NODE, node_body())
    start()
    api.put(scheme.POD, pod_body())
    await eventually(lambda: cluster.place_of() == "n1")
    await eventually(lambda: cluster.events("Scheduled") == ["Successfully assigned default/p to n1"])


async def test_an_unschedulable_pod_says_why_and_is_tried_when_a_node_comes(api, cluster, start, eventually):
    start()
    api.put(scheme.POD, pod_body())
    await eventually(lambda: cluster.condition().get("reason") == "Unschedulable")
    assert cluster.condition()["message"] == "no nodes available to schedule pods"
    assert cluster.condition()["status"] == "False"
    assert cluster.condition()["observedGeneration"] == 1
    await eventually(lambda: cluster.events("FailedScheduling") == ["no nodes available to schedule pods"])
    api.put(scheme.NODE, node_body())
    await eventually(lambda: cluster.clock.advance(0.2) or cluster.place_of() == "n1")


@pytest.mark.parametrize(
    ("blocked", "cure"),
    [
        pytest.param({"unschedulable": True}, {}, id="uncordon"),
        pytest.param({"taints": [{"key": "k", "effect": "NoSchedule"}]}, {}, id="untaint"),
    ],
)
async def test_it_is_tried_again_when_the_reason_goes_away(api, cluster, start, eventually, blocked, cure):
    api.put(scheme.NODE, node_body(**blocked))
    start()
    api.put(scheme.POD, pod_body())
    await eventually(cluster.condition)
    cluster.clock.advance(15)
    api.put(scheme.NODE, node_body(**cure))
    await eventually(lambda: cluster.place_of() == "n1")


async def test_a_heartbeat_does_not_make_it_try_again(api, cluster, start, eventually):
    api.put(scheme.NODE, node_body(cpu="1"))
    start()
    api.put(scheme.POD, pod_body(cpu="2"))
    await eventually(lambda: len(cluster.events("FailedScheduling")) == 1)
    cluster.clock.advance(15)
    heartbeat = node_body(cpu="1")
    heartbeat["status"]["conditions"] = [
        {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:01:00Z"}
    ]
    api.put(scheme.NODE, heartbeat)
    api.put(scheme.POD, pod_body("marker"))
    await eventually(lambda: cluster.place_of("marker"))
    assert api.all(scheme.EVENT)[0]["count"] == 1


async def test_room_made_by_a_pod_that_ends_is_used(api, cluster, start, eventually):
    api.put(scheme.NODE, node_body(cpu="1"))
    start()
    api.put(scheme.POD, pod_body("first"))
    await eventually(lambda: cluster.place_of("first"))
    api.put(scheme.POD, pod_body("second"))
    await eventually(lambda: cluster.condition("second"))
    cluster.clock.advance(15)
    api.put(scheme.POD, api.get(scheme.POD, "first", "default") | {"status": {"phase": "Succeeded"}})
    await eventually(lambda: cluster.place_of("second") == "n1")


async def test_a_burst_never_puts_more_on_a_node_than_fits(api, cluster, start, eventually):
    for name in ("n1", "n2", "n3"):
        api.put(scheme.NODE, node_body(name, cpu="10"))
    start()
    for number in range(40):
        api.put(scheme.POD, pod_body(f"p{number}"))
    await eventually(lambda: sum(bool(cluster.place_of(f"p{number}")) for number in range(40)) == 30)
    places = [cluster.place_of(f"p{number}") for number in range(40)]
    assert [places.count(name) for name in ("n1", "n2", "n3", "")] == [10, 10, 10, 10]


async def test_a_failed_bind_frees_the_room_and_is_tried_again(api, cluster, start, eventually):
    api.put(scheme.NODE, node_body(cpu="1"))
    failures = [ConnectionResetError("gone")]

    def fail_first_bind(request):
        if request.path.endswith(BINDING) and failures:
            raise failures.pop()

    api.fail = fail_first_bind
    start()
    api.put(scheme.POD, pod_body())
    await eventually(lambda: not failures)
    await eventually(lambda: cluster.clock.advance(0.5) or cluster.place_of() == "n1")
    assert cluster.events("FailedScheduling") == ["running Bind plugin: gone"]


async def test_a_bind_refused_because_someone_else_bound_it_is_not_repeated(api, cluster, start, eventually):
    api.put(scheme.NODE, node_body("n1"))
    api.put(scheme.NODE, node_body("n2"))

    def other_first(request):
        if request.path.endswith(BINDING):
            api.fail = lambda request: None
            body = api.get(scheme.POD, "p", "default")
            api.put(scheme.POD, body | {"spec": body["spec"] | {"nodeName": "n2"}})
            raise status.conflict("", "pods", "p", "pod p is already assigned to node n2")

    api.fail = other_first
    start()
    api.put(scheme.POD, pod_body())
    await eventually(lambda: cluster.place_of() == "n2")
    cluster.clock.advance(30)
    api.put(scheme.POD, pod_body("marker"))
    await eventually(lambda: cluster.place_of("marker"))
    assert cluster.binds() == 2


async def test_a_restart_loses_no_pod_and_binds_none_twice(api, cluster, start, eventually):
    api.put(scheme.NODE, node_body(cpu="100"))
    tasks = start()
    for number in range(20):
        api.put(scheme.POD, pod_body(f"p{number}"))
    await eventually(lambda: cluster.binds() >= 5)
    for task in tasks:
        task.cancel()
    for number in range(20, 30):
        api.put(scheme.POD, pod_body(f"p{number}"))
    start()
    await eventually(lambda: all(cluster.place_of(f"p{number}") for number in range(30)))


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"schedulerName": "other"}, id="other-scheduler"),
        pytest.param({"schedulingGates": [{"name": "x"}]}, id="gated"),
    ],
)
async def test_pods_that_are_not_its_business_are_left_alone(api, cluster, start, eventually, spec):
    api.put(scheme.NODE, node_body())
    start()
    api.put(scheme.POD, pod_body("other", **spec))
    api.put(scheme.POD, pod_body("marker"))
    await eventually(lambda: cluster.place_of("marker"))
    assert cluster.place_of("other") == ""
    assert not cluster.condition("other")


async def test_a_gate_removed_lets_the_pod_go(api, cluster, start, eventually):
    api.put(scheme.NODE, node_body())
    start()
    gated = api.put(scheme.POD, pod_body(schedulingGates=[{"name": "x"}]))
    open_ = json.loads(json.dumps(gated))
    del open_["spec"]["schedulingGates"]
    api.put(scheme.POD, open_)
    await eventually(lambda: cluster.place_of() == "n1")


async def test_urgent_pods_go_first(api, client: Client, cluster, start, eventually):
    api.put(scheme.NODE, node_body(cpu="1"))
    api.put(scheme.POD, pod_body("usual"))
    api.put(scheme.POD, pod_body("urgent", priority=1000))
    start()
    await eventually(lambda: cluster.place_of("urgent"))
    await eventually(lambda: cluster.condition("usual"))
    assert cluster.place_of("usual") == ""
