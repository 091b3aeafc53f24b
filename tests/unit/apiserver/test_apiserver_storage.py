"""PersistentVolumes, claims and StorageClasses: who gets which class, what columns show, what nodes may see."""

from __future__ import annotations

from typing import Any

from served_api import CORE, Api, claim, pod, storage_class, volume

CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
VOLUMES = "/api/v1/persistentvolumes"
CLAIMS = CORE + "persistentvolumeclaims"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


async def row(api: Api, path: str) -> list[Any]:
    table = await api.get(path, accept=TABLE)
    names = [column["name"] for column in table["columnDefinitions"]]
    cells: list[Any] = table["rows"][0]["cells"]
    assert len(cells) == len(names)
    return [cell for name, cell in zip(names, cells, strict=True) if name != "Age"]


async def test_a_claim_without_a_class_gets_the_default_class(api: Api) -> None:
    standard = await api.create(CLAIMS, claim("standard"))
    await api.delete(CLASSES + "/standard")
    before = await api.create(CLAIMS, claim("before"))
    for name in ("b", "a"):
        await api.create(CLASSES, storage_class(name, "x.y/z", default=True))
    await api.create(CLASSES, storage_class("other", "x.y/z"))

    given = await api.create(CLAIMS, claim("given"))
    asked_none = await api.create(CLAIMS, claim("none", storageClassName=""))
    annotated = claim("annotated")
    annotated["metadata"]["annotations"] = {"volume.beta.kubernetes.io/storage-class": "other"}
    annotated = await api.create(CLAIMS, annotated)

    assert standard["spec"]["storageClassName"] == "standard"
    assert "storageClassName" not in before["spec"]
    assert given["spec"]["storageClassName"] == "a"
    assert asked_none["spec"]["storageClassName"] == ""
    assert "storageClassName" not in annotated["spec"]


async def test_volumes_and_claims_are_protected_from_their_first_moment(api: Api) -> None:
    made = [await api.create(CLAIMS, claim("c")), await api.create(VOLUMES, volume("v"))]

    assert [obj["metadata"]["finalizers"] for obj in made] == [
        ["kubernetes.io/pvc-protection"],
        ["kubernetes.io/pv-protection"],
    ]
    assert "finalizers" not in str([obj["metadata"]["managedFields"] for obj in made])


async def test_columns_are_those_of_kubernetes(api: Api) -> None:
    reference = {"namespace": "default", "name": "c"}
    modes = ["ReadOnlyMany", "ReadWriteOnce"]
    await api.create(VOLUMES, volume("v", "5Gi", accessModes=modes, claimRef=reference, storageClassName="s"))
    await api.create(CLAIMS, claim("c", volumeName="v", storageClassName="s"))
    status = {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"}}
    await api.patch(CLAIMS + "/c/status", {"status": status})
    await api.create(CLASSES, storage_class("s", "x.y/z", default=True, allowVolumeExpansion=True))

    assert await row(api, VOLUMES + "/v") == [
        "v", "5Gi", "RWO,ROX", "Retain", "Pending", "default/c", "s", "<unset>", "", "Filesystem"
    ]  # fmt: skip
    assert await row(api, CLAIMS + "/c") == ["c", "Bound", "v", "5Gi", "RWO", "s", "<unset>", "Filesystem"]
    assert await row(api, CLASSES + "/s") == ["s (default)", "x.y/z", "Delete", "Immediate", True]


async def test_a_volume_says_when_its_phase_last_changed(api: Api) -> None:
    made = await api.create(VOLUMES, volume("v"))
    path = VOLUMES + "/v/status"

    explicit = await api.patch(
        path, {"status": {"phase": "Available", "lastPhaseTransitionTime": "2001-01-01T00:00:00Z"}}
    )
    same = await api.patch(path, {"status": {"message": "x"}})
    changed = await api.patch(path, {"status": {"phase": "Bound"}})

    assert made["status"]["lastPhaseTransitionTime"] == made["metadata"]["creationTimestamp"]
    assert explicit["status"]["lastPhaseTransitionTime"] == "2001-01-01T00:00:00Z"
    assert same["status"]["lastPhaseTransitionTime"] == "2001-01-01T00:00:00Z"
    assert changed["status"]["lastPhaseTransitionTime"] > "2001-01-01T00:00:00Z"


async def test_a_bound_claim_may_grow_and_not_shrink_below_what_it_has(api: Api) -> None:
    await api.create(CLAIMS, claim("c", "2Gi", volumeName="v"))
    await api.patch(CLAIMS + "/c/status", {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}})

    async def resize(size: str, code: int = 200) -> Any:
        return await api.patch(CLAIMS + "/c", {"spec": {"resources": {"requests": {"storage": size}}}}, code)

    await resize("3Gi")
    await resize("2Gi")
    refused = await resize("1Gi", 422)
    assert refused["message"].endswith(
        "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
    )


async def test_a_node_gets_the_claims_and_volumes_of_its_pods(api: Api) -> None:
    node = api.as_user("system:node:n1", "system:nodes")
    for name in ("used", "p-own", "unused"):
        await api.create(CLAIMS, claim(name, volumeName=name))
        await api.create(VOLUMES, volume(name, claimRef={"namespace": "default", "name": name}))
    await api.create(VOLUMES, volume("free"))
    template = {"spec": claim("")["spec"]}
    volumes = [
        {"name": "v", "persistentVolumeClaim": {"claimName": "used"}},
        {"name": "own", "ephemeral": {"volumeClaimTemplate": template}},
    ]
    await api.create(CORE + "pods", pod("p", nodeName="n1", volumes=volumes))

    for name in ("used", "p-own"):
        await node.get(f"{CLAIMS}/{name}")
        await node.get(f"{VOLUMES}/{name}")
    for path in (f"{CLAIMS}/unused", f"{VOLUMES}/unused", f"{VOLUMES}/free"):
        refused = await node.get(path, code=403)
        assert refused["message"].endswith("no relationship found between node 'n1' and this object")
    assert len((await node.get(CLAIMS + "?fieldSelector=metadata.name%3Dused"))["items"]) == 1
    for selector in ("", "?fieldSelector=metadata.name%3Dunused"):
        await node.get(CLAIMS + selector, code=403)


async def test_a_node_follows_the_volumes_of_its_directories_and_lets_them_go(api: Api) -> None:
    node = api.as_user("system:node:n1", "system:nodes")
    for name, owner in (("mine", "n1"), ("other", "n2")):
        made = volume(name)
        made["metadata"] |= {"labels": {"minikube-raw.io/node": owner}, "finalizers": ["minikube-raw.io/local-data"]}
        await api.create(VOLUMES, made)
    let_go = {"metadata": {"finalizers": ["kubernetes.io/pv-protection"]}}

    listed = await node.get(VOLUMES + "?labelSelector=minikube-raw.io/node%3Dn1")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["mine"]
    await node.patch(f"{VOLUMES}/mine", let_go)

    for selector in ("", "?labelSelector=minikube-raw.io/node%3Dn2", "?labelSelector=minikube-raw.io/node"):
        await node.get(VOLUMES + selector, code=403)
    change = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    for path, patch in ((f"{VOLUMES}/other", let_go), (f"{VOLUMES}/mine", change)):
        refused = await node.patch(path, patch, code=403)
        assert refused["message"].endswith(
            "can only change the finalizers of volumes that were made from its own directories"
        )
    await node.delete(f"{VOLUMES}/mine", code=403)
