"""The pods whose containers are compared: each changes a field or two of securityContext, volumes, resources or the pod itself.

A row is a name, changes of the pod's spec and changes of its only container; `{host}` stands for a directory of the test.
"""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

from profiles import PROFILES

Json = dict[str, Any]


class Variation(NamedTuple):
    """One row."""

    name: str
    container: Json
    spec: Json = {}  # noqa: RUF012 -- never changed


def secure(name: str, container: Json | None = None, pod: Json | None = None) -> Variation:
    """A row about securityContext, the container's and the pod's."""
    spec = {"securityContext": pod} if pod is not None else {}
    return Variation(name, {"securityContext": container} if container is not None else {}, spec)


def volume(name: str, source: Json, mount: Json | None = None, **more: Any) -> Variation:
    """A row about one volume, mounted at /v."""
    container: Json = {"volumeMounts": [{"name": "v", "mountPath": "/v", **(mount or {})}]}
    container |= {field: more[field] for field in ("securityContext", "env") if field in more}
    return Variation(name, container, {"volumes": [{"name": "v", **source}], **more.get("spec", {})})


def resources(name: str, **amounts: Json) -> Variation:
    """A row about requests and limits."""
    return Variation(name, {"resources": amounts})


FIELDS = {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}
MODES = {"items": [{"path": "name", "mode": 0o400, "fieldRef": {"fieldPath": "metadata.name"}}], "defaultMode": 0o640}

# Given beside every pod: what volumes and variables may refer to.
OBJECTS: list[Json] = [
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1", "b": "two\n"}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "data": {"key": "c2VjcmV0"}},
]
ALL_SOURCES = [
    {"configMap": {"name": "settings"}},
    {"secret": {"name": "keys", "items": [{"key": "key", "path": "deep/key", "mode": 0o400}]}},
    {"downwardAPI": FIELDS},
]

SECURITY = [
    Variation("plain", {}),
    secure("user", {"runAsUser": 1000}),
    secure("user-unknown", {"runAsUser": 4711}),
    secure("user-and-group", {"runAsUser": 1000, "runAsGroup": 3000}),
    secure("group-of-the-pod", None, {"runAsUser": 1000, "runAsGroup": 3000}),
    secure("non-root", {"runAsNonRoot": True, "runAsUser": 1000}),
    secure("container-over-pod", {"runAsUser": 1001}, {"runAsUser": 1000}),
    secure("supplemental-groups", None, {"supplementalGroups": [4000, 5000]}),
    secure("supplemental-groups-of-a-user", {"runAsUser": 1000}, {"supplementalGroups": [4000]}),
    secure(
        "strict-groups",
        {"runAsUser": 1000},
        {"supplementalGroups": [4000], "supplementalGroupsPolicy": "Strict"},
    ),
    secure("fs-group", None, {"fsGroup": 2000}),
    secure("root-with-a-group", {"runAsUser": 0, "runAsGroup": 5}),
    secure("drop-all", {"capabilities": {"drop": ["ALL"]}}),
    secure("drop-all-add-one", {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}),
    secure("add-net-admin", {"capabilities": {"add": ["NET_ADMIN", "SYS_TIME"]}}),
    secure("add-sys-admin", {"capabilities": {"add": ["SYS_ADMIN"]}}),
    secure("add-all", {"capabilities": {"add": ["ALL"]}}),
    secure("add-all-drop-one", {"capabilities": {"add": ["ALL"], "drop": ["CHOWN"]}}),
    secure("add-ptrace", {"capabilities": {"add": ["SYS_PTRACE"]}}),
    secure("user-with-added-capability", {"runAsUser": 1000, "capabilities": {"add": ["NET_ADMIN"]}}),
    secure("user-drop-all", {"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}}),
    secure("privileged", {"privileged": True}),
    secure("privileged-user", {"privileged": True, "runAsUser": 1000}),
    secure("privileged-read-only-root", {"privileged": True, "readOnlyRootFilesystem": True}),
    secure("no-escalation", {"allowPrivilegeEscalation": False}),
    secure("no-escalation-user", {"allowPrivilegeEscalation": False, "runAsUser": 1000}),
    secure("read-only-root", {"readOnlyRootFilesystem": True}),
    secure("read-only-root-user", {"readOnlyRootFilesystem": True, "runAsUser": 1000}),
    secure(
        "restricted",
        {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    ),
    secure("unconfined", {"seccompProfile": {"type": "Unconfined"}}),
    secure("runtime-default", {"seccompProfile": {"type": "RuntimeDefault"}}),
    secure("runtime-default-of-the-pod", None, {"seccompProfile": {"type": "RuntimeDefault"}}),
    secure(
        "runtime-default-sys-admin",
        {"seccompProfile": {"type": "RuntimeDefault"}, "capabilities": {"add": ["SYS_ADMIN", "SYS_CHROOT"]}},
    ),
    secure("runtime-default-user", {"seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 1000}),
    secure("unmasked-proc", {"procMount": "Unmasked"}),
    secure("sysctl-net", None, {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "1024"}]}),
    secure("sysctl-kernel", None, {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}),
]

POD = [
    Variation("host-network", {}, {"hostNetwork": True}),
    Variation("host-pid", {}, {"hostPID": True}),
    Variation("host-ipc", {}, {"hostIPC": True}),
    Variation("host-everything", {}, {"hostNetwork": True, "hostPID": True, "hostIPC": True}),
    Variation("shared-pids", {}, {"shareProcessNamespace": True}),
    Variation("hostname", {}, {"hostname": "named", "subdomain": "sub"}),
    Variation("host-aliases", {}, {"hostAliases": [{"ip": "10.9.9.9", "hostnames": ["far", "away"]}]}),
    Variation("dns-none", {}, {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.9.9.9"], "searches": ["far"]}}),
    Variation("environment", {"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "$(B)-x y"}]}),
    Variation(
        "environment-of-objects",
        {
            "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "P_"}],
            "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}}],
        },
    ),
    Variation("environment-path", {"env": [{"name": "PATH", "value": "/bin:/x"}, {"name": "HOME", "value": "/tmp"}]}),
    Variation("working-directory", {"workingDir": "/work/dir"}),
    Variation("working-directory-of-user", {"workingDir": "/work/dir", "securityContext": {"runAsUser": 1000}}),
    Variation("arguments", {"args": ["one", "two words", "$(HOSTNAME)"]}),
    Variation("image-user", {"image": "probe-user:1"}),
    Variation("image-user-overridden", {"image": "probe-user:1", "securityContext": {"runAsUser": 0}}),
    Variation("stdin", {"stdin": True}),
    Variation("terminal", {"tty": True, "stdin": True}),
    Variation("terminal-user", {"tty": True, "stdin": True, "securityContext": {"runAsUser": 1000}}),
    Variation("no-service-links", {}, {"enableServiceLinks": False, "automountServiceAccountToken": False}),
]

VOLUMES = [
    volume("empty-dir", {"emptyDir": {}}),
    volume("empty-dir-read-only", {"emptyDir": {}}, {"readOnly": True}),
    volume("empty-dir-memory", {"emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}}),
    volume("empty-dir-fs-group", {"emptyDir": {}}, spec={"securityContext": {"fsGroup": 2000, "runAsUser": 1000}}),
    volume("host-path", {"hostPath": {"path": "{host}/directory", "type": "Directory"}}),
    volume("host-path-read-only", {"hostPath": {"path": "{host}/directory"}}, {"readOnly": True}),
    volume("host-path-file", {"hostPath": {"path": "{host}/file", "type": "File"}}, {"mountPath": "/srv/file"}),
    volume("host-path-of-a-user", {"hostPath": {"path": "{host}/directory"}}, securityContext={"runAsUser": 1000}),
    volume("host-path-shm", {"hostPath": {"path": "{host}/directory"}}, {"mountPath": "/dev/shm"}),
    volume("propagation-in", {"hostPath": {"path": "{host}/shared"}}, {"mountPropagation": "HostToContainer"}),
    volume(
        "propagation-both",
        {"hostPath": {"path": "{host}/shared"}},
        {"mountPropagation": "Bidirectional"},
        securityContext={"privileged": True},
    ),
    volume("sub-path", {"hostPath": {"path": "{host}/directory"}}, {"subPath": "below"}),
    volume(
        "sub-path-file", {"hostPath": {"path": "{host}/directory"}}, {"subPath": "below/file", "mountPath": "/etc/file"}
    ),
    volume("downward", {"downwardAPI": FIELDS}),
    volume("downward-modes", {"downwardAPI": MODES}),
    volume("projected", {"projected": {"sources": [{"downwardAPI": FIELDS}]}}),
    volume("config-map", {"configMap": {"name": "settings"}}),
    volume("config-map-item", {"configMap": {"name": "settings"}}, {"subPath": "a", "mountPath": "/etc/file"}),
    volume("secret", {"secret": {"secretName": "keys", "defaultMode": 0o440}}, securityContext={"runAsUser": 1000}),
    volume("secret-fs-group", {"secret": {"secretName": "keys"}}, spec={"securityContext": {"fsGroup": 2000}}),
    volume("projected-all", {"projected": {"sources": ALL_SOURCES, "defaultMode": 0o444}}),
    volume(
        "read-only-recursive",
        {"hostPath": {"path": "{host}/directory"}},
        {"readOnly": True, "recursiveReadOnly": "Enabled"},
    ),
    volume(
        "sub-path-expression", {"emptyDir": {}}, {"subPathExpr": "at-$(NODE)"}, env=[{"name": "NODE", "value": "n1"}]
    ),
    volume("over-etc", {"emptyDir": {}}, {"mountPath": "/etc"}),
    volume("image", {"image": {"reference": "probe:1", "pullPolicy": "IfNotPresent"}}),
    Variation(
        "nested",
        {"volumeMounts": [{"name": "b", "mountPath": "/v/below"}, {"name": "a", "mountPath": "/v"}]},
        {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}]},
    ),
]

RESOURCES = [
    resources("cpu-limit", limits={"cpu": "250m"}),
    resources("cpu-request", requests={"cpu": "100m"}),
    resources("cpu-request-least", requests={"cpu": "1m"}),
    resources("cpu-request-most", requests={"cpu": "300"}),
    resources("memory-limit", limits={"memory": "64Mi"}),
    resources("memory-request", requests={"memory": "32Mi"}),
    resources("huge-pages", limits={"memory": "32Mi", "hugepages-2Mi": "4Mi"}),
    resources("guaranteed", limits={"cpu": "100m", "memory": "64Mi"}),
    resources("burstable", requests={"cpu": "50m", "memory": "16Mi"}, limits={"cpu": "1", "memory": "128Mi"}),
    Variation("pod-resources", {}, {"resources": {"limits": {"cpu": "500m", "memory": "128Mi"}}}),
]

SECCOMP = [
    secure(f"seccomp-{name}", {"seccompProfile": {"type": "Localhost", "localhostProfile": f"deep/{name}.json"}})
    for name in PROFILES
]

ALL = {pod.name: pod for pod in (*SECURITY, *SECCOMP, *POD, *VOLUMES, *RESOURCES)}


def manifest(variation: Variation, host: str) -> Json:
    """The pod of a row."""
    container = {"name": "c", "image": "probe:1", "command": ["/probe"], **copy.deepcopy(variation.container)}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2, **copy.deepcopy(variation.spec)}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": variation.name, "namespace": "default"},
        "spec": {**spec, "containers": [container]},
    }
    placed: Json = json.loads(json.dumps(pod).replace("{host}", host))
    return placed
