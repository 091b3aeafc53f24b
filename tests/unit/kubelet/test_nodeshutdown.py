"""A machine that shuts down waits for its pods: workers over a runtime made by hand, a logind made by hand on a real bus."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pod_builders import pod
from worked_node import Node

from minikube_raw.api.core import Pod
from minikube_raw.kubelet import logind
from minikube_raw.kubelet.nodeshutdown import RETRY_SECONDS, NodeShutdown
from minikube_raw.kubelet.room import NodeView, Room
from minikube_raw.kubelet.shutdownperiods import Period
from minikube_raw.kubelet.shutdowntimes import STATE_FILE, ShutdownTimes
from tests.logind_service import LogindService, bus, impostor

CRITICAL = 2_000_000_000
TWO = (Period(0, 20), Period(CRITICAL, 10))
pytestmark = pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="needs dbus-daemon")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with bus(tmp_path) as found:
        yield found


class Machine:
    """A node on a machine: its shutdown manager, what it has told, and the machine's logind."""

    def __init__(self, node: Node, address: str, override: Path, background: Any) -> None:
        self.node, self.address, self.override, self._background = node, address, override, background
        self.service: LogindService | None = None
        self.events: list[str] = []
        self.changes: list[bool] = []
        self.sent = self.attempts = 0
        self.state_file = override.parent.with_name(STATE_FILE)
        self.times = ShutdownTimes(self.state_file, node.clock)

    @property
    def logind(self) -> LogindService:
        assert self.service is not None
        return self.service

    def boot(self) -> LogindService:
        self.service = LogindService(self.address, self.override)
        return self.service

    def begin(self, *periods: Period) -> None:
        """Start a kubelet's shutdown manager."""
        self.shutdown = NodeShutdown(
            periods,
            self._connect,
            lambda: self.node.workers,
            tell=lambda kind, reason, message: self.events.append(f"{kind} {reason} {message}"),
            changed=lambda: self.changes.append(self.shutdown.shutting_down),
            told=self._told,
            times=self.times,
            clock=self.node.clock,
        )
        room = Room(lambda: NodeView("n1", shutting_down=self.shutdown.shutting_down))
        self.node.use(msgspec.structs.replace(self.node.tools, room=room))
        self._background(self.shutdown.run())

    def _connect(self) -> Any:
        self.attempts += 1
        return logind.connect(self.node.clock, self.address, self.override)

    def tries_again(self) -> bool:
        """Time passes."""
        self.node.clock.advance(RETRY_SECONDS)
        return True

    async def _told(self) -> None:
        self.sent += 1

    def told_of(self, times: ShutdownTimes | None = None) -> list[float]:
        """When the last shutdown began and ended, as /metrics tells it."""
        return [each.value for each in (times or self.times).measures()]

    def status(self, uid: str) -> dict[str, Any]:
        worker = self.node.workers.get(uid)
        return worker.status if worker is not None else {}

    def phase(self, uid: str) -> str:
        return str(self.status(uid).get("phase", ""))

    def kill(self, container: str) -> None:
        self.node.runtime.exit(self.node.runtime.named(container).id, 137)

    def stopped(self) -> list[tuple[str, float]]:
        """Containers in the order in which they were told to end, with their grace."""
        return [call[1:] for call in self.node.runtime.calls if call[0] == "stop_container"]


@pytest.fixture
async def machine(node: Node, address: str, tmp_path: Path, background: Callable[..., Any]) -> AsyncIterator[Machine]:
    made = Machine(node, address, tmp_path / "conf.d/99-kubelet.conf", background)
    yield made
    if made.service is not None:
        made.service.close()


def named(uid: str, priority: int = 0, grace: int = 30, **spec: Any) -> Pod:
    return pod(uid, metadata={"uid": uid, "name": uid}, priority=priority, terminationGracePeriodSeconds=grace, **spec)


async def running(machine: Machine, eventually: Any, *pods: Pod) -> None:
    for each in pods:
        machine.node.workers.update(each)
        await eventually(lambda uid=each.metadata.uid: machine.phase(uid) == "Running")


async def test_a_lock_is_taken_in_the_kubelets_words(machine: Machine, eventually: Any) -> None:
    machine.boot().limit = 30
    machine.begin(*TWO)
    await eventually(lambda: machine.logind.locks == 1)
    assert machine.logind.inhibits == [("shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay")]
    assert (machine.logind.reloads, machine.override.exists(), machine.events) == (0, False, [])


async def test_pods_end_the_least_important_first_and_then_the_machine_may_go(
    machine: Machine, eventually: Any
) -> None:
    machine.boot().limit = 30
    machine.begin(*TWO)
    await running(machine, eventually, named("critical", CRITICAL), named("slow", grace=60), named("quick", grace=5))
    await eventually(lambda: machine.logind.locks == 1)
    machine.node.runtime.ignores_term = {"slow"}

    machine.logind.prepare_for_shutdown(True)
    await eventually(lambda: machine.phase("quick") == "Failed")
    assert machine.logind.locks == 1
    assert machine.phase("critical") == "Running"
    machine.kill("slow")

    await eventually(lambda: machine.logind.locks == 0)
    assert machine.stopped() == [("slow", 20), ("quick", 5), ("critical", 10)]
    assert machine.sent == 1
    for uid in ("quick", "slow", "critical"):
        status = machine.status(uid)
        assert (status["phase"], status["reason"]) == ("Failed", "Terminated")
        assert status["message"] == "Pod was terminated in response to imminent node shutdown."
        (target,) = [each for each in status["conditions"] if each["type"] == "DisruptionTarget"]
        assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
        assert target["message"] == status["message"]
    assert machine.events == ["Normal Shutdown Shutdown manager detected shutdown event"]


async def test_a_period_ends_though_its_pods_have_not(machine: Machine, eventually: Any) -> None:
    machine.boot().limit = 30
    machine.begin(*TWO)
    await running(machine, eventually, named("stubborn"), named("critical", CRITICAL))
    await eventually(lambda: machine.logind.locks == 1)
    machine.node.runtime.ignores_term = {"stubborn"}

    machine.logind.prepare_for_shutdown(True)
    await eventually(lambda: machine.stopped() == [("stubborn", 20)])
    machine.node.clock.advance(20)

    await eventually(lambda: machine.logind.locks == 0)
    assert (machine.phase("critical"), machine.phase("stubborn")) == ("Failed", "Running")


async def test_the_kubelet_of_the_next_boot_knows_when_the_last_one_shut_down(
    machine: Machine, eventually: Any
) -> None:
    machine.boot().limit = 30
    machine.begin(*TWO)
    await running(machine, eventually, named("stubborn"))
    await eventually(lambda: machine.logind.locks == 1)
    machine.node.runtime.ignores_term = {"stubborn"}
    assert machine.told_of() == [0, 0]
    machine.node.clock.advance(0.5)
    began = int(machine.node.clock.now())

    machine.logind.prepare_for_shutdown(True)
    await eventually(lambda: machine.stopped() == [("stubborn", 20)])
    assert machine.told_of() == machine.told_of(ShutdownTimes(machine.state_file, machine.node.clock)) == [began, 0]
    machine.node.clock.advance(20)

    await eventually(lambda: machine.logind.locks == 0)
    again = ShutdownTimes(machine.state_file, machine.node.clock)
    assert machine.told_of() == machine.told_of(again) == [began, began + 20]
    again.begin()
    assert machine.told_of(again) == [began + 20, 0]
    assert [each.name for each in again.measures()] == [
        "kubelet_graceful_shutdown_start_time_seconds",
        "kubelet_graceful_shutdown_end_time_seconds",
    ]


@pytest.mark.parametrize("text", ["", "{", '{"startTime": "noon"}', '{"startTime": 7}'])
async def test_a_damaged_record_of_the_last_shutdown_is_as_good_as_none(
    machine: Machine, eventually: Any, text: str
) -> None:
    machine.state_file.write_text(text)
    machine.times = ShutdownTimes(machine.state_file, machine.node.clock)
    assert machine.told_of() == [0, 0]
    machine.boot().limit = 30
    machine.begin(*TWO)
    await eventually(lambda: machine.logind.locks == 1)
    machine.logind.prepare_for_shutdown(True)
    await eventually(lambda: machine.logind.locks == 0)
    assert machine.told_of(ShutdownTimes(machine.state_file, machine.node.clock))[0] > 0


async def test_a_pod_that_is_being_deleted_has_no_more_time_than_the_others(machine: Machine, eventually: Any) -> None:
    machine.boot().limit = 30
    machine.begin(*TWO)
    wish = named("leaving", grace=600)
    await running(machine, eventually, wish)
    await eventually(lambda: machine.logind.locks == 1)
    machine.node.runtime.ignores_term = {"leaving"}
    gone = {"deletion_timestamp": "2023-11-14T22:14:20Z", "deletion_grace_period_seconds": 600}
    machine.node.workers.update(msgspec.structs.replace(wish, metadata=msgspec.structs.replace(wish.metadata, **gone)))
    await eventually(lambda: machine.stopped() == [("leaving", 600)])

    machine.logind.prepare_for_shutdown(True)
    await eventually(lambda: machine.stopped() == [("leaving", 600), ("leaving", 20)])
    machine.kill("leaving")
    await eventually(lambda: machine.logind.locks == 0)


async def test_meanwhile_the_node_is_not_ready_and_refuses_pods(machine: Machine, eventually: Any) -> None:
    machine.boot().limit = 30
    machine.begin(*TWO)
    await eventually(lambda: machine.logind.locks == 1)
    machine.logind.prepare_for_shutdown(True)
    await eventually(lambda: machine.changes == [True])

    machine.node.workers.update(named("late"))

    await eventually(lambda: machine.phase("late") == "Failed")
    refused = machine.status("late")
    message = "Pod was rejected as the node is shutting down."
    assert (refused["reason"], refused["message"]) == ("NodeShutdown", f"Pod was rejected: {message}")
    assert f"Warning NodeShutdown {message}" in machine.node.events


async def test_a_shutdown_that_is_called_off_makes_the_node_ready_again_under_a_new_lock(
    machine: Machine, eventually: Any
) -> None:
    machine.boot().limit = 30
    machine.begin(*TWO)
    await eventually(lambda: machine.logind.locks == 1)
    machine.logind.prepare_for_shutdown(True)
    await eventually(lambda: machine.logind.locks == 0)

    machine.logind.prepare_for_shutdown(False)

    await eventually(lambda: machine.logind.locks == 1)
    assert machine.changes == [True, False]
    await running(machine, eventually, named("welcome"))
    assert machine.events[-1] == "Normal Shutdown Shutdown manager detected shutdown cancellation"


async def test_logind_is_configured_to_wait_as_long_as_all_periods_last(machine: Machine, eventually: Any) -> None:
    machine.boot()
    machine.begin(*TWO)
    await eventually(lambda: machine.logind.locks == 1)
    assert machine.override.read_text() == "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=30\n"
    assert machine.logind.reloads == 1
    message = f"logind delays shutdowns by 30 s instead of 5 s at most: {machine.override} says so"
    assert machine.events == [f"Normal InhibitDelayRaised {message}"]


async def test_a_logind_that_does_not_heed_its_configuration_is_told_of_once(machine: Machine, eventually: Any) -> None:
    machine.boot().heeds_override = False
    machine.begin(*TWO)
    await eventually(lambda: machine.tries_again() and machine.attempts > 3)
    assert (machine.logind.reloads, machine.logind.locks) == (1, 0)
    (told,) = machine.events
    assert told.startswith(
        "Warning NodeShutdownNotDelayed pods will have no time to end when this machine shuts down: "
    )
    assert "unable to update logind InhibitDelayMaxSec to 30 s (ShutdownGracePeriod)" in told


async def test_a_host_without_logind_is_told_of_once_and_one_that_comes_later_is_found(
    machine: Machine, eventually: Any
) -> None:
    machine.begin(*TWO)
    await eventually(lambda: machine.events)
    await eventually(lambda: machine.tries_again() and machine.attempts > 3)
    assert len(machine.events) == 1
    assert not machine.override.exists()

    machine.boot().limit = 30

    await eventually(lambda: machine.tries_again() and machine.logind.locks)


async def test_a_bus_that_cannot_be_reached_by_us_is_as_good_as_none(machine: Machine, eventually: Any) -> None:
    machine.address = "tcp:host=127.0.0.1,port=1"
    machine.begin(*TWO)
    await eventually(lambda: machine.tries_again() and machine.attempts > 2)
    (told,) = machine.events
    assert "not supported" in told


async def test_a_kubelet_that_comes_after_one_that_saw_the_shutdown_begin_goes_on_with_it(
    machine: Machine, eventually: Any
) -> None:
    machine.boot().limit = 30
    machine.logind.shutting_down = True
    machine.begin(*TWO)
    await eventually(lambda: machine.changes == [True])
    assert (machine.logind.locks, machine.logind.inhibits) == (0, [])


async def test_only_logind_can_say_that_the_machine_shuts_down(machine: Machine, eventually: Any) -> None:
    machine.boot().limit = 30
    machine.begin(*TWO)
    await eventually(lambda: machine.logind.locks == 1)

    await asyncio.to_thread(impostor, machine.address)
    machine.logind.prepare_for_shutdown(False)

    await eventually(lambda: machine.events)
    assert machine.events == ["Normal Shutdown Shutdown manager detected shutdown cancellation"]


def test_a_node_that_delays_no_shutdown_does_not_load_the_library() -> None:
    code = "import sys, minikube_raw.kubelet.main, minikube_raw.kubelet.standalone; print('jeepney' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


async def test_without_a_grace_period_no_bus_is_asked(machine: Machine) -> None:
    machine.shutdown = NodeShutdown(
        (),
        lambda: pytest.fail("a bus was asked"),
        lambda: machine.node.workers,
        tell=lambda *event: None,
        changed=lambda: None,
        told=machine._told,
        times=machine.times,
        clock=machine.node.clock,
    )
    await machine.shutdown.run()
