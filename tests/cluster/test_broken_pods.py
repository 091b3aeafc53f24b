"""Every wrong pod of the table, all at once on one cluster: each is told what is wrong with it, and none harms another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.waiting import until
from tests.clusters import Cluster

NAMESPACE = "broken"
SECONDS = 45
Json = dict[str, Any]
TABLE: dict[str, list[Json]] = yaml.safe_load(Path(__file__).with_name("broken_pods.yaml").read_text())
CASES = [case for group in TABLE.values() for case in group]
OUTCOMES = ("refused", "event", "waiting", "ended", "failed", "unscheduled")
OBJECTS = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "present", "namespace": NAMESPACE},
        "data": {"k": "v"},
    },
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "hidden", "namespace": NAMESPACE},
        "data": {"k": "dg=="},
    },
]


def pod(number: int, case: Json, node: str) -> Json:
    """The case over a pod that sleeps."""
    container = {"name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000"]}
    merged = {name: value for name, value in (container | case.get("container", {})).items() if value is not None}
    spec: Json = {"terminationGracePeriodSeconds": 0, "containers": [merged], **case.get("spec", {})}
    spec |= {"nodeName": node} if spec.get("nodeName") == "NODE" else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"b{number}", "namespace": NAMESPACE}, "spec": spec}


class Told:
    """What the API server and the nodes have said of each pod."""

    def __init__(self, refusals: dict[str, str], pods: dict[str, Json], events: list[Json]) -> None:
        self.refusals, self.pods, self.events = refusals, pods, events

    def shows(self, name: str, case: Json) -> bool:
        """Whether a pod has been told what its case says."""
        status = self.pods.get(name, {}).get("status", {})
        match next((kind, case[kind]) for kind in OUTCOMES if kind in case):
            case "refused", text:
                return _has(text, self.refusals.get(name, ""))
            case "event", [reason, text]:
                mine = (event for event in self.events if event["involvedObject"]["name"] == name)
                return any(_is(reason, text, each) for each in mine)
            case "waiting", [reason, text]:
                return any(_is(reason, text, each) for each in self._states(status, "waiting"))
            case "ended", [code, reason, text]:
                return any(
                    each["exitCode"] == code and _is(reason, text, each) for each in self._states(status, "terminated")
                )
            case "failed", [reason, text]:
                return bool(status.get("phase") == "Failed" and _is(reason, text, status))
            case "unscheduled", text:
                scheduled = (each for each in status.get("conditions", ()) if each["type"] == "PodScheduled")
                return any(each["status"] == "False" and _has(text, each.get("message", "")) for each in scheduled)
        raise AssertionError(case)

    def _states(self, status: Json, kind: str) -> Iterator[Json]:
        for each in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
            for state in (each["state"], each["lastState"]):
                if kind in state:
                    yield state[kind]

    def of(self, name: str) -> Json:
        """All that was said of one pod, for the reader of a failed test."""
        events = [
            f"{each['reason']}: {each['message']}" for each in self.events if each["involvedObject"]["name"] == name
        ]
        return {"refusal": self.refusals.get(name), "status": self.pods.get(name, {}).get("status"), "events": events}


def _is(reason: str, text: str, found: Json) -> bool:
    return found.get("reason") in reason.split("|") and _has(text, found.get("message", ""))


def _has(text: str, message: str) -> bool:
    return any(each in message for each in text.split("|"))


@pytest.fixture(scope="module")
def told(cluster: Cluster) -> Iterator[Told]:
    """Create all of them and wait until each has been told, or the time is over."""
    for each in OBJECTS:
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(each))
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]

    def create(numbered: tuple[int, Json]) -> tuple[str, str]:
        manifest = json.dumps(pod(*numbered, node))
        done = cluster.kubectl("create", "--validate=strict", "-f", "-", stdin=manifest, check=False)
        return f"b{numbered[0]}", done.stderr if done.returncode else ""

    with ThreadPoolExecutor(4) as pool:
        refusals = dict(pool.map(create, enumerate(CASES)))

    def look() -> Told:
        pods = {each["metadata"]["name"]: each for each in cluster.get("-n", NAMESPACE, "pods")["items"]}
        return Told(refusals, pods, cluster.get("-n", NAMESPACE, "events")["items"])

    def all_told(found: Told) -> bool:
        return all(found.shows(f"b{number}", case) for number, case in enumerate(CASES))

    try:
        found = until(look, all_told, seconds=SECONDS, pause=1.0)
    except AssertionError:
        found = look()  # each test below says what its own pod was told
    yield found
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=true", timeout=90)


@pytest.mark.parametrize("number", [pytest.param(n, id=case["name"].replace(" ", "-")) for n, case in enumerate(CASES)])
def test_a_wrong_pod_is_told_what_is_wrong(told: Told, number: int) -> None:
    name = f"b{number}"

    assert told.shows(name, CASES[number]), f"{CASES[number]}: {json.dumps(told.of(name), indent=1)}"


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 150
    assert len({case["name"] for case in CASES}) == len(CASES)
