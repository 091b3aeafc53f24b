"""Huge pages that the kernel keeps: a node shows them, pods get them by volume and request, and no pod gets what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import Cluster, cluster_of_one

from .manifests import pod
from .waiting import until

PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
KEPT = 4
WRITE = """
import mmap, os
file = os.open("/huge/page", os.O_CREAT | os.O_RDWR)
os.ftruncate(file, 2 << 20)
with mmap.mmap(file, 2 << 20) as page:
    page[:5] = b"hello"
print(*[line.split()[1] for line in open("/proc/meminfo") if line.startswith(("HugePages_Total", "HugePages_Free"))])
"""


@pytest.fixture
def kept_pages() -> Iterator[None]:
    """A few huge pages that the kernel keeps until this test is over."""
    if not PAGES.exists():
        pytest.skip("the kernel has no huge pages of 2 MiB")
    before = PAGES.read_text()
    try:
        PAGES.write_text(str(int(before) + KEPT))
        if int(PAGES.read_text()) != int(before) + KEPT:
            pytest.skip("the kernel has no memory in one piece for huge pages")
        yield
    finally:
        PAGES.write_text(before)


@pytest.mark.slow
@pytest.mark.usefixtures("kept_pages")
def test_pods_use_the_huge_pages_of_their_node_and_wait_when_there_are_none_left(tmp_path: Path) -> None:
    amount = f"{int(PAGES.read_text()) * 2}Mi"
    volume = "restartPolicy: Never\nvolumes: [{name: huge, emptyDir: {medium: HugePages-2Mi}}]"
    all_pages = f"{{memory: 64Mi, hugepages-2Mi: {amount}}}"
    container = f"volumeMounts: [{{name: huge, mountPath: /huge}}]\nresources: {{limits: {all_pages}}}"
    with cluster_of_one(tmp_path, name="huge", port=6449) as cluster:
        status = cluster.get("node", "huge-1")["status"]
        assert status["capacity"]["hugepages-2Mi"] == status["allocatable"]["hugepages-2Mi"] == amount
        writer = pod("writer", spec=volume, container=container).replace("image: busybox", "image: python")
        late = pod("late", spec=volume, container=container)
        cluster.kubectl("apply", "-f", "-", stdin=writer)
        cluster.kubectl("wait", "pod/writer", "--for=condition=Ready", "--timeout=60s")

        said = cluster.kubectl("exec", "writer", "--", "python3", "-c", WRITE).stdout
        cluster.kubectl("apply", "-f", "-", stdin=late)
        refused = until(lambda: scheduling(cluster, "late"), lambda text: "Insufficient" in text, seconds=60)
        cluster.kubectl("delete", "pod", "writer", "--timeout=60s")
        cluster.kubectl("wait", "pod/late", "--for=condition=Ready", "--timeout=60s")

        total, free = said.split()
        assert int(free) == int(total) - 1
        assert "Insufficient hugepages-2Mi" in refused


def scheduling(cluster: Cluster, name: str) -> str:
    """Why a pod has no node, or ""."""
    conditions = cluster.get("pod", name)["status"].get("conditions", [])
    return next((each.get("message", "") for each in conditions if each["type"] == "PodScheduled"), "")
