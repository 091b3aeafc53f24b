"""Which service account a pod runs as, and what it gets from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from served_api import CORE, Api, pod

from minikube_raw.apiserver.podaccounts import TOKEN_PATH
from minikube_raw.apiserver.server import APIServer, Options
from minikube_raw.store.sqlite import SQLiteStore

ACCOUNTS = CORE + "serviceaccounts"


async def test_a_pod_runs_as_its_namespaces_default_account(api: Api) -> None:
    made = await api.create(CORE + "pods", pod("p"))

    assert made["spec"]["serviceAccountName"] == made["spec"]["serviceAccount"] == "default"


async def test_a_pod_without_pull_secrets_gets_those_of_its_account(api: Api) -> None:
    await api.create(ACCOUNTS, {"metadata": {"name": "puller"}, "imagePullSecrets": [{"name": "a"}, {"name": "b"}]})

    given = await api.create(CORE + "pods", pod("given", serviceAccountName="puller"))
    own = await api.create(CORE + "pods", pod("own", serviceAccountName="puller", imagePullSecrets=[{"name": "c"}]))

    assert given["spec"]["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
    assert own["spec"]["imagePullSecrets"] == [{"name": "c"}]


async def test_a_pod_of_a_new_namespace_waits_for_its_default_account(api: Api) -> None:
    await api.create("/api/v1/namespaces", {"metadata": {"name": "new"}})

    waiting = asyncio.create_task(api.create("/api/v1/namespaces/new/pods", pod("p")))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    await api.create("/api/v1/namespaces/new/serviceaccounts", {"metadata": {"name": "default"}})

    assert (await waiting)["spec"]["serviceAccountName"] == "default"


async def test_a_pod_whose_default_account_does_not_come_is_refused(api: Api) -> None:
    await api.create("/api/v1/namespaces", {"metadata": {"name": "new"}})

    refused = await api.create("/api/v1/namespaces/new/pods", pod("p"), code=403)

    text = 'pods "p" is forbidden: error looking up service account new/default: serviceaccount "default" not found'
    assert refused["message"] == text


async def test_a_mirror_pod_has_no_account_and_may_ask_for_none(api: Api) -> None:
    def mirror(**spec: object) -> dict[str, object]:
        made = pod("m", nodeName="n1", **spec)
        made["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
        return made

    shown = await api.create(CORE + "pods", mirror())
    asked = await api.create(CORE + "pods", mirror(serviceAccountName="default"), code=403)
    secret = await api.create(CORE + "pods", mirror(volumes=[{"name": "s", "secret": {"secretName": "s"}}]), code=403)

    assert "serviceAccountName" not in shown["spec"]
    assert asked["message"] == 'pods "m" is forbidden: a mirror pod may not reference service accounts'
    assert secret["message"] == 'pods "m" is forbidden: a mirror pod may not reference secrets'


# --- the token ---


@pytest.fixture
async def signing(store: SQLiteStore, keys: tuple[Path, Path]) -> AsyncIterator[Api]:
    """A server that signs tokens."""
    server = APIServer(store, Options(token_keys=keys))
    await server.start()
    yield Api(server)
    await server.stop()


def access(made: dict[str, Any]) -> list[dict[str, Any]]:
    """The volumes through which a pod would reach the API."""
    return [volume for volume in made["spec"].get("volumes", ()) if volume["name"].startswith("kube-api-access-")]


def mounts(made: dict[str, Any]) -> list[list[str]]:
    containers = [*made["spec"].get("initContainers", ()), *made["spec"]["containers"]]
    return [[mount["mountPath"] for mount in container.get("volumeMounts", ())] for container in containers]


async def test_every_container_finds_token_certificate_and_namespace(signing: Api) -> None:
    init = [{"name": "first", "image": "i"}]

    made = await signing.create(CORE + "pods", pod("p", initContainers=init))

    (volume,) = access(made)
    assert volume["projected"] == {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ],
        "defaultMode": 420,
    }
    wanted = {"name": volume["name"], "readOnly": True, "mountPath": TOKEN_PATH}
    assert (
        made["spec"]["containers"][0]["volumeMounts"] == made["spec"]["initContainers"][0]["volumeMounts"] == [wanted]
    )


@pytest.mark.parametrize(
    ("account", "own", "mounted"),
    [(None, None, True), (False, None, False), (False, True, True), (True, False, False), (None, False, False)],
)
async def test_a_pods_own_wish_counts_before_its_accounts(
    signing: Api, account: bool | None, own: bool | None, mounted: bool
) -> None:
    say = {} if account is None else {"automountServiceAccountToken": account}
    await signing.create(ACCOUNTS, {"metadata": {"name": "a"}, **say})
    wish = {} if own is None else {"automountServiceAccountToken": own}

    made = await signing.create(CORE + "pods", pod("p", serviceAccountName="a", **wish))

    assert (bool(access(made)), mounts(made)) == (mounted, [[TOKEN_PATH] if mounted else []])


async def test_what_a_container_mounts_there_itself_stays(signing: Api) -> None:
    mount = [{"name": "mine", "mountPath": TOKEN_PATH}]
    containers = [{"name": "c", "image": "i", "volumeMounts": mount}]
    made = await signing.create(
        CORE + "pods", pod("p", volumes=[{"name": "mine", "emptyDir": {}}], containers=containers)
    )

    assert (access(made), made["spec"]["containers"][0]["volumeMounts"]) == ([], mount)


async def test_a_pod_made_from_anothers_spec_keeps_the_one_volume(signing: Api) -> None:
    first = await signing.create(CORE + "pods", pod("p"))
    first["spec"]["containers"].append({"name": "more", "image": "i"})

    second = await signing.create(CORE + "pods", {"metadata": {"name": "q"}, "spec": first["spec"]})

    assert access(second) == access(first)
    assert mounts(second) == [[TOKEN_PATH], [TOKEN_PATH]]


async def test_a_server_without_a_key_promises_no_token(api: Api) -> None:
    assert access(await api.create(CORE + "pods", pod("p"))) == []
