"""A machine with a node on it is rebooted: the real logind waits until the node's pods have ended, and the API server knows why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.api import create, in_phase, status, until
from tests.lab.machine import Machine

OVERRIDE = "/etc/systemd/logind.conf.d/99-kubelet.conf"
PERIODS = "--shutdown-grace-period 25s --shutdown-grace-period-critical-pods 5s"
LIMIT = "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager InhibitDelayMaxUSec"
SCRIPT = """
trap 'sleep 4; echo politely >> /said/polite; exit 0' TERM
echo started >> /said/polite
while true; do sleep 0.2; done
"""


@pytest.fixture
def cluster(lab: Machine) -> Iterator[Machine]:
    """A cluster of one node that asks for more time than logind gives by itself."""
    lab.product(f"up --nodes 1 --timeout 240 {PERIODS}", timeout=400)
    yield lab
    lab.product("down")
    lab.run(f"rm -rf {OVERRIDE} /var/said && systemctl kill -s HUP systemd-logind")


def test_a_reboot_waits_until_the_pods_of_a_node_have_ended(cluster: Machine) -> None:
    container = {"command": ["sh", "-c", SCRIPT], "volumeMounts": [{"name": "said", "mountPath": "/said"}]}
    said = {"name": "said", "hostPath": {"path": "/var/said", "type": "DirectoryOrCreate"}}
    create(cluster, "polite", container, volumes=[said], terminationGracePeriodSeconds=600)
    until(lambda: cluster.run("cat /var/said/polite 2>/dev/null || true"), lambda text: text == "started\n")
    in_phase(cluster, "polite", "Running")
    until(lambda: cluster.run("systemd-inhibit --list --no-legend"), lambda locks: "Kubelet needs time" in locks)
    assert "InhibitDelayMaxSec=25" in cluster.run(f"cat {OVERRIDE}")
    assert cluster.run(f"busctl get-property {LIMIT}") == "t 25000000\n"

    cluster.reboot()

    assert cluster.run("cat /var/said/polite") == "started\npolitely\n"
    cluster.product("start --timeout 240", timeout=400)
    ended = status(cluster, "polite")
    assert (ended["phase"], ended["reason"]) == ("Failed", "Terminated")
    assert ended["message"] == "Pod was terminated in response to imminent node shutdown."
    (target,) = [each for each in ended["conditions"] if each["type"] == "DisruptionTarget"]
    assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
