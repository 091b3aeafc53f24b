"""Deletion by owner and by namespace, and what a namespace is furnished with."""

from __future__ import annotations

import pytest
from simulated import deployment

from minikube_raw.api import scheme
from minikube_raw.api.core import ConfigMap
from minikube_raw.api.meta import PartialObject, condition
from minikube_raw.client.resources import DEPLOYMENTS, NAMESPACES, PODS, SERVICE_ACCOUNTS, resource_of
from minikube_raw.client.rest import Resource

CONFIG_MAPS = resource_of(scheme.CONFIG_MAP)
WHOLE = Resource(scheme.CONFIG_MAP, ConfigMap)


@pytest.fixture
async def cluster(master):
    await master.kubelets.join("n1")
    return master


async def config_map(
    cluster,
    name: str,
    *owners: PartialObject,
    finalizers: list | None = None,
    block: bool = False,
    namespace: str = "default",
):
    references = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": owner.metadata.name,
            "uid": owner.metadata.uid,
            "blockOwnerDeletion": block,
        }
        for owner in owners
    ]
    metadata = {"name": name, "namespace": namespace, "ownerReferences": references, "finalizers": finalizers or []}
    return await cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})


def held(cluster, namespace: str = "default") -> set[str]:
    cache = cluster.informers.of(CONFIG_MAPS).cache.values()
    return {each.metadata.name for each in cache if each.metadata.namespace == namespace} - {"kube-root-ca.crt"}


async def test_deleting_a_deployment_takes_its_replica_sets_and_pods_along(cluster, eventually):
    await cluster.apply(deployment(replicas=2))
    await eventually(cluster.rolled_out)
    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation="Background")
    assert await cluster.gone(DEPLOYMENTS, "web")
    await eventually(lambda: not cluster.sets() and not cluster.pods())


async def test_in_the_foreground_the_owner_goes_last(cluster, eventually):
    await cluster.apply(deployment(replicas=2))
    await eventually(cluster.rolled_out)
    order = []
    cluster.informers.of(DEPLOYMENTS).add_handler(lambda old, new: new is None and order.append("deployment"))
    cluster.informers.of(PODS).add_handler(lambda old, new: new is None and order.append("pod"))
    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation="Foreground")
    await eventually(lambda: "deployment" in order)
    assert order == ["pod", "pod", "deployment"]
    assert not cluster.sets()


async def test_a_foreground_deletion_waits_for_a_blocking_dependent_only(cluster, eventually):
    owner = await config_map(cluster, "owner")
    await config_map(cluster, "blocking", owner, finalizers=["example.com/hold"], block=True)
    await config_map(cluster, "loose", owner, finalizers=["example.com/hold"])
    await eventually(lambda: len(held(cluster)) == 3)
    await cluster.client.delete(CONFIG_MAPS, "owner", "default", propagation="Foreground")

    async def release(name: str) -> None:
        await cluster.client.patch(CONFIG_MAPS, name, {"metadata": {"finalizers": None}}, "default")

    deleting = cluster.informers.of(CONFIG_MAPS)
    await eventually(lambda: deleting.get("default/blocking").metadata.deletion_timestamp)
    assert "owner" in held(cluster)
    await release("blocking")
    await eventually(lambda: held(cluster) == {"loose"})
    await release("loose")
    await eventually(lambda: held(cluster) == set())


async def test_an_object_goes_when_its_last_owner_has_gone(cluster, eventually):
    first, second = await config_map(cluster, "first"), await config_map(cluster, "second")
    await config_map(cluster, "child", first, second)
    await eventually(lambda: len(held(cluster)) == 3)
    await cluster.client.delete(CONFIG_MAPS, "first", "default")
    child = lambda: cluster.informers.of(CONFIG_MAPS).get("default/child")  # noqa: E731
    await eventually(lambda: [owner.name for owner in child().metadata.owner_references] == ["second"])
    await cluster.client.delete(CONFIG_MAPS, "second", "default")
    await eventually(lambda: held(cluster) == set())


async def test_an_owner_that_never_was_counts_as_gone_and_an_unknown_kind_as_there(cluster, eventually):
    owner = await config_map(cluster, "owner")
    wrong = PartialObject(metadata=owner.metadata.__class__(name="owner", uid="00000000-0000-0000-0000-00000000dead"))
    await config_map(cluster, "lost", wrong)
    strange = {
        "apiVersion": "example.com/v1",
        "kind": "Thing",
        "name": "x",
        "uid": "11111111-0000-0000-0000-000000000000",
    }
    await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kept", "namespace": "default", "ownerReferences": [strange]},
        }
    )
    await eventually(lambda: cluster.clock.advance(0.1) or held(cluster) == {"owner", "kept"})


async def test_owners_in_a_circle_can_be_deleted(cluster, eventually):
    one = await config_map(cluster, "one")
    two = await config_map(cluster, "two", one, block=True)
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "two",
        "uid": two.metadata.uid,
        "blockOwnerDeletion": True,
    }
    await cluster.client.patch(CONFIG_MAPS, "one", {"metadata": {"ownerReferences": [reference]}}, "default")
    await eventually(lambda: cluster.informers.of(CONFIG_MAPS).get("default/one").metadata.owner_references)
    await cluster.client.delete(CONFIG_MAPS, "one", "default", propagation="Foreground")
    await eventually(lambda: cluster.clock.advance(0.1) or held(cluster) == set())


async def test_orphans_stay_and_forget_their_owner(cluster, eventually):
    owner = await config_map(cluster, "owner")
    await config_map(cluster, "child", owner)
    await eventually(lambda: len(held(cluster)) == 2)
    await cluster.client.delete(CONFIG_MAPS, "owner", "default", propagation="Orphan")
    await eventually(lambda: held(cluster) == {"child"})
    assert (await cluster.client.get(CONFIG_MAPS, "child", "default")).metadata.owner_references == ()


async def test_a_namespace_is_furnished_and_stays_so(cluster, eventually):
    await cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}})
    accounts, maps = cluster.informers.of(SERVICE_ACCOUNTS), cluster.informers.of(CONFIG_MAPS)
    await eventually(lambda: accounts.get("new/default") and maps.get("new/kube-root-ca.crt"))
    assert (await cluster.client.get(WHOLE, "kube-root-ca.crt", "new")).data == {"ca.crt": "CERTIFICATE"}
    uid = accounts.get("new/default").metadata.uid
    await cluster.client.delete(SERVICE_ACCOUNTS, "default", "new")
    forged = await cluster.client.patch(WHOLE, "kube-root-ca.crt", {"data": {"ca.crt": "forged"}}, "new")
    await eventually(lambda: accounts.get("new/default") and accounts.get("new/default").metadata.uid != uid)
    after = int(forged.metadata.resource_version)
    await eventually(lambda: int(maps.get("new/kube-root-ca.crt").metadata.resource_version) > after)
    assert (await cluster.client.get(WHOLE, "kube-root-ca.crt", "new")).data == {"ca.crt": "CERTIFICATE"}


async def test_a_namespace_goes_with_all_it_holds_and_says_what_keeps_it(cluster, eventually):
    await cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "old"}})
    await eventually(lambda: cluster.informers.of(SERVICE_ACCOUNTS).get("old/default"))
    body = deployment(replicas=2)
    body["metadata"]["namespace"] = "old"
    await cluster.apply(body)
    await config_map(cluster, "held", finalizers=["example.com/hold"], namespace="old")
    await eventually(lambda: len(cluster.pods("old")) == 2)
    await cluster.client.delete(NAMESPACES, "old")
    namespaces = cluster.informers.of(NAMESPACES)

    def remaining():
        cluster.clock.advance(0.2)
        found = condition(namespaces.get("old").status.conditions, "NamespaceContentRemaining")
        return found and found.message == "Some resources are remaining: configmaps has 1 resource instances" and found

    await eventually(remaining)
    conditions = namespaces.get("old").status.conditions
    assert condition(conditions, "NamespaceFinalizersRemaining").message == (
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    )
    assert condition(conditions, "NamespaceDeletionDiscoveryFailure").status == "False"
    await cluster.client.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, "old")
    await eventually(lambda: cluster.clock.advance(0.2) or namespaces.get("old") is None)
    assert not cluster.pods("old")
    assert held(cluster, "old") == set()
