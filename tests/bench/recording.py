"""What recording a pod's trace costs: CPU time of pods started with and without it, by turns.

Each turn is a runtime of its own in a process of its own; counted are that process, its launcher and all that the launcher
has reaped (keepers, containers' first processes), so that the machine's load does not matter.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from minikube_raw.oci.images import ImageStore
from tests.bench import podstart, report

TURNS = 5
PODS = 100


def measure() -> list[report.Section]:
    """Milliseconds of CPU per pod, recorded and not."""
    recorded, not_recorded = [], []
    for _ in range(TURNS):
        recorded.append(_turn(record=True))
        not_recorded.append(_turn(record=False))
    on, off = statistics.median(recorded), statistics.median(not_recorded)
    note = f"medians of {TURNS} turns of {PODS} pods each; smallest {min(recorded):.2f} and {min(not_recorded):.2f} ms"
    figures = [
        report.Figure("CPU time of a pod's start and end, recorded", f"{on:.2f} ms"),
        report.Figure("the same, not recorded", f"{off:.2f} ms"),
        report.Figure("cost of recording", f"{100 * (on / off - 1):.1f} %", "≤ 3 %", note),
    ]
    return [report.Section("Trace", "CPU time by the kernel's count, not the clock's.", figures)]


def _turn(*, record: bool) -> float:
    environment = {**os.environ, **({} if record else {"MINIKUBE_RAW_NO_STEPS": "1"})}
    done = subprocess.run([sys.executable, "-m", __name__], env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


async def _cpu_per_pod(folder: Path) -> float:
    store = ImageStore(folder / "images")
    store.load(podstart.build_image(folder))
    async with podstart.runtime(folder, store) as runtime:
        launcher = next(child for child in psutil.Process().children() if "launcher" in " ".join(child.cmdline()))
        for number in range(3):
            await podstart.start_pod(runtime, store, folder, f"warm-{number}")
        before = _spent(launcher)
        for number in range(PODS):
            await podstart.start_pod(runtime, store, folder, f"pod-{number}")
        await runtime.settled()
        return 1000 * (_spent(launcher) - before) / PODS


def _spent(launcher: psutil.Process) -> float:
    ours, theirs = psutil.Process().cpu_times(), launcher.cpu_times()
    return float(sum(ours[:2]) + sum(theirs[:4]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="mkr-bench-") as name:
        print(asyncio.run(_cpu_per_pod(Path(name))))
