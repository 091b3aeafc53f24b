"""Rotation of container logs: by size and number, without losing or doubling a line."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import msgspec
import pytest
from fake_runtime import FakeRuntime

from minikube_raw.client.clock import ManualClock
from minikube_raw.kubelet.logrotation import MONITOR_SECONDS, LogRotation, RotationPolicy
from minikube_raw.runtime import cri
from minikube_raw.runtime.logs import LogFile


class Runtime(FakeRuntime):
    """One running container whose log is a keeper's; its keeper may be away."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.log = LogFile(str(path))
        self.keeper_is_away = False
        self.written = 0

    def write(self, lines: int) -> None:
        for _ in range(lines):
            self.written += 1
            self.log.write("stdout", b"%d\n" % self.written)

    async def list_containers(self, sandbox_id: str | None = None) -> list[cri.ContainerStatus]:
        status = cri.ContainerStatus("c1", "s1", "c", 0, "i", "i", cri.ContainerState.RUNNING, 0)
        return [msgspec.structs.replace(status, log_path=self.log.path)]

    async def reopen_container_log(self, container_id: str) -> None:
        self.write(1)  # what comes between the renaming and this goes into the old file
        if self.keeper_is_away:
            raise cri.RuntimeServiceError("RuntimeUnavailable", "no keeper answers")
        self.log.reopen()


class Rotated:
    """A rotation over a runtime, one look at a time."""

    def __init__(self, path: Path, max_files: int = 4) -> None:
        self.path, self.runtime, self.clock = path, Runtime(path), ManualClock()
        self.told: list[tuple[str, str]] = []
        tell = lambda *names: self.told.append(names)  # noqa: E731
        self.rotation = LogRotation(self.runtime, RotationPolicy(1000, max_files), self.clock, tell)

    async def write_and_look(self, lines: int = 100) -> None:
        self.runtime.write(lines)
        self.clock.advance(MONITOR_SECONDS)
        await self.rotation.look()

    def files(self) -> list[str]:
        return sorted(os.listdir(self.path.parent))

    def numbers(self) -> list[int]:
        """The lines in all files, oldest first."""
        names = [name for name in self.files() if name != self.path.name] + [self.path.name]
        found: list[int] = []
        for name in names:
            path = self.path.with_name(name)
            data = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
            found += [int(line.rpartition(b" ")[2]) for line in data.splitlines()]
        return found


@pytest.fixture
def rotated(tmp_path: Path) -> Rotated:
    (tmp_path / "c").mkdir()
    return Rotated(tmp_path / "c/0.log")


async def test_a_log_within_its_size_is_left_alone(rotated: Rotated) -> None:
    await rotated.write_and_look(lines=2)

    assert rotated.files() == ["0.log"]


async def test_a_log_that_grew_too_large_goes_on_in_a_new_file_without_losing_a_line(rotated: Rotated) -> None:
    await rotated.write_and_look()
    await rotated.write_and_look()

    assert rotated.files() == ["0.log", "0.log.20231114-221330.gz", "0.log.20231114-221340"]
    assert rotated.numbers() == list(range(1, rotated.runtime.written + 1))
    assert {(rotated.path.parent / name).stat().st_mode & 0o777 for name in rotated.files()} == {0o640}
    assert rotated.told[-1] == (str(rotated.path), f"{rotated.path}.20231114-221340")


async def test_the_oldest_files_go_and_what_is_left_has_no_gap(rotated: Rotated) -> None:
    for _ in range(8):
        await rotated.write_and_look()

    assert len(rotated.files()) == 4
    numbers = rotated.numbers()
    assert numbers == list(range(numbers[0], rotated.runtime.written + 1))


async def test_when_the_keeper_is_away_output_goes_on_in_the_same_file(rotated: Rotated) -> None:
    rotated.runtime.keeper_is_away = True
    await rotated.write_and_look()
    assert rotated.files() == ["0.log"]
    rotated.runtime.keeper_is_away = False
    await rotated.write_and_look()

    assert rotated.files() == ["0.log", "0.log.20231114-221340"]
    assert rotated.numbers() == list(range(1, rotated.runtime.written + 1))


async def test_what_a_crash_left_half_compressed_is_done_again(rotated: Rotated) -> None:
    await rotated.write_and_look()
    old = rotated.path.with_name("0.log.20231114-221330")
    old.with_name(f"{old.name}.tmp").write_bytes(b"half")
    await rotated.write_and_look()
    assert rotated.files() == ["0.log", f"{old.name}.gz", "0.log.20231114-221340"]

    old.write_bytes(b"compressed already, and not yet removed")
    await rotated.write_and_look()
    assert old.name not in rotated.files()
    assert rotated.numbers() == list(range(1, rotated.runtime.written + 1))
