"""Pods whose containers are probed: what their workers do and say, over a runtime made by hand and a clock that tests move."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from pod_builders import pod
from worked_node import with_status

from minikube_raw.runtime import cri

OK = cri.ExecResult(b"", b"", 0)
FAILED = cri.ExecResult(b"", b"cat: can't open '/ok': No such file or directory\n", 1)


def probed(restart_policy: str = "Always", **probes: Any) -> Any:
    every = {
        f"{name}Probe": {"exec": {"command": [name]}, "periodSeconds": 2, "failureThreshold": 2, **more}
        for name, more in probes.items()
    }
    return pod(containers=[{"name": "c", "image": "busybox", **every}], restartPolicy=restart_policy)


async def tick(node: Any, eventually: Any, seconds: float = 2) -> None:
    """Move the clock; wait until every probe that fell due has been answered."""
    before = len(node.runtime.execs)
    node.clock.advance(seconds)
    await eventually(lambda: len(node.runtime.execs) > before)
    await asyncio.sleep(0)


async def test_a_container_is_ready_when_its_probe_says_so_and_no_longer(node, eventually) -> None:
    node.runtime.answers["readiness"] = [FAILED, OK, FAILED]
    node.workers.update(probed(readiness={}))
    await eventually(lambda: node.phase() == "Running" and node.runtime.execs)
    assert (node.container["ready"], node.container["started"]) == (False, True)

    await tick(node, eventually)
    await eventually(lambda: node.container["ready"])
    assert node.statuses[-1]["conditions"][2]["status"] == "True"
    await tick(node, eventually)
    assert node.container["ready"]
    await tick(node, eventually)

    await eventually(lambda: not node.container["ready"])
    failed = "Warning Unhealthy Readiness probe failed: cat: can't open '/ok': No such file or directory\n"
    assert [each for each in node.events if "probe" in each] == [failed] * 3


async def test_what_probes_said_is_counted_until_the_pod_is_gone(node, eventually) -> None:
    node.runtime.answers["readiness"] = [FAILED, OK]
    node.workers.update(probed(readiness={}))
    await eventually(lambda: node.phase() == "Running" and node.runtime.execs)
    await tick(node, eventually)
    await eventually(lambda: node.container["ready"])

    ((about, count),) = node.tools.probed
    assert about == ("ns", "p", "u1", "c", "Readiness")
    assert (count.failed, count.successful) == (1, 1)
    node.workers.remove("u1")
    await eventually(lambda: not list(node.tools.probed))


async def test_a_container_that_fails_its_liveness_probe_is_restarted(node, eventually) -> None:
    node.runtime.answers["liveness"] = [FAILED]
    node.workers.update(probed(liveness={"terminationGracePeriodSeconds": 5}))
    await eventually(lambda: node.state == "running")

    await tick(node, eventually)
    await tick(node, eventually)

    await eventually(lambda: node.container["restartCount"] == 1 and node.state == "running")
    assert ("stop_container", "c", 5) in node.runtime.calls
    assert "Killing" in node.events


async def test_a_liveness_probe_that_cannot_be_run_restarts_nothing(node, eventually) -> None:
    node.runtime.answers["liveness"] = [cri.RuntimeServiceError("ExecError", 'exec: "/nosuch": not found')]
    node.workers.update(probed(liveness={}))
    await eventually(lambda: node.state == "running")

    for _ in range(4):
        await tick(node, eventually)

    assert node.runtime.named("c").attempt == 0
    text = 'Liveness probe errored and resulted in unknown state: exec: "/nosuch": not found'
    assert f"Warning Unhealthy {text}" in node.events


async def test_startup_holds_back_the_other_probes_until_it_has_succeeded(node, eventually) -> None:
    node.runtime.answers["startup"] = [FAILED, OK]
    node.workers.update(probed(startup={"periodSeconds": 1}, readiness={}, liveness={}))
    await eventually(lambda: node.state == "running")
    assert (node.container["ready"], node.container["started"]) == (False, False)

    await tick(node, eventually, 1)
    assert {each[1] for each in node.runtime.execs} == {"startup"}
    await tick(node, eventually, 1)

    await eventually(lambda: node.container["started"] and node.container["ready"])
    await tick(node, eventually)
    assert [each[1] for each in node.runtime.execs].count("startup") == 2


async def test_a_failing_startup_probe_ends_a_pod_that_never_restarts(node, eventually) -> None:
    node.runtime.answers["startup"] = [TimeoutError()]
    node.workers.update(probed("Never", startup={"failureThreshold": 1}))
    await eventually(lambda: node.state == "running")

    await tick(node, eventually)

    await eventually(lambda: node.phase() in ("Failed", "Succeeded"))
    assert 'Warning Unhealthy Startup probe failed: command timed out: "startup" timed out after 1s' in node.events


async def test_the_next_sidecar_waits_for_the_startup_probe_of_the_one_before(node, eventually) -> None:
    node.runtime.answers["up"] = [FAILED, OK]
    startup = {"exec": {"command": ["up"]}, "periodSeconds": 1}
    side = {"name": "side", "image": "busybox", "restartPolicy": "Always", "startupProbe": startup}
    node.workers.update(pod(init=(side, "plain")))
    await eventually(lambda: len(node.runtime.containers) == 1 and len(node.statuses) > 1)

    await tick(node, eventually, 1)
    assert len(node.runtime.containers) == 1
    assert "[side plain]" in node.statuses[-1]["conditions"][1]["message"]
    await tick(node, eventually, 1)

    await eventually(lambda: len(node.runtime.containers) == 2)
    await eventually(lambda: "[plain]" in node.statuses[-1]["conditions"][1]["message"])


async def test_readiness_goes_on_while_a_pod_is_stopped_but_liveness_does_not(node, eventually) -> None:
    node.runtime.ignores_term.add("c")
    wish = probed(readiness={"failureThreshold": 1}, liveness={})
    node.workers.update(wish)
    await eventually(lambda: node.container.get("ready"))
    gone = {"deletion_timestamp": "2023-11-14T22:14:20Z", "deletion_grace_period_seconds": 30}
    node.workers.update(msgspec.structs.replace(wish, metadata=msgspec.structs.replace(wish.metadata, **gone)))
    await eventually(lambda: ("stop_container", "c", 30) in node.runtime.calls)
    node.runtime.answers = {"readiness": [FAILED], "liveness": [FAILED]}

    for _ in range(3):
        await tick(node, eventually)

    await eventually(lambda: not node.container["ready"])
    assert "liveness" not in {each[1] for each in node.runtime.execs}
    node.workers.remove("u1")
    await eventually(lambda: node.workers.get("u1") is None)


async def test_a_restarted_kubelet_leaves_a_ready_pod_ready(node, eventually) -> None:
    node.workers.update(probed(readiness={}, startup={}))
    await eventually(lambda: node.state == "running")
    await tick(node, eventually)
    await eventually(lambda: node.container["ready"])
    before = node.statuses[-1]
    del node.workers._workers["u1"]

    node.workers.update(with_status(probed(readiness={}, startup={}), before))

    await eventually(lambda: node.statuses[-1] is not before)
    assert (node.container["ready"], node.container["started"]) == (True, True)
