"""One leader at a time, and a heartbeat that makes its Lease when there is none."""

from __future__ import annotations

import pytest

from minikube_raw.api import scheme
from minikube_raw.client.clock import ManualClock
from minikube_raw.client.leases import LeaseHolder, lead

NAMESPACE = "kube-system"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def holder(client, clock):
    return lambda identity: LeaseHolder(client, NAMESPACE, "master", identity, duration=15, clock=clock)


async def test_a_heartbeat_makes_the_lease_and_then_renews_it(api, client, clock):
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u"}
    lease = LeaseHolder(client, "kube-node-lease", "n1", "n1", duration=40, owner=owner, clock=clock)
    await lease.renew()
    made = api.get(scheme.LEASE, "n1", "kube-node-lease")
    assert made["metadata"]["ownerReferences"] == [owner]
    assert made["spec"] == {
        "holderIdentity": "n1",
        "leaseDurationSeconds": 40,
        "renewTime": "2023-11-14T22:13:20.000000Z",
    }
    clock.advance(10)
    await lease.renew()
    assert api.get(scheme.LEASE, "n1", "kube-node-lease")["spec"]["renewTime"] == "2023-11-14T22:13:30.000000Z"


async def test_only_one_gets_it_and_the_other_waits_out_its_duration(holder, clock):
    first, second = holder("first"), holder("second")
    assert await first.try_acquire()
    assert not await second.try_acquire()
    clock.advance(14)
    assert await first.try_acquire()
    assert not await second.try_acquire()
    clock.advance(14)
    assert not await second.try_acquire(), "renewed 14 seconds ago"
    clock.advance(1)
    assert await second.try_acquire()
    assert not await first.try_acquire()


async def test_a_wrong_date_on_either_side_changes_nothing(holder, clock):
    first, second = holder("first"), holder("second")
    assert await first.try_acquire()
    assert not await second.try_acquire()
    clock.jump(3600)
    assert not await second.try_acquire()


async def test_a_released_lease_is_free_at_once_and_transitions_are_counted(api, holder):
    first, second = holder("first"), holder("second")
    await first.try_acquire()
    await first.release()
    assert await second.try_acquire()
    assert api.get(scheme.LEASE, "master", NAMESPACE)["spec"]["leaseTransitions"] == 1


async def test_a_leader_that_cannot_renew_steps_down_before_the_lease_runs_out(
    api, holder, clock, background, eventually
):
    started = []
    task = background(lead(holder("first"), lambda: started.append(clock.monotonic())))
    await eventually(lambda: started)

    def away(request):
        raise ConnectionResetError

    api.fail = away
    await eventually(lambda: clock.advance(0.5) or task.done())
    assert 10 <= clock.monotonic() - started[0] < 15
