"""What a pod needs next, by wish and finding."""

from __future__ import annotations

import pytest
from pod_builders import NOW, finding, pod, run, sandbox

from minikube_raw.kubelet import syncpod
from minikube_raw.kubelet.backoff import Entry
from minikube_raw.kubelet.syncpod import Finish, RunSandbox, StartContainer, Wait
from minikube_raw.runtime.cri import ContainerState

SIDECAR = {"name": "side", "image": "busybox", "restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("wish", "found", "actions"),
    [
        pytest.param(pod(), finding(sandboxes=()), [RunSandbox(0)], id="nothing there: a sandbox first"),
        pytest.param(pod("a", "b"), finding(), [StartContainer("a", 0), StartContainer("b", 0)], id="all containers in order"),
        pytest.param(pod("a", "b"), finding(run("a")), [StartContainer("b", 0)], id="only what is missing"),
        pytest.param(pod(), finding(run()), [], id="all is well"),
        pytest.param(
            pod(), finding(run(code=1)), [StartContainer("c", 1, after=NOW - 1)], id="Always: the first restart is immediate"
        ),
        pytest.param(
            pod(restartPolicy="OnFailure"), finding(run(code=1)), [StartContainer("c", 1, after=NOW - 1)], id="OnFailure: failed"
        ),
        pytest.param(pod(restartPolicy="OnFailure"), finding(run(code=0)), [Finish()], id="OnFailure: succeeded"),
        pytest.param(pod(restartPolicy="Never"), finding(run(code=3)), [Finish()], id="Never: failed"),
        pytest.param(
            pod("a", "b", restartPolicy="Never"), finding(run("a", code=0), run("b")), [], id="Never: one of two has ended"
        ),
        pytest.param(
            pod(),
            finding(run(state=ContainerState.CREATED)),
            [StartContainer("c", 0)],
            id="created before a crash, never started: the same attempt",
        ),
        pytest.param(
            pod(), finding(run(), sandboxes=(sandbox(ready=False),)), [RunSandbox(1, replaces="s0")], id="lost sandbox"
        ),
        pytest.param(
            pod(restartPolicy="Never"),
            finding(run(code=137), sandboxes=(sandbox(ready=False),)),
            [Finish()],
            id="lost sandbox, nothing to restart",
        ),
        pytest.param(pod(init=("i1", "i2")), finding(), [StartContainer("i1", 0)], id="init containers one by one"),
        pytest.param(pod(init=("i1", "i2")), finding(run("i1")), [], id="the second waits for the first"),
        pytest.param(
            pod(init=("i1", "i2")), finding(run("i1", code=0)), [StartContainer("i2", 0)], id="the second after the first"
        ),
        pytest.param(pod(init=("i",)), finding(run("i", code=0)), [StartContainer("c", 0)], id="main after init"),
        pytest.param(
            pod(init=("i",)), finding(run("i", code=1)), [StartContainer("i", 1, after=NOW - 1)], id="init is tried again"
        ),
        pytest.param(
            pod(init=("i",), restartPolicy="Never"), finding(run("i", code=1)), [Finish()], id="init fails for good"
        ),
        pytest.param(
            pod(init=("i",)), finding(run("i", code=0), run()), [], id="init is not run again while the main one runs"
        ),
        pytest.param(
            pod(init=("i",)),
            finding(run("i", code=0, sandbox_id="s0"), sandboxes=(sandbox(attempt=1),)),
            [StartContainer("i", 1, after=NOW - 1)],
            id="a new sandbox runs init again",
        ),
        pytest.param(pod(init=(SIDECAR,)), finding(), [StartContainer("side", 0)], id="a sidecar starts first"),
        pytest.param(pod(init=(SIDECAR,)), finding(run("side")), [StartContainer("c", 0)], id="and main need not wait for its end"),
        pytest.param(
            pod(init=(SIDECAR,), restartPolicy="Never"),
            finding(run("side", code=1), run()),
            [StartContainer("side", 1, after=NOW - 1)],
            id="a sidecar is restarted even in a pod that never restarts",
        ),
    ],
)  # fmt: skip
def test_actions(wish, found, actions) -> None:
    assert syncpod.compute_actions(wish, found, {}, NOW) == actions


def test_a_container_in_back_off_waits_from_its_end() -> None:
    actions = syncpod.compute_actions(pod(), finding(run(code=1, ago=4)), {"c": Entry(delay=20, since=NOW - 30)}, NOW)

    assert actions == [Wait("c", until=NOW + 16, delay=20)]


def test_others_start_while_one_waits() -> None:
    actions = syncpod.compute_actions(
        pod("a", "b"), finding(run("a", code=1)), {"a": Entry(delay=10, since=NOW - 1)}, NOW
    )

    assert actions == [Wait("a", until=NOW + 9, delay=10), StartContainer("b", 0)]
