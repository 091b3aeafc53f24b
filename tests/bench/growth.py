"""How a pod's start grows with the pods that are on the node already, what a pod costs in memory, and how long its end takes.

The pods that fill the node are sandboxes with a keeper, a network and a container that has ended. The kernel's own objects, made
by hand in the same run (kernelpods), and the reference's bridge plugin (attachments) say how others grow.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from minikube_raw.oci import recipes
from minikube_raw.oci.images import ImageStore
from minikube_raw.runtime.cri import ContainerConfig, PodSandboxConfig
from minikube_raw.runtime.service import Runtime
from tests.bench import attachments, disk, kernelpods, report
from tests.bench.podstart import build_image, runtime, start_pod
from tests.bench.processes import pss

PODS = 500
SAMPLE = 40
ENDS = 30
HEEDS = "trap 'exit 0' TERM; while :; do sleep 0.01; done"


def measure() -> list[report.Section]:
    """Fill a node and look at its first and last pods; then end pods that heed SIGTERM."""
    with tempfile.TemporaryDirectory(prefix="mkr-bench-") as name, disk.journaled(Path(name)) as folder:
        by_hand = {
            "made by hand": kernelpods.starts(PODS),
            "made by hand, without link-local addresses": kernelpods.starts(PODS, quiet=True),
        }
        adds = {
            "our bridge plugin's ADD": attachments.ours(PODS, folder),
            "the reference's": attachments.reference(PODS, folder),
        }
        starts, memory, ends = asyncio.run(_measure(folder))
    kernel = "namespace, veth on a bridge, cgroups, by `ip` and mkdir"
    return [
        report.Section(
            "Growth",
            f"{PODS} pods on one node, one after the other, the first {SAMPLE} → the last {SAMPLE}; the runtime alone, with a bridge "
            f"network. Load average {report.load()} at the end.",
            [
                _figure("start of a pod", starts, "flat"),
                *(_figure(f"the kernel's objects alone, {how}", times, "", kernel) for how, times in by_hand.items()),
                *(_figure(whose, times) for whose, times in adds.items() if times),
                report.Figure("a keeper's PSS, median of all", f"{memory / 1e6:.2f} MB", "≤ 1.5 MB"),
                report.Figure("stop and removal of a pod that heeds SIGTERM", report.milliseconds(ends), "≤ 50 ms"),
            ],
        )
    ]


def _figure(what: str, times: list[float], budget: str = "", note: str = "") -> report.Figure:
    value = f"{report.milliseconds(times[:SAMPLE])} → {report.milliseconds(times[-SAMPLE:])}"
    return report.Figure(what, value, budget, "; ".join(filter(None, (_growth(times), note))))


def _growth(starts: list[float]) -> str:
    first, last = statistics.median(starts[:SAMPLE]), statistics.median(starts[-SAMPLE:])
    return f"{last / first:.2f} of the first, {(last - first) * 1e3:+.1f} ms"


async def _measure(folder: Path) -> tuple[list[float], float, list[float]]:
    store = ImageStore(folder / "images")
    store.load(build_image(folder))
    busybox = recipes.ensure(store, "docker.io/library/busybox:latest").id
    async with runtime(folder, store) as service:
        ends = [await _end(service, busybox, folder, number) for number in range(ENDS)]
        starts = [await start_pod(service, store, folder, f"grown-{number}", keep=True) for number in range(PODS)]
        keepers = [int(path.name) for path in Path("/proc").glob("[0-9]*") if _title(path).startswith("keeper bench/")]
        memory = statistics.median(pss(pid) for pid in keepers)
        for sandbox in await service.list_pod_sandboxes():
            await service.remove_pod_sandbox(sandbox.id)
    return starts, memory, ends


async def _end(service: Runtime, image: str, folder: Path, number: int) -> float:
    config = PodSandboxConfig(
        name=f"end-{number}", namespace="bench", uid=f"end-{number}", log_directory=str(folder / "logs")
    )
    sandbox = await service.run_pod_sandbox(config)
    command = ("sh", "-c", HEEDS)
    created = await service.create_container(
        sandbox, ContainerConfig(name="main", attempt=0, image=image, command=command)
    )
    await service.start_container(created)
    await asyncio.sleep(0.05)  # the shell sets its trap; nothing tells when
    began = time.monotonic()
    await service.stop_container(created, 10)
    await service.remove_pod_sandbox(sandbox)
    return time.monotonic() - began


def _title(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
