"""Who is let in, what nodes may do, and the words of refusals."""

from __future__ import annotations

import pytest
from served_api import APPS, CORE, MERGE, Api, config_map, pod

from minikube_raw.api.status import StatusError
from minikube_raw.apiserver import auth

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
SUBJECT = {"subject": ((("organizationName", "system:nodes"),), (("commonName", "system:node:n1"),))}


@pytest.fixture
def node(api: Api) -> Api:
    return api.as_user("system:node:n1", "system:nodes")


def test_a_certificate_names_user_and_groups() -> None:
    user = auth.from_certificate(SUBJECT)

    assert user is not None
    assert (user.name, user.node_name, "system:authenticated" in user.groups) == ("system:node:n1", "n1", True)


@pytest.mark.parametrize("path", ["/api", "/api/v1/pods", "/nope", "/metrics"])
@pytest.mark.parametrize("authorization", ["", "Bearer unknown", "Basic YTpi"])
def test_a_client_without_identity_is_unauthorized(path: str, authorization: str) -> None:
    with pytest.raises(StatusError) as refusal:
        auth.authenticate({}, authorization, path, lambda token: None)
    assert (refusal.value.code, refusal.value.reason) == (401, "Unauthorized")


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/version", "/readyz/ping"])
def test_health_and_version_are_for_everybody(path: str) -> None:
    assert auth.authenticate(None, "", path, lambda token: None) == auth.ANONYMOUS


@pytest.mark.parametrize(
    ("method", "path", "subject", "action"),
    [
        ("GET", "/api/v1/pods", "pods", 'list resource "pods" in API group "" at the cluster scope'),
        ("GET", CORE + "pods/x/log", 'pods "x"', 'get resource "pods/log" in API group "" in the namespace "default"'),
        ("DELETE", CORE + "pods", "pods", 'deletecollection resource "pods" in API group "" in the namespace "default"'),
        ("GET", APPS + "deployments", "deployments.apps", 'list resource "deployments" in API group "apps" in the namespace "default"'),
    ],
)  # fmt: skip
async def test_a_refusal_says_who_may_not_do_what(api: Api, method: str, path: str, subject: str, action: str) -> None:
    response, answer = await api.as_user("jane").send(method, path)

    assert response.code == 403
    assert answer["message"] == f'{subject} is forbidden: User "jane" cannot {action}'


async def test_a_path_that_is_no_resource_is_refused_by_its_name(api: Api) -> None:
    answer = await api.as_user("jane").get("/metrics", code=403)

    assert answer["message"] == 'forbidden: User "jane" cannot get path "/metrics"'


async def test_everybody_known_may_ask_what_they_may(api: Api) -> None:
    review = {"spec": {"resourceAttributes": {"verb": "delete", "resource": "pods", "namespace": "default"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

    assert (await api.create(path, review))["status"]["allowed"] is True
    assert (await api.as_user("jane").create(path, review))["status"]["allowed"] is False
    await api.as_user("jane").get("/api")


async def test_a_node_writes_its_own_node_only(api: Api, node: Api) -> None:
    await node.create("/api/v1/nodes", {"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}}})
    await api.create("/api/v1/nodes", {"metadata": {"name": "n2"}})
    await node.patch("/api/v1/nodes/n1/status", {"status": {"capacity": {"cpu": "1"}}})

    foreign = await node.patch("/api/v1/nodes/n2/status", {"status": {}}, code=403)
    taints = await node.patch(
        "/api/v1/nodes/n1", {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}, code=403
    )
    label = {"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}}
    labels = await node.patch("/api/v1/nodes/n1", label, code=403)

    assert foreign["message"] == 'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"'
    assert taints["message"] == 'nodes "n1" is forbidden: node "n1" is not allowed to modify taints'
    assert labels["message"].endswith("is not allowed to modify labels: node-restriction.kubernetes.io/x")
    await node.delete("/api/v1/nodes/n1", code=403)


async def test_a_node_sees_and_reports_its_own_pods_only(api: Api, node: Api) -> None:
    await api.create(CORE + "pods", pod("mine", nodeName="n1"))
    await api.create(CORE + "pods", pod("other", nodeName="n2"))

    assert len((await node.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1"))["items"]) == 1
    await node.patch(CORE + "pods/mine/status", {"status": {"phase": "Running"}})
    listed = await node.get("/api/v1/pods", code=403)
    reported = await node.patch(CORE + "pods/other/status", {"status": {"phase": "Running"}}, code=403)

    assert listed["message"].endswith("can only list/watch pods with spec.nodeName field selector")
    assert "can only update pod status for pods with spec.nodeName set to itself" in reported["message"]
    await node.get(CORE + "pods/mine")
    await node.get(CORE + "pods/mine/exec?command=sh&stdout=1", code=403)
    await node.get(CORE + "pods/other", code=403)
    await node.delete(CORE + "pods/other", code=403)
    await node.delete(CORE + "pods/mine", options={"gracePeriodSeconds": 0})


async def test_a_node_reads_the_secrets_its_pods_use(api: Api, node: Api) -> None:
    for name in ("used", "unused"):
        await api.create(CORE + "secrets", {"metadata": {"name": name}})
        await api.create(CORE + "configmaps", config_map(name))
    volumes = [{"name": "v", "secret": {"secretName": "used"}}, {"name": "w", "configMap": {"name": "used"}}]
    await api.create(CORE + "pods", pod("p", nodeName="n1", volumes=volumes))

    for kind in ("secrets", "configmaps"):
        await node.get(f"{CORE}{kind}/used")
        refused = await node.get(f"{CORE}{kind}/unused", code=403)
        assert refused["message"].endswith("no relationship found between node 'n1' and this object")
        await node.get(f"{CORE}{kind}", code=403)
    await api.delete(CORE + "pods/p", options={"gracePeriodSeconds": 0})
    await node.get(CORE + "secrets/used", code=403)


async def test_a_node_holds_its_own_lease_only(node: Api) -> None:
    await node.create(LEASES, {"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}})
    await node.patch(f"{LEASES}/n1", {"spec": {"leaseDurationSeconds": 40}})

    await node.create(LEASES, {"metadata": {"name": "n2"}}, code=403)
    await node.get(f"{LEASES}/n2", code=403)
    await node.get("/apis/coordination.k8s.io/v1/namespaces/default/leases/n1", code=403)


async def test_components_in_process_may_do_everything(api: Api) -> None:
    scheduler = api.as_user("system:kube-scheduler")

    response, _ = await scheduler.send("PATCH", CORE + "pods/nope", {}, {"Content-Type": MERGE})

    assert response.code == 404
