"""Security contexts and sysctls as Kubernetes' conformance suite asks for them (sig-node: Security Context, Sysctls), and more."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.waiting import until
from tests.clusters import Cluster

pytestmark = pytest.mark.root
Apply = Callable[..., str]


def pod(name: str, script: str, own: dict[str, Any] | None = None, **spec: Any) -> str:
    mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in spec.get("volumes", ())]
    container = {
        "name": "c",
        "image": "busybox",
        "command": ["sh", "-c", script],
        "securityContext": own or {},
        "volumeMounts": mounts,
    }
    wish = {"restartPolicy": "Never", "containers": [container], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": wish})


IDENTITY = "echo $(id -u) $(id -g)"
PODS = {
    "uid": pod("uid", IDENTITY, {"runAsUser": 65534}),
    "unprivileged": pod("unprivileged", "ip link add x type veth peer name y || echo refused", {"privileged": False}),
    "privileged": pod("privileged", "ip link add x type veth peer name y && echo made", {"privileged": True}),
    "writable": pod("writable", "touch /file && echo written", {"readOnlyRootFilesystem": False}),
    "readonly": pod("readonly", "touch /file || echo refused", {"readOnlyRootFilesystem": True}),
    "own-ids": pod("own-ids", IDENTITY, {"runAsUser": 1001, "runAsGroup": 2002}),
    "pod-ids": pod("pod-ids", IDENTITY, securityContext={"runAsUser": 1001, "runAsGroup": 2002}),
    "no-growth": pod(
        "no-growth", "grep NoNewPrivs /proc/self/status", {"runAsUser": 1000, "allowPrivilegeEscalation": False}
    ),
    "growth": pod("growth", "grep NoNewPrivs /proc/self/status", {"runAsUser": 1000}),
    "sysctl": pod(
        "sysctl",
        "cat /proc/sys/kernel/shm_rmid_forced",
        securityContext={"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]},
    ),
    "seccomp-default": pod("seccomp-default", "grep Seccomp: /proc/self/status"),
    "seccomp-none": pod(
        "seccomp-none", "grep Seccomp: /proc/self/status", {"seccompProfile": {"type": "Unconfined"}}
    ),
    "users": pod(
        "users",
        "id -u; [ $(awk '{print $2}' /proc/self/uid_map) -gt 65535 ] && echo mapped; echo x > /v/f; "
        "stat -c %u:%g /v/f; ping -c1 127.0.0.1 | grep -c '1 packets received'",
        None,
        hostUsers=False,
        securityContext={"fsGroup": 2000},
        volumes=[{"name": "v", "emptyDir": {}}],
    ),
    "apparmor": pod("apparmor", "true", {"appArmorProfile": {"type": "RuntimeDefault"}}),
    "no-profile": pod(
        "no-profile", "true", {"seccompProfile": {"type": "Localhost", "localhostProfile": "nosuch.json"}}
    ),
}  # fmt: skip
OUTPUTS = {
    "uid": "65534 65534\n",  # the group is that of the image's /etc/passwd
    "unprivileged": "refused",
    "privileged": "made\n",
    "writable": "written\n",
    "readonly": "refused",
    "own-ids": "1001 2002\n",
    "pod-ids": "1001 2002\n",
    "no-growth": "NoNewPrivs:\t1\n",
    "growth": "NoNewPrivs:\t0\n",
    "sysctl": "1\n",
    "seccomp-default": "Seccomp:\t2\n",
    "seccomp-none": "Seccomp:\t0\n",
    "users": "0\nmapped\n0:2000\n1\n",
}


@pytest.fixture(scope="module")
def outputs(cluster: Cluster) -> dict[str, str]:
    """Runs all the pods side by side and returns what each printed."""
    namespace = "security-context"
    cluster.kubectl("create", "namespace", namespace)
    wishes = {"apiVersion": "v1", "kind": "List", "items": [json.loads(text) for text in PODS.values()]}
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(wishes))
    ended = [f"pod/{name}" for name in OUTPUTS]
    cluster.kubectl("-n", namespace, "wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", *ended)
    creating = "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=CreateContainerError"
    cluster.kubectl("-n", namespace, "wait", creating, "--timeout=50s", "pod/no-profile")
    return {name: cluster.kubectl("-n", namespace, "logs", name).stdout for name in OUTPUTS}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("uid", id="runAsUser runs the container with uid 65534"),
        pytest.param("unprivileged", id="the container is unprivileged when privileged is false"),
        pytest.param("privileged", id="the container is privileged when asked"),
        pytest.param("writable", id="the root file system is writable when readOnlyRootFilesystem is false"),
        pytest.param("readonly", id="the root file system is read-only when asked"),
        pytest.param("own-ids", id="runAsUser and runAsGroup of the container"),
        pytest.param("pod-ids", id="runAsUser and runAsGroup of the pod"),
        pytest.param("no-growth", id="no privilege escalation when it is not allowed"),
        pytest.param("growth", id="privilege escalation when nothing is said"),
        pytest.param("sysctl", id="a safe sysctl is set"),
        pytest.param("seccomp-default", id="RuntimeDefault when nothing is said"),
        pytest.param("seccomp-none", id="no filter for Unconfined"),
        pytest.param("users", id="hostUsers false: mapped ids, fsGroup, ping"),
    ],
)
def test_a_container_sees_what_its_security_context_says(outputs: dict[str, str], name: str) -> None:
    assert outputs[name].endswith(OUTPUTS[name]) or OUTPUTS[name] in outputs[name]


def test_a_profile_that_cannot_be_enforced_stops_the_pod_in_the_kubelets_words(
    cluster: Cluster, outputs: dict[str, str]
) -> None:
    events = cluster.get("-n", "security-context", "events")["items"]
    rejected = {
        (event["reason"], event["message"]) for event in events if event["involvedObject"]["name"] == "apparmor"
    }
    assert ("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host") in rejected
    status = cluster.get("-n", "security-context", "pod", "apparmor")["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "AppArmor")
    assert status["message"] == "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host"
    waiting = cluster.get("-n", "security-context", "pod", "no-profile")["status"]["containerStatuses"][0]["state"][
        "waiting"
    ]
    assert waiting["reason"] == "CreateContainerError"
    assert "cannot load seccomp profile" in waiting["message"]
    assert "no such file or directory" in waiting["message"]


def test_a_status_names_the_user_that_each_container_was_started_as(cluster: Cluster, namespace: str) -> None:
    wish = json.loads(pod("p", "exec sleep 3600", {"runAsGroup": 2002}, securityContext={"supplementalGroups": [44]}))
    wish["spec"]["initContainers"] = [
        wish["spec"]["containers"][0] | {"name": "i", "command": ["true"], "securityContext": {"runAsUser": 65534}}
    ]
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(wish))
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "--timeout=50s", "pod/p")
    debug = ("--image=busybox", "--container=look", "--", "sleep", "3600")
    cluster.kubectl("-n", namespace, "debug", "p", *debug)
    status = until(
        lambda: cluster.get("-n", namespace, "pod", "p")["status"],
        lambda status: "running" in status.get("ephemeralContainerStatuses", [{"state": {}}])[0]["state"],
        seconds=60,
    )
    kinds = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    assert [status[kind][0]["user"]["linux"] for kind in kinds] == [
        {"uid": 65534, "gid": 65534, "supplementalGroups": [65534, 44]},
        {"uid": 0, "gid": 2002, "supplementalGroups": [2002, 10, 44]},
        {"uid": 0, "gid": 0, "supplementalGroups": [0, 10, 44]},
    ]  # 10 is wheel, of which the image's /etc/group says that root is a member
    inside = cluster.kubectl(
        "-n", namespace, "exec", "p", "--", "grep", "-E", "^(Uid|Gid|Groups)", "/proc/1/status"
    ).stdout
    assert " ".join(inside.split()) == "Uid: 0 0 0 0 Gid: 2002 2002 2002 2002 Groups: 10 44 2002"


def test_invalid_sysctls_are_refused_by_the_api(cluster: Cluster, namespace: str) -> None:
    names = ("foo-", "kernel.shmmax", "safe-and-unsafe", "bar..")
    wish = pod("p", "true", securityContext={"sysctls": [{"name": name, "value": "1"} for name in names]})
    refused = cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=wish, check=False)
    assert 'Invalid value: "foo-"' in refused.stderr
    assert 'Invalid value: "bar.."' in refused.stderr
    assert "safe-and-unsafe" not in refused.stderr
    assert "kernel.shmmax" not in refused.stderr


def test_an_unmasked_proc_and_the_nodes_namespaces_do_not_go_with_what_users_a_pod_has(
    cluster: Cluster, namespace: str
) -> None:
    unmasked = cluster.kubectl(
        "-n", namespace, "apply", "-f", "-", stdin=pod("p", "true", {"procMount": "Unmasked"}), check=False
    )
    assert "`hostUsers` must be false to use `Unmasked`" in unmasked.stderr
    shared = pod("p", "true", hostUsers=False, hostNetwork=True)
    refused = cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=shared, check=False)
    assert "when `hostUsers` is false" in refused.stderr
