"""The static CPU policy over a runtime made by hand: who runs where, and who moves away before."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from fake_runtime import FakeRuntime
from pod_builders import pod
from worked_node import Node

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import cpumanager, cpuoptions, cputopology
from minikube_raw.kubelet.admission import Refusal
from minikube_raw.kubelet.cpumanager import CPUManager, exclusive_cpus
from minikube_raw.kubelet.cpupromises import CPUPromises
from minikube_raw.kubelet.cputopology import CPU
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.kubelet.room import NodeView, Room
from minikube_raw.kubelet.topologymanager import TopologyManager
from minikube_raw.runtime.cri import ContainerConfig, LinuxContainerResources, RuntimeServiceError

FOUR = tuple(CPU(0, n, n) for n in range(4))
CORES = tuple(CPU(0, n % 4, n) for n in range(8))  # four of two threads
PINNED = "Resize is infeasible for Guaranteed Pods alongside CPU Manager static policy"


def asking(uid: str, cpu: str = "", **spec: Any) -> Pod:
    limits = {"limits": {"cpu": cpu, "memory": "1Mi"}} if cpu else {}
    containers = [{"name": uid, "image": "busybox", "resources": limits}]
    return pod(containers=containers, metadata={"uid": uid, "name": uid}, **spec)


@pytest.fixture
def static(node: Node) -> Node:
    """A node whose CPU 0 is reserved."""
    return manage(node, CPUManager(node.runtime, "static", FOUR, frozenset({0}), ahead=False))


def manage(node: Node, cpus: CPUManager) -> Node:
    """Give the node's CPUs away like this from now on, as a kubelet does that starts."""
    room = Room(placement=TopologyManager([cpus.promises]))
    node.use(msgspec.structs.replace(node.tools, cpus=cpus, room=room))
    return node


async def start(node: Node, eventually: Any, *pods: Pod) -> None:
    for each in pods:
        node.workers.update(each)
        await eventually(lambda name=each.metadata.uid: name in cpus(node))


def cpus(node: Node) -> dict[str, str | None]:
    """By container: where it may run, of those that do."""
    running = (each for each in node.runtime.containers.values() if each.state.name == "RUNNING")
    return {each.name: each.resources.cpuset_cpus for each in running}


async def test_whole_cpus_are_a_containers_own_and_the_others_move_away(static, eventually) -> None:
    await start(static, eventually, asking("shared"), asking("odd", "1500m"), asking("own", "2"))
    assert cpus(static) == {"shared": "0,3", "odd": "0,3", "own": "1-2"}
    moved = [str(call) for call in static.runtime.calls]
    assert max(n for n, call in enumerate(moved) if "update_container" in call) < next(
        n for n, call in enumerate(moved) if "start_container" in call and "own" in call
    )


async def test_what_has_cpus_alone_is_not_throttled(static, eventually) -> None:
    await start(static, eventually, asking("odd", "1500m"), asking("own", "1"))
    quotas = {each.name: each.resources.cpu_quota for each in static.runtime.containers.values()}
    assert quotas == {"odd": 150_000, "own": -1}
    sandboxes = await static.runtime.list_pod_sandboxes()
    assert {each.config.uid: each.config.resources.cpu_quota for each in sandboxes} == {"odd": 150_000, "own": -1}


async def test_the_cpus_are_everybodys_again_when_it_ends(static, eventually) -> None:
    await start(static, eventually, asking("shared"), asking("own", "3", restartPolicy="Never"))
    assert cpus(static)["shared"] == "0"
    static._tasks.create_task(static.tools.cpus.run())
    static.runtime.exit(static.runtime.named("own").id, 0)
    static.tools.cpus.look_again()
    await eventually(lambda: cpus(static) == {"shared": "0-3"})


async def test_a_container_that_waits_to_be_restarted_keeps_its_cpus_and_others_may_run_on_them(
    static, eventually
) -> None:
    await start(static, eventually, asking("shared"), asking("own", "2"))
    for _ in range(2):  # the first restart is at once
        static.runtime.exit(static.runtime.named("own").id, 1)
        await eventually(lambda: static.runtime.named("own").state.name == "RUNNING" or waiting(static, "own"))
    assert waiting(static, "own")
    await start(static, eventually, asking("other", "1"))
    assert cpus(static) == {"shared": "0-2", "other": "3"}
    static.clock.advance(10)
    await eventually(lambda: cpus(static) == {"shared": "0", "other": "3", "own": "1-2"})


def waiting(node: Node, uid: str) -> bool:
    worker = node.workers.get(uid)
    (status,) = worker.status["containerStatuses"] if worker is not None else ({},)
    return "waiting" in status.get("state", {})


async def test_when_its_pod_has_ended_others_may_have_them(static, eventually) -> None:
    await start(static, eventually, asking("own", "3", restartPolicy="Never"))
    static.runtime.exit(static.runtime.named("own").id, 0)
    await eventually(lambda: not static.tools.cpus.promises.given)
    await start(static, eventually, asking("other", "3"))
    assert cpus(static) == {"other": "1-3"}


def with_init(uid: str, init: str, app: str, **more: str) -> Pod:
    def container(name: str, cpu: str) -> dict[str, Any]:
        return {"name": name, "image": "busybox", "resources": {"limits": {"cpu": cpu, "memory": "1Mi"}}}

    spec = {"initContainers": [container("init", init) | more], "containers": [container("app", app)]}
    return pod(metadata={"uid": uid, "name": uid}, **spec)


def idle(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


@pytest.fixture
def promises() -> CPUPromises:
    return CPUPromises(FOUR, frozenset({0}), ahead=False)


def test_an_init_container_has_cpus_until_it_ends_and_then_they_are_its_pods(promises: CPUPromises) -> None:
    wish = with_init("wish", "2", "2")
    assert promises.take(wish, "init", idle(1, 2, 3), idle()) == {1, 2}
    assert promises.given == idle()
    assert promises.take(wish, "app", idle(1, 2, 3), idle()) == {1, 2}


def test_what_a_kubelet_found_an_init_container_to_have_is_not_kept_for_it(promises: CPUPromises) -> None:
    wish = with_init("wish", "2", "1")
    promises.keep("wish", "init", idle(1, 2))
    assert promises.take(wish, "app", idle(1, 2, 3), preferred=idle(3)) == {3}
    assert promises.given == {3}


def test_an_init_container_that_runs_again_has_first_what_waits_for_it(promises: CPUPromises) -> None:
    wish = with_init("wish", "2", "1")
    assert promises.take(wish, "app", idle(1, 2, 3), preferred=idle(3)) == {3}
    assert promises.take(wish, "init", idle(1, 2, 3), idle()) == {1, 3}
    assert promises.take(wish, "init", idle(1, 2), idle()) == {1, 2}
    assert promises.take(asking("other", "1"), "other", idle(1, 2, 3), idle()) == {1}
    assert promises.take(wish, "init", idle(2, 3), idle()) == {2, 3}
    assert promises.given == {1, 3}


def test_a_sidecar_keeps_its_cpus_and_the_others_have_none_of_them(promises: CPUPromises) -> None:
    wish = with_init("wish", "1", "2", restartPolicy="Always")
    assert promises.take(wish, "init", idle(1, 2, 3), idle()) == {1}
    assert promises.take(wish, "app", idle(1, 2, 3), idle()) == {2, 3}
    assert promises.given == {1, 2, 3}


def test_a_promise_is_kept_only_with_cpus_that_nobody_runs_on_alone(promises: CPUPromises) -> None:
    own = asking("own", "2")
    assert promises.take(own, "own", idle(1, 2, 3), idle()) == {1, 2}
    with pytest.raises(ValueError, match="requested=2, available=1"):
        promises.take(own, "own", idle(2, 3), idle())


def test_containers_that_share_what_their_pod_asks_for_have_no_cpus_alone() -> None:
    alone = asking("own", "2")
    together = pod(
        containers=[{"name": "c", "image": "busybox", "resources": {"limits": {"cpu": "2", "memory": "1Mi"}}}],
        resources={"limits": {"cpu": "2", "memory": "1Mi"}},
    )
    assert (exclusive_cpus(alone), exclusive_cpus(together)) == (True, False)


async def test_metrics_tell_who_has_cpus_and_that_there_were_too_few(static, eventually) -> None:
    async def told(name: str) -> float:
        (found,) = [each for each in await static.tools.cpus.measures() if each.name == f"kubelet_cpu_manager_{name}"]
        return found.value

    await start(static, eventually, asking("shared"), asking("own", "2"))
    assert (await told("pinning_requests_total"), await told("pinning_errors_total")) == (1, 0)
    assert (await told("shared_pool_size_millicores"), await told("exclusive_cpu_allocation_count")) == (1000, 2)
    with pytest.raises(RuntimeServiceError):
        async with static.tools.cpus.placing(ContainerConfig(name="late", attempt=0, image=""), asking("late", "2")):
            pass
    assert (await told("pinning_requests_total"), await told("pinning_errors_total")) == (2, 1)


async def test_without_the_policy_metrics_say_nothing_of_it(node) -> None:
    assert await CPUManager(node.runtime).measures() == []


async def test_a_kubelet_that_comes_after_knows_who_has_what(static, eventually) -> None:
    await start(static, eventually, asking("own", "2"))
    manage(static, CPUManager(static.runtime, "static", FOUR, frozenset({0}), ahead=False))
    await static.tools.cpus.recover()
    await start(static, eventually, asking("own", "2"), asking("other", "1"))
    assert cpus(static) == {"own": "1-2", "other": "3"}


async def test_without_the_policy_what_was_bounded_by_it_runs_everywhere_again(static, eventually) -> None:
    await start(static, eventually, asking("shared"))
    assert cpus(static) == {"shared": "0-3"}
    static.runtime._change(static.runtime.named("shared").id, resources=LinuxContainerResources(cpuset_cpus="77"))
    await CPUManager(static.runtime).run()
    assert cpus(static)["shared"] != "77"


async def test_reserved_cpus_are_nobodys_where_that_is_asked_for_unless_there_are_no_others(node, eventually) -> None:
    strict = CPUManager(node.runtime, "static", FOUR, frozenset({0}), ["strict-cpu-reservation"])
    manage(node, strict)
    await start(node, eventually, asking("shared"), asking("own", "2"))
    assert cpus(node) == {"shared": "3", "own": "1-2"}
    await start(node, eventually, asking("last", "1"))
    assert cpus(node) == {"shared": "0", "own": "1-2", "last": "3"}


@pytest.mark.parametrize(
    ("taken", "cpu", "why"),
    [
        pytest.param("", "3", "requested 3 cpus not multiple cpus per core = 2", id="half a core"),
        pytest.param(
            "4",
            "4",
            "not enough free physical CPUs: available physical CPUs = 2, requested CPUs = 4, CPUs per core = 2",
            id="more cores than are free",
        ),
        pytest.param("4", "2", "", id="a core"),
    ],
)
def test_by_whole_cores_no_core_is_shared_not_even_with_reserved_cpus(taken: str, cpu: str, why: str) -> None:
    promises = CPUManager(FakeRuntime(), "static", CORES, frozenset({0}), ["full-pcpus-only"]).promises
    manager = TopologyManager([promises])
    if taken:
        assert manager.refusal(asking("taken", taken)) is None
    refused = manager.refusal(asking("wish", cpu))
    assert refused == (Refusal("SMTAlignmentError", f"SMT Alignment Error: {why}") if why else None)
    if refused is None:
        assert promises.of("wish", "wish") == {3, 7}


async def test_options_say_which_cpus_are_given_reserved_and_promised(node, eventually, monkeypatch) -> None:
    monkeypatch.setattr(cputopology, "read", lambda: CORES)
    options = KubeletOptions(
        node_name="n",
        node_ip="",
        state_dir="",
        run_dir="",
        images_dir="",
        cpu_manager_policy="static",
        cpu_manager_policy_options={"distribute-cpus-across-cores": "true"},
        system_reserved={"cpu": "2"},
    )
    manager = cpumanager.make(node.runtime, options)
    manage(node, manager)
    await start(node, eventually, asking("shared"), asking("own", "2"))
    assert cpus(node) == {"shared": "0-1,4-7", "own": "2-3"}
    assert TopologyManager([manager.promises]).refusal(asking("patient", "6")) is None  # those before it may leave


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"distribute": "true"}, 'unknown CPU Manager Policy option: "distribute"'),
        ({"full-pcpus-only": "1"}, 'bad value for option "full-pcpus-only"'),
    ],
)
def test_an_option_that_is_none_is_named(given: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        cpuoptions.chosen(given)
    assert cpuoptions.chosen({"full-pcpus-only": "true", "strict-cpu-reservation": "false"}) == {"full-pcpus-only"}


def test_options_that_contradict_each_other_are_refused_as_a_kubelet_does() -> None:
    refused = []
    for pair in itertools.combinations(cpuoptions.OPTIONS, 2):
        try:
            cpuoptions.chosen(dict.fromkeys(pair, "true"))
        except ValueError as error:
            refused.append(str(error))
    assert sorted(refused) == [
        f"static policy options {one} and {other} can not be used at the same time"
        for one, other in (
            ("distribute-cpus-across-numa", "distribute-cpus-across-cores"),
            ("full-pcpus-only", "distribute-cpus-across-cores"),
            ("prefer-align-cpus-by-uncorecache", "distribute-cpus-across-cores"),
            ("prefer-align-cpus-by-uncorecache", "distribute-cpus-across-numa"),
        )
    ]


def test_a_guaranteed_pod_is_not_resized_beside_it() -> None:
    room = Room(lambda: NodeView("n1", {"cpu": "4", "memory": "1Gi", "pods": "9"}, pinning=("CPU Manager",)))
    assert room.refusal(asking("own", "2"), started=False) is None
    assert room.resize(asking("own", "3")) == ("Infeasible", PINNED, "Infeasible")
