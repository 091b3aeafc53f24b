"""Deployments and ReplicaSets against the real API server, on simulated nodes. Texts and numbers are kube-controller-manager's."""

from __future__ import annotations

import pytest
from simulated import bare_pod, deployment, replica_set

from minikube_raw.api.meta import condition
from minikube_raw.client.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from minikube_raw.controllers import revisions


@pytest.fixture
async def cluster(master):
    for name in ("n1", "n2", "n3"):
        await master.kubelets.join(name)
    return master


async def test_a_deployment_gets_its_pods_spread_over_the_nodes_and_says_so(cluster, eventually):
    await cluster.apply(deployment(replicas=6))
    await eventually(cluster.rolled_out)
    assert set(cluster.places().values()) == {2}
    found = cluster.deployment()
    assert found.metadata.annotations[revisions.REVISION] == "1"
    [only] = cluster.sets()
    assert only.metadata.annotations == {
        revisions.DESIRED_REPLICAS: "6",
        revisions.MAX_REPLICAS: "8",
        revisions.REVISION: "1",
    }
    reasons = {entry.type: (entry.status, entry.reason, entry.message) for entry in found.status.conditions}
    assert reasons == {
        "Available": ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        "Progressing": (
            "True",
            "NewReplicaSetAvailable",
            f'ReplicaSet "{only.metadata.name}" has successfully progressed.',
        ),
    }
    assert (only.status.fully_labeled_replicas, only.status.ready_replicas, only.status.terminating_replicas) == (
        6,
        6,
        0,
    )
    assert await cluster.events("ScalingReplicaSet") == [f"Scaled up replica set {only.metadata.name} from 0 to 6"]
    assert len(await cluster.events("SuccessfulCreate")) == 6


async def test_a_rolling_update_keeps_its_limits_and_undo_brings_the_old_template_back(cluster, eventually):
    await cluster.apply(deployment(replicas=3))
    await eventually(cluster.rolled_out)
    [first] = cluster.sets()
    available, total = [], []

    def watch(old, new):
        running = [pod for pod in cluster.pods() if pod.metadata.deletion_timestamp is None]
        total.append(len(running))
        available.append(sum(pod.status.phase == "Running" for pod in running))

    cluster.informers.of(PODS).add_handler(watch)
    old_template = {"template": {"spec": {"containers": [{"name": "c", "image": "app:1"}]}}}
    new_template = {"template": {"spec": {"containers": [{"name": "c", "image": "app:2"}]}}}
    cluster.clock.advance(1)
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": new_template}, "default")
    await eventually(lambda: cluster.rolled_out() and len(cluster.sets()) == 2)
    second = cluster.sets()[1]
    assert max(total) <= 4
    assert min(available) >= 3
    assert cluster.deployment().metadata.annotations[revisions.REVISION] == "2"
    one, two = first.metadata.name, second.metadata.name
    assert (await cluster.events("ScalingReplicaSet"))[1:] == [
        f"Scaled up replica set {two} from 0 to 1",
        f"Scaled down replica set {one} from 3 to 2",
        f"Scaled up replica set {two} from 1 to 2",
        f"Scaled down replica set {one} from 2 to 1",
        f"Scaled up replica set {two} from 2 to 3",
        f"Scaled down replica set {one} from 1 to 0",
    ]
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": old_template}, "default")
    await eventually(
        lambda: cluster.rolled_out() and cluster.deployment().metadata.annotations[revisions.REVISION] == "3"
    )
    back = next(each for each in cluster.sets() if each.metadata.name == one)
    await eventually(lambda: len(cluster.pods()) == 3)
    assert back.metadata.annotations[revisions.REVISION_HISTORY] == "1"
    assert len(cluster.sets()) == 2


async def test_recreate_starts_nothing_new_before_the_last_old_pod_has_gone(cluster, eventually):
    await cluster.apply(deployment(replicas=2, strategy={"type": "Recreate"}))
    await eventually(cluster.rolled_out)
    seen = []
    cluster.informers.of(PODS).add_handler(
        lambda old, new: seen.append({p.spec.containers[0].image for p in cluster.pods()})
    )
    body = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "app:2"}]}}}}
    await cluster.client.patch(DEPLOYMENTS, "web", body, "default")
    await eventually(lambda: cluster.rolled_out() and {p.spec.containers[0].image for p in cluster.pods()} == {"app:2"})
    assert {"app:1", "app:2"} not in seen


async def test_scaling_up_and_down(cluster, eventually):
    await cluster.apply(deployment(replicas=2))
    await eventually(cluster.rolled_out)
    [only] = cluster.sets()
    for size in (5, 1, 0):
        await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": size}}, "default")
        await eventually(lambda size=size: cluster.rolled_out() and len(cluster.pods()) == size)
    name = only.metadata.name
    assert (await cluster.events("ScalingReplicaSet"))[1:] == [
        f"Scaled up replica set {name} from 2 to 5",
        f"Scaled down replica set {name} from 5 to 1",
        f"Scaled down replica set {name} from 1 to 0",
    ]


async def test_a_paused_deployment_scales_but_does_not_roll(cluster, eventually):
    await cluster.apply(deployment(replicas=2))
    await eventually(cluster.rolled_out)
    body = {"paused": True, "replicas": 3, "template": {"spec": {"containers": [{"name": "c", "image": "app:2"}]}}}
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": body}, "default")
    await eventually(lambda: cluster.deployment().status.available_replicas == 3)
    paused = condition(cluster.deployment().status.conditions, "Progressing")
    assert (paused.status, paused.reason) == ("Unknown", "DeploymentPaused")
    assert len(cluster.sets()) == 1
    assert cluster.deployment().status.updated_replicas == 0
    await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"paused": None}}, "default")
    await eventually(lambda: cluster.rolled_out() and len(cluster.sets()) == 2)


async def test_a_rollout_that_cannot_succeed_stops_says_so_and_keeps_the_old_pods(cluster, eventually):
    cluster.kubelets.broken = lambda pod: pod.spec.containers[0].image == "bad:1"
    await cluster.apply(deployment(replicas=2, progressDeadlineSeconds=8))
    await eventually(cluster.rolled_out)
    body = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "bad:1"}]}}}}
    await cluster.client.patch(DEPLOYMENTS, "web", body, "default")
    await eventually(
        lambda: (
            cluster.deployment().status.unavailable_replicas == 1 and cluster.deployment().status.updated_replicas == 1
        )
    )

    def timed_out():
        cluster.clock.advance(0.5)
        found = condition(cluster.deployment().status.conditions, "Progressing")
        return found.reason == "ProgressDeadlineExceeded" and found

    found = await eventually(timed_out)
    new = cluster.sets()[-1].metadata.name
    assert found.message.endswith("has timed out progressing.")
    assert cluster.deployment().status.available_replicas == 2
    assert new in {each.metadata.name for each in cluster.sets()}


async def test_old_revisions_beyond_the_limit_go(cluster, eventually):
    await cluster.apply(deployment(replicas=1, revisionHistoryLimit=1))
    await eventually(cluster.rolled_out)
    for number in range(2, 5):
        cluster.clock.advance(1)
        body = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": f"app:{number}"}]}}}}
        await cluster.client.patch(DEPLOYMENTS, "web", body, "default")
        await eventually(
            lambda n=number: (
                cluster.rolled_out() and cluster.deployment().metadata.annotations[revisions.REVISION] == str(n)
            )
        )
    await eventually(lambda: [revisions.revision(each) for each in cluster.sets()] == [3, 4])


async def test_a_hash_that_another_template_took_is_avoided(cluster, eventually):
    await cluster.apply(deployment(replicas=1))
    await eventually(cluster.rolled_out)
    [taken] = cluster.sets()
    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation="Orphan")
    await eventually(lambda: cluster.deployment() is None and cluster.sets()[0].metadata.controller is None)
    foreign = {"metadata": {"labels": {"app": None}}}
    await cluster.client.patch(REPLICA_SETS, taken.metadata.name, foreign, "default")
    await cluster.apply(deployment(replicas=1))
    await eventually(cluster.rolled_out)
    assert cluster.deployment().status.collision_count == 1
    assert len(cluster.sets()) == 2


async def test_a_deployment_adopts_the_replica_set_left_by_its_predecessor(cluster, eventually):
    await cluster.apply(deployment(replicas=2))
    await eventually(cluster.rolled_out)
    names = {pod.metadata.name for pod in cluster.pods()}
    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation="Orphan")
    await eventually(lambda: cluster.deployment() is None and cluster.sets()[0].metadata.controller is None)
    assert {pod.metadata.name for pod in cluster.pods()} == names
    await cluster.apply(deployment(replicas=2))
    await eventually(cluster.rolled_out)
    assert {pod.metadata.name for pod in cluster.pods()} == names


async def test_a_pod_that_goes_is_replaced_and_one_too_many_removed(cluster, eventually):
    await cluster.apply(replica_set(replicas=2))
    await eventually(lambda: cluster.sets() and cluster.sets()[0].status.ready_replicas == 2)
    lost = cluster.pods()[0].metadata.name
    await cluster.client.delete(PODS, lost, "default")
    await eventually(lambda: lost not in {p.metadata.name for p in cluster.pods()} and len(cluster.pods()) == 2)
    await eventually(lambda: cluster.sets()[0].status.ready_replicas == 2)


async def test_a_matching_pod_is_adopted_and_one_that_matches_no_more_released(cluster, eventually):
    await cluster.apply(bare_pod("bare", labels={"app": "rs"}))
    await eventually(lambda: cluster.pods() and cluster.pods()[0].status.phase == "Running")
    await cluster.apply(replica_set(replicas=2))
    await eventually(lambda: cluster.sets() and cluster.sets()[0].status.ready_replicas == 2)
    assert len(await cluster.events("SuccessfulCreate")) == 1
    bare = next(pod for pod in cluster.pods() if pod.metadata.name == "bare")
    assert bare.metadata.controller.name == "rs"
    await cluster.client.patch(PODS, "bare", {"metadata": {"labels": {"app": "other"}}}, "default")
    await eventually(lambda: len(cluster.pods()) == 3)
    bare = await cluster.client.get(PODS, "bare", "default")
    assert bare.metadata.owner_references == ()


async def test_min_ready_seconds_are_waited_out(cluster, eventually):
    await cluster.apply(deployment(replicas=1, minReadySeconds=30))
    await eventually(lambda: cluster.deployment() and cluster.deployment().status.ready_replicas == 1)
    assert cluster.deployment().status.available_replicas == 0
    cluster.clock.advance(31)
    await eventually(cluster.rolled_out)


async def test_nothing_is_written_once_everything_is_as_wished(cluster, eventually):
    await cluster.apply(deployment(replicas=3))
    await eventually(cluster.rolled_out)
    before = cluster.deployment().metadata.resource_version, cluster.sets()[0].metadata.resource_version
    await cluster.client.patch(DEPLOYMENTS, "web", {"metadata": {"labels": {"touched": "yes"}}}, "default")
    await cluster.apply(deployment("marker", replicas=1))
    await eventually(lambda: cluster.rolled_out("marker"))
    after = await cluster.client.get(DEPLOYMENTS, "web", "default")
    only = next(each for each in cluster.sets() if each.metadata.name.startswith("web"))
    assert only.metadata.resource_version == before[1]
    assert after.metadata.generation == 1
