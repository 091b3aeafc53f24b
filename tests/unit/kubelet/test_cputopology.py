"""The CPUs of a machine, read from a sysfs made by hand, and lists of CPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from minikube_raw.kubelet import cputopology
from minikube_raw.kubelet.cputopology import CPU, parse, show


@pytest.mark.parametrize("text", ["", "0", "0-2", "0,2-3,7", "0-15,128-255"])
def test_lists_are_written_as_the_kernel_writes_them(text: str) -> None:
    assert show(parse(text)) == text


@pytest.mark.parametrize("text", ["a", "3-1", "-1", "1-", "1;2"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid list of CPUs"):
        parse(text)


def test_a_kernel_without_topology_has_a_core_for_each(tmp_path: Path) -> None:
    assert all(cpu.core == cpu.number and cpu.socket == 0 for cpu in cputopology.read(tmp_path))


def test_a_core_and_a_cache_are_named_by_the_first_cpu_that_shares_them(tmp_path: Path) -> None:
    numbers = [cpu.number for cpu in cputopology.read(tmp_path)]
    for number in numbers:
        directory = tmp_path / f"cpu{number}"
        (directory / "topology").mkdir(parents=True)
        (directory / "topology/physical_package_id").write_text("1\n")
        (directory / "topology/thread_siblings_list").write_text("7,71\n")
        for level in ("2", "3"):
            (directory / f"cache/index{level}").mkdir(parents=True)
            (directory / f"cache/index{level}/level").write_text(f"{level}\n")
            (directory / f"cache/index{level}/shared_cpu_list").write_text(f"{5 * int(level)}-99\n")
    found = cputopology.read(tmp_path)
    assert found == tuple(CPU(socket=1, core=7, number=number, cache=15) for number in numbers)
