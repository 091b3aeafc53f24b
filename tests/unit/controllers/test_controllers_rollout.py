"""The arithmetic of a rollout, step by step, and what the status says of it. Figures are kube-controller-manager's."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from minikube_raw.api.apps import Deployment, DeploymentStatus, ReplicaSet
from minikube_raw.api.meta import condition, decode
from minikube_raw.client.clock import timestamp
from minikube_raw.controllers import deploymentstatus, revisions, rollout

NOW = 1_700_000_000.0


def view(body: dict[str, Any], kind: type) -> Any:
    return decode(msgspec.json.encode(body), kind)


def deployment(
    replicas: int,
    surge: Any = "25%",
    unavailable: Any = "25%",
    *,
    kind: str = "RollingUpdate",
    status: dict | None = None,
    **spec: Any,
) -> Deployment:
    strategy = {"type": kind}
    if kind == "RollingUpdate":
        strategy["rollingUpdate"] = {"maxSurge": surge, "maxUnavailable": unavailable}
    template = spec.pop("template", {"spec": {"containers": [{"name": "c", "image": "new"}]}})
    spec = {"replicas": replicas, "strategy": strategy, "template": template, **spec}
    metadata = {"name": "web", "uid": "d", "generation": 1}
    return view({"metadata": metadata, "spec": spec, "status": status or {}}, Deployment)


def replica_set(
    name: str,
    replicas: int,
    available: int | None = None,
    *,
    image: str = "old",
    created: int = 0,
    annotations: dict | None = None,
    **status: Any,
) -> ReplicaSet:
    available = replicas if available is None else available
    metadata = {
        "name": name,
        "uid": name,
        "creationTimestamp": timestamp(NOW + created),
        "annotations": annotations or {},
    }
    template = {
        "metadata": {"labels": {"pod-template-hash": name}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }
    status = {"replicas": replicas, "readyReplicas": available, "availableReplicas": available, **status}
    return view(
        {"metadata": metadata, "spec": {"replicas": replicas, "template": template}, "status": status}, ReplicaSet
    )


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        pytest.param(10, "25%", "25%", (3, 2), id="surge up, unavailable down"),
        pytest.param(3, "25%", "25%", (1, 0), id="three replicas"),
        pytest.param(10, 0, 0, (0, 1), id="never both nothing"),
        pytest.param(1, "0%", "25%", (0, 1), id="percentages that come to nothing"),
        pytest.param(2, 1, 5, (1, 2), id="no more than there are"),
        pytest.param(0, 1, 1, (1, 0), id="nothing to be unavailable"),
        pytest.param(5, "100%", 0, (5, 0), id="all at once"),
    ],
)  # fmt: skip
def test_surge_and_unavailability(replicas, surge, unavailable, expected):
    wanted = deployment(replicas, surge, unavailable)
    assert (rollout.max_surge(wanted), rollout.max_unavailable(wanted)) == expected


def test_recreate_has_neither():
    wanted = deployment(5, kind="Recreate")
    assert (rollout.max_surge(wanted), rollout.max_unavailable(wanted)) == (0, 0)


def test_the_new_replica_set_grows_as_far_as_surge_allows():
    wanted = deployment(10, 3, 2)
    old, new = replica_set("old", 10), replica_set("new", 0, image="new")
    assert rollout.reconcile_new(wanted, [old, new], new) == (new, 3)
    assert rollout.reconcile_new(wanted, [old, replica_set("new", 3, image="new")], replica_set("new", 3)) is None


def test_old_pods_go_as_far_as_availability_allows():
    wanted = deployment(10, 3, 2)
    old, new = replica_set("old", 10), replica_set("new", 3, available=0, image="new")
    assert rollout.reconcile_old(wanted, [old], new) == [(old, 8)]
    assert rollout.reconcile_old(wanted, [replica_set("old", 8)], new) == []


def test_pods_that_do_not_work_go_first():
    wanted = deployment(10, 3, 2)
    broken, healthy = replica_set("broken", 4, available=0), replica_set("healthy", 8, created=1)
    new = replica_set("new", 1, available=1, image="new")
    steps = {each.metadata.name: size for each, size in rollout.reconcile_old(wanted, [healthy, broken], new)}
    assert steps == {"broken": 0, "healthy": 7}


def test_a_single_replica_set_follows_the_wished_number():
    only = replica_set("only", 3, annotations={revisions.DESIRED_REPLICAS: "3", revisions.MAX_REPLICAS: "4"})
    wanted = deployment(5)
    assert rollout.is_scaling_event(wanted, [only])
    assert rollout.scale(wanted, only, []) == [(only, 5)]
    assert not rollout.is_scaling_event(deployment(3), [only])


@pytest.mark.parametrize(
    ("old_size", "new_size", "wanted", "expected"),
    [
        pytest.param(8, 5, 15, {"old": 12, "new": 7}, id="up, in proportion"),
        pytest.param(5, 5, 10, {"old": 5, "new": 8}, id="what is left over goes to the newer of equals"),
        pytest.param(8, 5, 5, {"old": 4, "new": 3}, id="down"),
        pytest.param(8, 5, 0, {"old": 0, "new": 0}, id="to nothing"),
    ],
)
def test_a_rollout_under_way_is_scaled_in_proportion(old_size, new_size, wanted, expected):
    # 10 were wished before, with a surge of 3.
    annotations = {revisions.DESIRED_REPLICAS: "10", revisions.MAX_REPLICAS: "13"}
    old = replica_set("old", old_size, annotations=annotations)
    new = replica_set("new", new_size, annotations=annotations, image="new", created=1)
    steps = rollout.scale(deployment(wanted, "25%", "25%"), new, [old])
    assert {each.metadata.name: size for each, size in steps} == expected


@pytest.mark.parametrize("seed", range(30))
def test_any_rollout_ends_and_never_breaks_its_limits(seed):
    """Pods become available in any order and break now and then: limits hold at every step, and the end is reached."""
    rng = random.Random(seed)
    size = rng.randrange(1, 12)
    wanted = deployment(size, rng.choice([0, 1, 3, "25%", "100%"]), rng.choice([0, 1, 2, "25%", "50%"]))
    least = size - rollout.max_unavailable(wanted)
    most = size + rollout.max_surge(wanted)
    sizes, available = {"a": size, "b": 0}, {"a": size, "b": 0}
    for _ in range(400):
        old, new = (replica_set(name, sizes[name], available[name], image=name) for name in "ab")
        growth = rollout.reconcile_new(wanted, [old, new], new)
        for each, count in [growth] if growth else rollout.reconcile_old(wanted, [old], new):
            name = each.metadata.name
            # Pods that are not available go first, as to_delete has it.
            lost = max(available[name] - count, 0)
            sizes[name], available[name] = count, available[name] - lost
        assert sum(sizes.values()) <= most
        assert sum(available.values()) >= min(least, size)
        if available["b"] < sizes["b"] and rng.random() < 0.7:
            available["b"] += 1
        if sizes == {"a": 0, "b": size} and available["b"] == size:
            return
    pytest.fail(f"stuck at {sizes}")


# Revisions.


def test_the_replica_set_of_a_template_is_found_whatever_its_hash_label_says():
    first, second = replica_set("1", 0, image="new", created=5), replica_set("2", 0, image="new", created=1)
    assert revisions.find_new(deployment(1), [first, second, replica_set("3", 1)]) is second
    assert revisions.find_new(deployment(1), [replica_set("3", 1)]) is None


def test_a_replica_set_that_is_current_again_gets_the_next_revision_and_keeps_its_history():
    old = replica_set("x", 0, annotations={revisions.REVISION: "1"})
    wanted = view(
        {
            "metadata": {
                "annotations": {
                    "kubernetes.io/change-cause": "why",
                    revisions.REVISION: "2",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                }
            }
        },
        Deployment,
    )
    annotations = revisions.annotations_for(wanted, old, 3)
    assert annotations == {
        revisions.REVISION: "3",
        revisions.REVISION_HISTORY: "1",
        "kubernetes.io/change-cause": "why",
    }
    again = replica_set("x", 0, annotations=annotations)
    assert revisions.annotations_for(wanted, again, 5)[revisions.REVISION_HISTORY] == "1,3"
    assert revisions.annotations_for(wanted, again, 2)[revisions.REVISION] == "3", "never backwards"


def test_a_new_replica_set_carries_the_hash_in_name_labels_selector_and_template():
    wanted = deployment(
        3, selector={"matchLabels": {"app": "web"}}, template={"metadata": {"labels": {"app": "web"}}, "spec": {"x": 1}}
    )
    body = revisions.new_replica_set(wanted, {"uid": "d"}, 3, {})
    hash_ = body["metadata"]["labels"][revisions.TEMPLATE_HASH]
    labels = {"app": "web", revisions.TEMPLATE_HASH: hash_}
    assert body["metadata"]["name"] == f"web-{hash_}"
    assert body["metadata"]["labels"] == body["spec"]["selector"]["matchLabels"] == labels
    assert body["spec"]["template"] == {"metadata": {"labels": labels}, "spec": {"x": 1}}


def test_history_beyond_the_limit_goes_oldest_first_but_never_what_is_in_use():
    old = [replica_set(str(n), 0, annotations={revisions.REVISION: str(n)}) for n in range(1, 5)]
    busy = replica_set("0", 1, annotations={revisions.REVISION: "0"})
    gone = revisions.to_clean_up(deployment(1, revisionHistoryLimit=2), [*old, busy])
    assert [each.metadata.name for each in gone] == ["1", "2"]


# Status.


def progressing(status: DeploymentStatus) -> tuple[str, str]:
    found = condition(status.conditions, "Progressing")
    return (found.status, found.reason) if found else ("", "")


def with_status(wanted: Deployment, status: DeploymentStatus) -> Deployment:
    return msgspec.structs.replace(wanted, status=status)


def test_a_rollout_progresses_completes_and_stays_complete():
    wanted = deployment(2)
    new = replica_set("new", 2, available=0, image="new")
    status = deploymentstatus.with_progress(wanted, new, [new], NOW)
    assert progressing(status) == ("True", "ReplicaSetUpdated")
    assert condition(status.conditions, "Available").reason == "MinimumReplicasUnavailable"
    assert (status.replicas, status.updated_replicas, status.unavailable_replicas) == (2, 2, 2)
    wanted = with_status(wanted, status)
    new = replica_set("new", 2, image="new")
    status = deploymentstatus.with_progress(wanted, new, [new], NOW + 5)
    assert progressing(status) == ("True", "NewReplicaSetAvailable")
    found = condition(status.conditions, "Progressing")
    assert found.message == 'ReplicaSet "new" has successfully progressed.'
    assert (found.last_update_time, found.last_transition_time) == (timestamp(NOW + 5), timestamp(NOW))
    broken = replica_set("new", 2, available=1, image="new")
    later = deploymentstatus.with_progress(with_status(wanted, status), broken, [broken], NOW + 10_000)
    assert progressing(later) == ("True", "NewReplicaSetAvailable"), "a pod that breaks later is no failed rollout"
    assert deploymentstatus.seconds_until_deadline(with_status(wanted, later), later, NOW + 10_000) is None


def test_a_rollout_that_stands_still_times_out_and_recovers():
    wanted = deployment(2, progressDeadlineSeconds=8)
    new = replica_set("new", 1, available=0, image="new")
    status = deploymentstatus.with_progress(wanted, new, [new], NOW)
    assert deploymentstatus.seconds_until_deadline(wanted, status, NOW + 1) == 8
    wanted = with_status(wanted, status)
    assert progressing(deploymentstatus.with_progress(wanted, new, [new], NOW + 8)) == ("True", "ReplicaSetUpdated")
    late = deploymentstatus.with_progress(wanted, new, [new], NOW + 9)
    assert progressing(late) == ("False", "ProgressDeadlineExceeded")
    assert deploymentstatus.seconds_until_deadline(wanted, late, NOW + 9) is None
    assert condition(late.conditions, "Progressing").message == 'ReplicaSet "new" has timed out progressing.'
    grown = replica_set("new", 2, available=1, image="new")
    assert progressing(deploymentstatus.with_progress(with_status(wanted, late), grown, [grown], NOW + 20)) == (
        "True",
        "ReplicaSetUpdated",
    )


def test_without_a_deadline_progress_is_not_judged():
    wanted = deployment(2, progressDeadlineSeconds=2**31 - 1)
    new = replica_set("new", 2, image="new")
    assert progressing(deploymentstatus.with_progress(wanted, new, [new], NOW)) == ("", "")


def test_pods_that_cannot_be_made_are_reported():
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    new = replica_set("new", 1, available=0, image="new", conditions=[failure])
    status = deploymentstatus.with_progress(deployment(1), new, [new], NOW)
    assert condition(status.conditions, "ReplicaFailure").message == "exceeded quota"
    healed = replica_set("new", 1, image="new")
    healed_status = deploymentstatus.with_progress(with_status(deployment(1), status), healed, [healed], NOW)
    assert condition(healed_status.conditions, "ReplicaFailure") is None


def test_a_status_patch_drops_what_became_zero():
    before = DeploymentStatus(replicas=3, unavailable_replicas=3, terminating_replicas=0)
    after = DeploymentStatus(replicas=3, available_replicas=3, terminating_replicas=0)
    assert deploymentstatus.changes(before, after) == {"availableReplicas": 3, "unavailableReplicas": None}
    assert deploymentstatus.changes(after, after) == {}
