"""What recording a pod's trace costs: CPU time of pods started with and without it, by turns, pair by pair.

Two runtimes wait side by side, one of which records nothing, each in a process, a network namespace and a cgroup of its own. By
turns each starts and ends a few pods; the kernel's count of all that its cgroup did is what is compared, within each pair of
turns, so that neither the machine's load nor its slow changes matter. The interval is that of the pairs' median.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from minikube_raw.linux.cgroups import manager
from minikube_raw.oci.images import ImageStore
from tests.bench import podstart, report

PAIRS = 150
PODS = 8  # in one turn
CGROUP = f"minikube-raw-bench-recording-{os.getpid()}"


def measure() -> list[report.Section]:
    """CPU per pod, recorded and not, and how much more the first is."""
    with ExitStack() as stack:
        recorded = stack.enter_context(_side("recorded"))
        not_recorded = stack.enter_context(_side("not", MINIKUBE_RAW_NO_STEPS="1"))
        pairs = [_pair(recorded, not_recorded, number) for number in range(-3, PAIRS)][3:]
    more = sorted(100 * (on / off - 1) for on, off in pairs)
    low, high = _interval(more)
    note = f"median of {PAIRS} pairs of {PODS} pods each; 95 % interval {low:.1f} to {high:.1f} %"
    figures = [
        report.Figure(
            "CPU time of a pod's start and end, recorded", f"{statistics.median(on for on, _ in pairs) * 1e3:.2f} ms"
        ),
        report.Figure("the same, not recorded", f"{statistics.median(off for _, off in pairs) * 1e3:.2f} ms"),
        report.Figure("cost of recording", f"{statistics.median(more):.1f} %", "≤ 3 %", note),
    ]
    return [report.Section("Trace", "CPU time by the kernel's count, not the clock's.", figures)]


def _interval(ordered: Sequence[float]) -> tuple[float, float]:
    """The values between which the median lies with a probability of 95 %, by rank (binomial, as a normal distribution)."""
    half = 0.98 * len(ordered) ** 0.5
    middle = (len(ordered) - 1) / 2
    return ordered[max(round(middle - half), 0)], ordered[min(round(middle + half), len(ordered) - 1)]


def _pair(one: subprocess.Popen[str], other: subprocess.Popen[str], number: int) -> tuple[float, float]:
    """Seconds of CPU per pod of both; who is first changes from pair to pair."""
    if number % 2:
        later = _turn(other)
        return _turn(one), later
    return _turn(one), _turn(other)


def _turn(side: subprocess.Popen[str]) -> float:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write("go\n")
    side.stdin.flush()
    return float(side.stdout.readline())


@contextmanager
def _side(name: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that starts pods whenever it is told to, and answers what one of them cost."""
    cgroup = f"{CGROUP}-{name}"
    command = ["unshare", "--net", sys.executable, "-m", __name__, cgroup]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env={**os.environ, **environment}, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
    manager(cgroup).remove()


async def _serve(folder: Path, cgroup: str) -> None:
    store = ImageStore(folder / "images")
    store.load(podstart.build_image(folder))
    whole = manager(cgroup)
    ours = whole.child("processes")
    ours.create()
    ours.attach(os.getpid())
    numbers = itertools.count()
    async with podstart.runtime(folder, store, f"{cgroup}/pods") as runtime:
        while await asyncio.to_thread(sys.stdin.readline):
            before = whole.stats().cpu_usage_ns or 0
            for _ in range(PODS):
                await podstart.start_pod(runtime, store, folder, f"pod-{next(numbers)}")
            await runtime.settled()
            print(((whole.stats().cpu_usage_ns or 0) - before) / 1e9 / PODS, flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="mkr-bench-") as name:
        asyncio.run(_serve(Path(name), sys.argv[1]))
