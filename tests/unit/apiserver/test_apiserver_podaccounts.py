"""Which service account a pod runs as, and what it gets from it."""

from __future__ import annotations

import asyncio

from served_api import CORE, Api, pod

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
