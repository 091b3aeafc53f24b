"""Graceful node shutdown of a whole node, kubelet and all, on a host whose logind is made by hand."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import Cluster, cluster_of_one
from tests.logind_service import LogindService, bus

from .manifests import pod
from .waiting import until

NODE = "going-1"
PERIODS = ("--shutdown-grace-period", "20s", "--shutdown-grace-period-critical-pods", "5s")
POLITE = (
    "trap 'sleep 1; echo politely > /dev/termination-log; exit 0' TERM; touch /ready; while true; do sleep 0.1; done"
)
READY = "readinessProbe: {exec: {command: [ls, /ready]}, periodSeconds: 1}"
pytestmark = pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="needs dbus-daemon")


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with bus(tmp_path) as found:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", found)
        yield found


async def eventually(look: Any, wanted: Any, seconds: float = 30) -> Any:
    """Wait in a thread, so that logind answers meanwhile."""
    return await asyncio.to_thread(until, look, wanted, seconds=seconds)


async def locks(logind: LogindService, wanted: int) -> None:
    async with asyncio.timeout(60):
        while logind.locks != wanted:  # noqa: ASYNC110 -- locks are let go without a word
            await asyncio.sleep(0.05)


def ready(cluster: Cluster) -> tuple[str, str]:
    (found,) = [each for each in cluster.get("node", NODE)["status"]["conditions"] if each["type"] == "Ready"]
    return found["status"], found["message"]


def phases(cluster: Cluster) -> dict[str, str]:
    return {each["metadata"]["name"]: each["status"]["phase"] for each in cluster.get("pods")["items"]}


@pytest.mark.slow
async def test_a_node_that_shuts_down_ends_its_pods_and_says_so_before_the_machine_may_go(
    address: str, tmp_path: Path
) -> None:
    logind = LogindService(address, tmp_path / "unused")
    logind.limit = 30
    making = cluster_of_one(tmp_path, *PERIODS, name="going", port=6451)
    cluster = await asyncio.to_thread(making.__enter__)
    try:
        kubectl = cluster.kubectl
        await locks(logind, 1)
        wish = pod("polite", POLITE, container=READY).replace("PeriodSeconds: 1\n", "PeriodSeconds: 600\n")
        await asyncio.to_thread(kubectl, "apply", "-f", "-", stdin=wish)
        await asyncio.to_thread(kubectl, "wait", "pod/polite", "--for=condition=Ready", "--timeout=50s")

        logind.prepare_for_shutdown(True)
        await eventually(lambda: ready(cluster), lambda found: found == ("False", "node is shutting down"))
        late = pod("late", spec=f"nodeName: {NODE}")
        await asyncio.to_thread(kubectl, "apply", "-f", "-", stdin=late)
        await locks(logind, 0)

        # The API server has been told before the lock was released.
        status = (await asyncio.to_thread(cluster.get, "pod", "polite"))["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "Terminated")
        assert status["message"] == "Pod was terminated in response to imminent node shutdown."
        assert status["containerStatuses"][0]["state"]["terminated"]["message"] == "politely\n"
        assert "TerminationByKubelet" in [each.get("reason") for each in status["conditions"]]
        await eventually(lambda: phases(cluster).get("late"), lambda phase: phase == "Failed")
        refused = (await asyncio.to_thread(cluster.get, "pod", "late"))["status"]
        assert refused["reason"] == "NodeShutdown"

        logind.prepare_for_shutdown(False)
        await eventually(lambda: ready(cluster)[0], lambda status: status == "True")
        assert logind.locks == 1
        await asyncio.to_thread(kubectl, "apply", "-f", "-", stdin=pod("welcome"))
        await asyncio.to_thread(kubectl, "wait", "pod/welcome", "--for=condition=Ready", "--timeout=50s")
    finally:
        await asyncio.to_thread(making.__exit__, None, None, None)
        logind.close()
