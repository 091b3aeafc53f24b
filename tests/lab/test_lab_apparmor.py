"""AppArmor as containerd does it: a default profile for whoever says nothing, profiles of the node, none, and one that is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import image
from tests.lab.machine import Machine
from tests.lab.pods import running

Json = dict[str, Any]
OWN = "profile lab-own flags=(attach_disconnected) { file, capability, mount, deny /tmp/refused w, }"
DEFAULT = "minikube-raw-default (enforce)"
# What each tries: its label, a mount (which CAP_SYS_ADMIN allows and the default refuses), a file that `lab-own` refuses.
TRY = """
cat /proc/self/attr/current
mkdir /m && mount -t tmpfs none /m 2> /dev/null && echo mounted
touch /tmp/refused 2> /dev/null && echo touched
exec sleep 1000
"""
CASES = [
    pytest.param("silent", None, False, [DEFAULT, "touched"], id="says nothing"),
    pytest.param("default", {"type": "RuntimeDefault"}, False, [DEFAULT, "touched"], id="RuntimeDefault"),
    pytest.param("free", {"type": "Unconfined"}, False, ["unconfined", "mounted", "touched"], id="Unconfined"),
    pytest.param(
        *("own", {"type": "Localhost", "localhostProfile": "lab-own"}, False, ["lab-own (enforce)", "mounted"]),
        id="Localhost",
    ),
    pytest.param("privileged", None, True, ["unconfined", "mounted", "touched"], id="privileged"),
    pytest.param(
        "privileged-default",
        {"type": "RuntimeDefault"},
        True,
        ["unconfined", "mounted", "touched"],
        id="privileged RuntimeDefault",
    ),
]


def container(name: str, profile: Json | None, privileged: bool = False) -> Json:
    context: Json = {"privileged": True} if privileged else {"capabilities": {"add": ["SYS_ADMIN"]}}
    if profile is not None:
        context["appArmorProfile"] = profile
    return {"name": name, "image": "busybox", "command": ["sh", "-c", TRY], "securityContext": context}


def run(lab: Machine, name: str, containers: list[Json], *words: str, **spec: Any) -> None:
    body = {"terminationGracePeriodSeconds": 0, "containers": containers, **spec}
    pod = {"kind": "Pod", "metadata": {"name": name}, "spec": body}
    lab.product(" ".join(["pod run --timeout 240 -f -", *words]), stdin=json.dumps(pod))


@pytest.fixture(scope="module")
def pods(lab: Machine) -> Iterator[Machine]:
    """A machine with a profile of its own, and a pod with a container for each case."""
    lab.run("apparmor_parser --replace", stdin=OWN)
    run(lab, "confined", [container(*case.values[:3]) for case in CASES])
    running(lab, "confined")
    yield lab
    lab.product("pod rm confined")


@pytest.mark.parametrize(("name", "profile", "privileged", "expected"), CASES)
def test_a_container_has_the_profile_it_asks_for(
    pods: Machine, name: str, profile: Json | None, privileged: bool, expected: list[str]
) -> None:
    assert pods.product(f"pod logs confined -c {name}").splitlines() == expected


def test_a_program_executed_later_is_confined_as_the_first(pods: Machine) -> None:
    for name, label in (("default", DEFAULT), ("own", "lab-own (enforce)"), ("free", "unconfined")):
        assert pods.product(f"pod exec confined -c {name} -- cat /proc/self/attr/current").strip() == label


@pytest.mark.skipif(
    image.KERNEL == "stable", reason="Linux 6.1 has no idmapped mounts of tmpfs: no pod has a user namespace"
)
def test_a_pod_with_a_user_namespace_is_confined_too(lab: Machine) -> None:
    run(lab, "mapped", [container("c", None)], hostUsers=False)
    running(lab, "mapped")
    said = lab.product("pod logs mapped").splitlines()
    lab.product("pod rm mapped")
    assert said == [DEFAULT, "touched"]


@pytest.mark.skipif(image.KERNEL != "stable", reason="this kernel has idmapped mounts of tmpfs")
def test_a_pod_with_a_user_namespace_is_refused_by_a_kernel_that_cannot_map_tmpfs(lab: Machine) -> None:
    run(lab, "mapped", [container("c", None)], "--wait", "none", hostUsers=False)
    said = lab.run(
        f"until {lab.command} pod events mapped | grep 'owners; Linux 6.3 can'; do sleep 1; done", timeout=120
    )
    lab.product("pod rm mapped")
    assert "FailedCreatePodSandBox" in said


def test_a_container_whose_profile_lets_in_no_signal_is_stopped_all_the_same(pods: Machine) -> None:
    run(pods, "deaf", [container("c", {"type": "Localhost", "localhostProfile": "lab-own"})])
    pods.product("pod rm deaf")  # waits until it is gone


def test_a_profile_that_is_missing_is_told_in_containerds_words(lab: Machine) -> None:
    message = "failed to get container spec opts: failed to generate apparmor spec opts: apparmor profile not found lab-missing"
    run(lab, "missing", [container("c", {"type": "Localhost", "localhostProfile": "lab-missing"})], "--wait", "none")
    events = lab.run(
        f"for i in $(seq 60); do {lab.command} pod events missing | grep 'Error: ' && break; sleep 1; done", timeout=120
    )
    items = json.loads(lab.product("pod list -o json"))["items"]
    (pod,) = (each for each in items if each["metadata"]["name"] == "missing")
    state = pod["status"]["containerStatuses"][0]["state"]
    lab.product("pod rm missing")
    assert "Failed" in events
    assert f"Error: {message}" in events
    assert state == {"waiting": {"reason": "CreateContainerError", "message": message}}
