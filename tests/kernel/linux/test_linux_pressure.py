"""PSI triggers on a real cgroup."""

from __future__ import annotations

import select
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from minikube_raw.linux import features, pressure
from minikube_raw.linux.cgroup_mounts import hierarchies
from minikube_raw.linux.cgroups import Cgroup, manager

pytestmark = [pytest.mark.root, pytest.mark.skipif(not features.psi(), reason="this kernel has no PSI")]


@pytest.fixture
def group() -> Iterator[Cgroup]:
    made = manager(f"minikube-raw-test-{uuid.uuid4().hex[:8]}")
    made.create()
    yield made
    made.kill_all(5)
    made.remove()


def test_a_trigger_is_readable_once_tasks_stall_and_again_after_it_was_taken(group: Cgroup) -> None:
    trigger = pressure.open_trigger(f"{hierarchies().unified}/{group.path}/cpu.pressure")
    busy = [
        subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"], preexec_fn=lambda: group.attach(0))
        for _ in range(4)  # more than there are CPUs: some of them always wait
    ]
    try:
        for _ in range(2):
            assert select.select([trigger], [], [], 20)[0] == [trigger]
            pressure.take(trigger)
    finally:
        for process in busy:
            process.kill()
            process.wait()
        pressure.close_trigger(trigger)


def test_a_cgroup_that_is_not_there_has_no_trigger() -> None:
    with pytest.raises(FileNotFoundError):
        pressure.open_trigger(f"{hierarchies().unified}/minikube-raw-test-none/memory.pressure")
