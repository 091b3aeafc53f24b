"""What test_node_volumes.py asks a cluster for: objects, and a few pods with every volume the conformance suite names."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
KINDS = ("configMap", "secret", "projected configMap", "projected secret")
TREE = {"key": "data-2", "path": "path/to/data-2"}
FIELDS = {"podname": "metadata.name", "labels": "metadata.labels", "annotations": "metadata.annotations"}
UID, GROUP = 1000, 1001
MODES = ("0644", "0666", "0777")
MEDIA = {"default": {}, "tmpfs": {"medium": "Memory"}}


def source(kind: str, name: str, **more: Any) -> Json:
    """A volume source of one of KINDS."""
    mode = {"defaultMode": more.pop("defaultMode")} if "defaultMode" in more else {}
    bare = kind.removeprefix("projected ")
    key = "secretName" if kind == "secret" else "name"
    inner = {bare: {key: name, **more}}
    return {"projected": {"sources": [inner], **mode}} if kind != bare else {bare: {**inner[bare], **mode}}


def volumes_of(kind: str) -> dict[str, Json]:
    """Every shape in which a volume of one kind is consumed, by a short name."""
    short = short_name(kind)
    return {
        f"{short}-plain": source(kind, "data"),
        f"{short}-mode": source(kind, "data", defaultMode=0o400),
        f"{short}-map": source(kind, "data", items=[TREE]),
        f"{short}-mapmode": source(kind, "data", items=[{**TREE, "mode": 0o400}]),
        f"{short}-again": source(kind, "data"),
        f"{short}-changes": source(kind, "changes"),
        f"{short}-gone": source(kind, "gone", optional=True),
        f"{short}-comes": source(kind, "comes", optional=True),
        f"{short}-fixed": source(kind, "fixed"),
    }


def short_name(kind: str) -> str:
    """configMap → configmap, projected secret → pr-secret."""
    return kind.replace("projected ", "pr-").lower()


def downward(*, projected: bool) -> dict[str, Json]:
    """Volumes that tell a pod about itself."""
    items = [{"path": name, "fieldRef": {"fieldPath": path}} for name, path in FIELDS.items()]
    prefix = "pr-" if projected else ""

    def volume(items: list[Json], **mode: int) -> Json:
        return (
            {"projected": {"sources": [{"downwardAPI": {"items": items}}], **mode}}
            if projected
            else {"downwardAPI": {"items": items, **mode}}
        )

    return {
        f"{prefix}down": volume(items),
        f"{prefix}down-mode": volume(items[:1], defaultMode=0o400),
        f"{prefix}down-itemmode": volume([{**items[0], "mode": 0o400}]),
    }


def combined() -> Json:
    """All kinds of sources in one directory."""
    item = {"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}}
    named = {"name": "data", "items": [{"key": "data-1", "path": "from-config"}]}
    hidden = {"name": "data", "items": [{"key": "data-1", "path": "from-secret"}]}
    return {"projected": {"sources": [{"configMap": named}, {"secret": hidden}, {"downwardAPI": {"items": [item]}}]}}


def pod(name: str, volumes: dict[str, Json], command: str = "exec sleep 3600", **more: Any) -> Json:
    """A pod of one container that has each volume at /v/NAME, unless `mounts` says otherwise."""
    mounts = more.pop("mounts", [{"name": each, "mountPath": f"/v/{each}"} for each in volumes])
    container = {
        "name": "c",
        "image": "busybox",
        "command": ["sh", "-c", command],
        "volumeMounts": mounts,
        "env": more.pop("env", []),
        "envFrom": more.pop("envFrom", []),
    }
    metadata = {
        "name": name,
        "labels": {"key1": "value1"},
        "annotations": {"builder": "bar", **more.pop("annotations", {})},
    }
    wanted = [{"name": each, **volume} for each, volume in volumes.items()]
    spec = {"containers": [container], "volumes": wanted, "terminationGracePeriodSeconds": 0, **more}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def objects() -> list[Json]:
    """ConfigMaps and Secrets of the same names and keys."""
    data = {"data-1": "value-1", "data-2": "value-2"}
    made: list[Json] = []
    for name in ("data", "changes", "gone", "fixed"):
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
        immutable = {"immutable": True} if name == "fixed" else {}
        made += [config | immutable, secret | immutable]
    made[0]["binaryData"] = {"bytes": "3sr+utD+//8="}
    return made


def write(mode: str, place: str) -> str:
    """A shell command that writes a file with a mode and says what it is."""
    file = f"/v/{place}/test-file"
    return f"umask 0; echo mount-tester > {file}; chmod {mode} {file}; stat -c %a,%u {file}; cat {file}"


def pods() -> list[Json]:
    """Every pod of the file; all of them start at once."""
    everything = {name: each for kind in KINDS for name, each in volumes_of(kind).items()}
    everything |= downward(projected=False) | downward(projected=True) | {"combined": combined()}
    everything |= {medium: {"emptyDir": each} for medium, each in MEDIA.items()}
    fewer = {name: everything[name] for name in everything if name.endswith(("-plain", "-map", "default", "tmpfs"))}
    modes = {short_name(kind): source(kind, "data", defaultMode=0o440) for kind in KINDS}
    variables = [
        {"name": "FROM_CONFIG", "valueFrom": {"configMapKeyRef": {"name": "data", "key": "data-1"}}},
        {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "data", "key": "data-1"}}},
    ]
    whole = [{"prefix": "c_", "configMapRef": {"name": "data"}}, {"prefix": "s_", "secretRef": {"name": "data"}}]
    return [
        pod("root", everything, env=variables, envFrom=whole),
        pod("user", fewer, securityContext={"runAsUser": UID}),
        pod("group", modes, securityContext={"runAsUser": UID, "fsGroup": GROUP}),
        *sub_path_pods(),
        *expansion_pods(),
        sharing_pod(),
    ]


def sub_path_pods() -> list[Json]:
    """One pod per kind would say no more than one with each as a part of a volume."""
    volumes = {
        "config": source("configMap", "data"),
        "hidden": source("secret", "data"),
        "both": combined(),
        "down": downward(projected=False)["down"],
    }
    mounts = [
        {"name": "config", "mountPath": "/v/config", "subPath": "data-1"},
        {"name": "config", "mountPath": "/etc/passwd", "subPath": "data-2"},
        {"name": "hidden", "mountPath": "/v/hidden", "subPath": "data-1"},
        {"name": "both", "mountPath": "/v/both", "subPath": "from-secret"},
        {"name": "down", "mountPath": "/v/down", "subPath": "podname"},
    ]
    return [pod("subpath", volumes, mounts=mounts)]


def expansion_pods() -> list[Json]:
    """subPathExpr: one that works, two that never can, one that can once the pod has an annotation."""
    volume: dict[str, Json] = {"work": {"emptyDir": {}}}
    whole = {"name": "work", "mountPath": "/whole"}

    def part(expression: str) -> list[Json]:
        return [{"name": "work", "mountPath": "/part", "subPathExpr": expression}, whole]

    name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    note = {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['mysubpath']"}}}
    script = "echo test > /part/test.log; exec sleep 3600"
    return [
        pod("expands", volume, script, mounts=part("$(POD_NAME)"), env=[name]),
        pod("backsteps", volume, mounts=part("$(POD_NAME)"), env=[{"name": "POD_NAME", "value": ".."}]),
        pod("absolute", volume, mounts=part("$(POD_NAME)"), env=[{"name": "POD_NAME", "value": "/tmp"}]),
        pod("later", volume, script, mounts=part("$(NOTE)/$(POD_NAME)"), env=[name, note]),
    ]


def sharing_pod() -> Json:
    """Two containers that share an emptyDir."""
    shared = pod("sharing", {"shared": {"emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}})
    first = shared["spec"]["containers"][0]
    writer = {
        **first,
        "name": "w",
        "command": ["sh", "-c", "echo Hello from the busy-box > /v/shared/file; exec sleep 3600"],
    }
    shared["spec"]["containers"].append(writer)
    return shared
