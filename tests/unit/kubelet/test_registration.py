"""A node registers, says when something changed, and keeps its Lease."""

from __future__ import annotations

import msgspec
import pytest

from minikube_raw.api import core, scheme
from minikube_raw.client.clock import ManualClock
from minikube_raw.kubelet import node
from minikube_raw.kubelet.registration import Registration

SYSTEM = node.System("m", "b", "6.1", "Debian", "amd64", "minikube-raw://0.1.0")
CAPACITY = node.Capacity(cpus=1.5, memory=2**30, ephemeral_storage=2**40, pods=110)


class Node:
    """A registration whose readiness a test decides."""

    def __init__(self, client) -> None:
        self.clock = ManualClock()
        self.not_ready = "no network"
        wanted = node.new_node("n1", SYSTEM, {"zone": "a"}, {})
        self.registration = Registration(client, wanted, self._status, self.clock)

    def _status(self, before):
        left = CAPACITY.amounts()
        now = self.clock.now()
        return node.node_status("n1", "10.243.0.11", 10250, CAPACITY, left, SYSTEM, (), self.not_ready, before, now)


@pytest.fixture
def made(client) -> Node:
    return Node(client)


def ready(api) -> dict:
    conditions = api.get(scheme.NODE, "n1").get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == "Ready"), {})


async def test_a_new_node_registers_with_its_labels(made, api) -> None:
    await made.registration.register()

    labels = api.get(scheme.NODE, "n1")["metadata"]["labels"]
    assert (labels["kubernetes.io/hostname"], labels["kubernetes.io/arch"], labels["zone"]) == ("n1", "amd64", "a")


async def test_a_known_node_keeps_what_others_wrote(made, api) -> None:
    api.put(scheme.NODE, {"metadata": {"name": "n1", "labels": {"mine": "x"}}, "spec": {"podCIDR": "10.244.3.0/24"}})

    known = await made.registration.register()

    assert (known.metadata.labels["mine"], known.spec.pod_cidr) == ("x", "10.244.3.0/24")


async def test_the_status_is_written_when_it_says_something_new_and_not_for_heartbeats(
    made, api, background, eventually
) -> None:
    await made.registration.register()
    background(made.registration.keep_status())
    await eventually(lambda: made.clock._timers)
    made.clock.advance(2)
    await eventually(lambda: ready(api).get("status") == "False")
    assert ready(api)["message"] == "no network"

    made.not_ready = ""
    made.registration.status_changed()
    await eventually(lambda: ready(api).get("status") == "True")
    writes = len(api.writes())
    for _ in range(3):
        await eventually(lambda: any(timer[2].callback for timer in made.clock._timers))
        made.clock.advance(10)

    assert len(api.writes()) == writes
    assert api.get(scheme.NODE, "n1")["status"]["capacity"]["cpu"] == "1500m"


async def test_a_node_that_was_declared_unknown_says_that_it_is_back(made, api, background, eventually) -> None:
    made.not_ready = ""
    await made.registration.register()
    background(made.registration.keep_status())
    await eventually(lambda: made.clock._timers)
    made.clock.advance(2)
    await eventually(lambda: ready(api).get("status") == "True")
    writes = len(api.writes())
    present = api.get(scheme.NODE, "n1")
    made.registration.seen(msgspec.convert(present, core.Node))
    for condition in present["status"]["conditions"]:
        condition |= {"status": "Unknown", "reason": "NodeStatusUnknown"}
    api.put(scheme.NODE, present)

    made.registration.seen(msgspec.convert(present, core.Node))

    await eventually(lambda: ready(api).get("status") == "True")
    assert len(api.writes()) == writes + 1


async def test_the_lease_is_renewed_and_belongs_to_the_node(made, api, background, eventually) -> None:
    await made.registration.register()
    background(made.registration.keep_lease())
    await eventually(lambda: api.all(scheme.LEASE))
    (lease,) = api.all(scheme.LEASE)
    assert lease["metadata"]["ownerReferences"][0]["uid"] == api.get(scheme.NODE, "n1")["metadata"]["uid"]
    first = lease["spec"]["renewTime"]

    await eventually(lambda: made.clock._timers)
    made.clock.advance(10)

    await eventually(lambda: api.all(scheme.LEASE)[0]["spec"]["renewTime"] > first)
    assert lease["spec"]["leaseDurationSeconds"] == 40


async def test_a_node_that_was_removed_registers_again(made, api, background, eventually) -> None:
    await made.registration.register()
    background(made.registration.keep_status())
    await eventually(lambda: made.clock._timers)
    made.clock.advance(2)
    await eventually(lambda: ready(api))

    api.remove(scheme.NODE, "n1")
    made.not_ready = ""
    made.registration.status_changed()

    await eventually(lambda: api.all(scheme.NODE) and ready(api).get("status") == "True")
