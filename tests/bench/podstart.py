"""Pod start to the first instruction, beside other runtimes on the same root file system, in turn.

The first instruction is a clock read (CLOCK_MONOTONIC) by a static binary in the container, which it prints; no clock
of ours decides. Ours includes sandbox, bridge network with masquerading, limits and the log. A node that runs pods of few images
has their overlays mounted ahead; what a pod of another image takes is a figure of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tarfile
import tempfile
import time
import types
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from minikube_raw.cni.libcni import Network
from minikube_raw.linux import mounts
from minikube_raw.linux.cgroups import manager
from minikube_raw.oci.images import ImageStore
from minikube_raw.runtime.cri import ContainerConfig, ContainerState, LinuxContainerResources, PodSandboxConfig
from minikube_raw.runtime.launching import launcher_argv, launcher_socket
from minikube_raw.runtime.roots import KEPT
from minikube_raw.runtime.service import Runtime
from tests.bench import peers, report

ROUNDS = 40
CGROUP = f"minikube-raw-bench-{os.getpid()}"  # benches may run beside each other
IMAGE = "docker.io/library/clock:latest"
OTHERS = [f"docker.io/library/clock:{number}" for number in range(KEPT + 1)]  # by turns: none is among those used last
CLOCK = r"""
#include <stdio.h>
#include <time.h>
int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    return 0;
}
"""
CONFLIST = {
    "cniVersion": "1.0.0",
    "name": "bench",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "benchbr0",
            "isDefaultGateway": True,
            "ipMasq": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.249.0.0/16"}]], "dataDir": "DATA"},
        }
    ],
}


def measure() -> list[report.Section]:
    """Build the clock, then start it by turns under ours and each peer that is installed."""
    with tempfile.TemporaryDirectory(prefix="mkr-bench-") as name:
        folder = Path(name)
        archive = build_image(folder)
        with peers.installed(folder, archive, IMAGE) as others:
            times = asyncio.run(in_turn(folder, archive, {peer.name: peer.command for peer in others}))
    ours = times["ours"]
    figures = [
        report.Figure(
            "sandbox + bridge + container → first instruction", report.milliseconds(ours), "≤ 15 ms (p95 ≤ 30)"
        ),
        report.Figure(
            "the same, of an image that none of the last pods had", report.milliseconds(times["of another image"])
        ),
    ]
    for peer in others:
        share = report.ratio(ours, times[peer.name])
        note = f"{peer.note}; ours is {share:.3f} of it (≤ {peer.most:.2g})"
        figures.append(
            report.Figure(f"`{peer.name}`, the same program", report.milliseconds(times[peer.name]), "", note)
        )
    load = f"{ROUNDS} rounds, one of each in turn; load average {report.load()} at the end."
    return [
        report.Section("Pod start", f"To the first instruction of a static binary in the container. {load}", figures)
    ]


def build_image(folder: Path, programs: Mapping[str, str] = types.MappingProxyType({"clock": CLOCK})) -> Path:
    """Compile programs (C sources by name) and put them into a docker-save archive; return its path."""
    root = folder / "rootfs"
    root.mkdir()
    for place in ("proc", "dev", "sys", "etc", "tmp"):
        (root / place).mkdir()
    for name, source in programs.items():
        (folder / f"{name}.c").write_text(source)
        subprocess.run(["gcc", "-O2", "-static", "-o", root / name, folder / f"{name}.c"], check=True)
    with tarfile.open(folder / "layer.tar", "w") as layer:
        layer.add(root, ".")
    digest = subprocess.run(
        ["sha256sum", folder / "layer.tar"], check=True, capture_output=True, text=True
    ).stdout.split()[0]
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = {"architecture": architecture, "os": "linux", "config": {"Cmd": ["/clock"]}}
    config["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "manifest.json").write_text(
        json.dumps([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}])
    )
    return _pack(folder)


def build_others(folder: Path) -> list[Path]:
    """The same program as images of their own, for a folder that build_image() has filled; return their archives."""
    config = json.loads((folder / "config.json").read_text())
    archives = []
    for name in OTHERS:
        other = folder / name.rpartition(":")[2]
        other.mkdir()
        config["config"]["Labels"] = {"name": name}
        (other / "config.json").write_text(json.dumps(config))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest[0]["RepoTags"] = [name]
        (other / "manifest.json").write_text(json.dumps(manifest))
        (other / "layer.tar").symlink_to(folder / "layer.tar")
        archives.append(_pack(other))
    return archives


def _pack(folder: Path) -> Path:
    with tarfile.open(folder / "clock.tar", "w", dereference=True) as archive:
        for part in ("manifest.json", "config.json", "layer.tar"):
            archive.add(folder / part, part)
    return folder / "clock.tar"


async def in_turn(folder: Path, archive: Path, others: dict[str, list[str]]) -> dict[str, list[float]]:
    """Seconds to the first instruction by runtime."""
    times: dict[str, list[float]] = {name: [] for name in ("ours", "of another image", *others)}
    store = ImageStore(folder / "images")
    for each in (archive, *build_others(folder)):
        store.load(each)
    async with runtime(folder, store) as ours:
        for n in range(-3, ROUNDS):  # the first three warm everybody up
            taken = {"ours": await start_pod(ours, store, folder, f"round-{n + 3}")}
            other = OTHERS[n % len(OTHERS)]
            taken["of another image"] = await start_pod(ours, store, folder, f"other-{n + 3}", image_name=other)
            for name, command in others.items():
                taken[name] = await asyncio.to_thread(start_peer, [word.replace("ID", f"c{n + 3}") for word in command])
            if n >= 0:
                for name, seconds in taken.items():
                    times[name].append(seconds)
    return times


@asynccontextmanager
async def runtime(folder: Path, store: ImageStore, cgroup: str = CGROUP) -> AsyncIterator[Runtime]:
    """Our runtime with a launcher of its own; its pods' cgroups lie below `cgroup`."""
    state, run = folder / "node", folder / "run"
    for place in (state, run):
        place.mkdir()
    mounts.tmpfs(str(run))  # as a node's is
    network = Network(json.loads(json.dumps(CONFLIST).replace("DATA", str(run / "ipam"))), cache_dir=run / "cni")
    with subprocess.Popen(launcher_argv(run)) as launcher:  # noqa: ASYNC220 (nothing else runs in this loop yet)
        while not Path(launcher_socket(run)).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        service = Runtime(state, run, cgroup, store, network)
        await service.start()
        try:
            yield service
        finally:
            await service.settled()
            await service.close()
            launcher.kill()
    mounts.umount_all(str(run))
    await asyncio.to_thread(subprocess.run, ["ip", "link", "delete", "benchbr0"], check=False)
    manager(cgroup).remove()


async def start_pod(
    service: Runtime, store: ImageStore, folder: Path, name: str, *, keep: bool = False, image_name: str = IMAGE
) -> float:
    """One pod: seconds from asking for the sandbox to what the clock inside read. It is removed unless `keep` is asked."""
    image = store.resolve(image_name)
    assert image is not None
    logs = f"{folder}/logs/{name}"
    limits = LinuxContainerResources(cpu_shares=102, cpu_quota=100_000, memory_limit_in_bytes=64 << 20, pids_limit=100)
    sandbox_config = PodSandboxConfig(
        name=name, namespace="bench", uid=name, log_directory=logs, cgroup_parent=f"pods/{name}"
    )
    began = time.monotonic_ns()
    sandbox = await service.run_pod_sandbox(sandbox_config)
    container = await service.create_container(
        sandbox, ContainerConfig(name="main", attempt=0, image=image.id, log_path="main/0.log", resources=limits)
    )
    await service.start_container(container)
    while True:
        status = await service.container_status(container)
        assert status is not None
        if status.state is ContainerState.EXITED:
            break
        await asyncio.sleep(0.002)
    first_instruction = int(Path(status.log_path).read_text().split()[3])
    if not keep:
        await service.stop_pod_sandbox(sandbox)
        await service.remove_pod_sandbox(sandbox)
    return (first_instruction - began) / 1e9


def start_peer(command: list[str]) -> float:
    """One container of a peer, timed in the same way."""
    began = time.monotonic_ns()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return (int(done.stdout.split()[0]) - began) / 1e9
