"""A pod's trace is put together from what several processes append, and from what keepers of earlier releases send."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minikube_raw.linux import steps
from minikube_raw.runtime import recording, trace


def test_a_trace_puts_everybodys_steps_on_one_line_of_time(tmp_path: Path) -> None:
    path = trace.trace_path(str(tmp_path), "ns", "pod")
    made = trace.PodTrace(path, "ns/pod")
    began = made.began
    packed = recording.pack([(began + 3_000_000, 500_000, "umount2", ("/proc", 2))])
    recording.append(path, recording.part("child", 7, packed))
    made.add([json.dumps([[began + 1_000_000, 250_000, "open_tree", "/a"]])])  # as keepers of earlier releases send it
    made.program_ran(began + 5_000_000)
    made.program_ran(began + 9_000_000)
    made.save()
    found = trace.load(str(tmp_path), "ns", "pod")
    assert found == {
        "pod": "ns/pod",
        "start_ms": 5.0,
        "steps": [
            {"at_ms": 1.0, "took_ms": 0.25, "what": "open_tree", "object": "/a", "who": "keeper", "pid": 0},
            {"at_ms": 3.0, "took_ms": 0.5, "what": "umount2", "object": "/proc, MNT_DETACH", "who": "child", "pid": 7},
        ],
    }
    trace.forget(str(tmp_path), "ns", "pod")
    trace.forget(str(tmp_path), "ns", "pod")
    assert trace.load(str(tmp_path), "ns", "pod") is None


@pytest.mark.parametrize("length", [5, 40, 60])
def test_a_part_that_is_being_written_is_not_shown(tmp_path: Path, length: int) -> None:
    path = trace.trace_path(str(tmp_path), "ns", "pod")
    made = trace.PodTrace(path, "ns/pod")
    part = recording.part("keeper", 7, recording.pack([(made.began, 1, "mkdir", "/x" * 20)]))
    recording.append(path, part)
    recording.append(path, part[:length])
    found = trace.load(str(tmp_path), "ns", "pod")
    assert found is not None
    assert len(found["steps"]) == 1


def test_what_the_kubelet_does_is_recorded_when_it_is_saved(tmp_path: Path) -> None:
    path = trace.trace_path(str(tmp_path), "ns", "pod")
    made = trace.PodTrace(path, "ns/pod")
    made.record(lambda: steps.end(steps.begin(), "mkdir", "/x"), who="cni")
    made.block("RunPodSandbox", "ns/pod", made.began)
    made.save()
    found = trace.load(str(tmp_path), "ns", "pod")
    assert found is not None
    told = {(step["who"], step["what"], step["object"]) for step in found["steps"]}
    assert told == {("cni", "mkdir", "/x"), ("kubelet", "RunPodSandbox", "ns/pod")}


def test_a_new_pod_of_a_name_begins_anew_and_a_trace_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    path = trace.trace_path(str(tmp_path), "default", "pod")
    trace.PodTrace(path, "default/pod").block("RunPodSandbox", "old", 1)
    trace.PodTrace(path, "default/pod").save()
    assert trace.load(str(tmp_path), "default", "pod") == {"pod": "default/pod", "start_ms": None, "steps": []}
    trace.forget(str(tmp_path), "default", "pod")
    recording.append(path, recording.part("keeper", 7, recording.pack([(1, 1, "mkdir", "/x")])))
    assert trace.load(str(tmp_path), "default", "pod") is None


def test_a_trace_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = trace.trace_path(str(tmp_path), "default", "pod")
    trace.PodTrace(path, "default/pod")
    part = recording.part("keeper", 7, recording.pack([(1, 1, "mkdir", "/x" * 5000)]))
    for _ in range(2 * recording.MOST_BYTES // len(part)):
        recording.append(path, part)
    assert Path(path).stat().st_size < recording.MOST_BYTES + len(part)


def test_an_argument_that_is_no_plain_value_costs_no_start_its_steps() -> None:
    packed = recording.pack([(1, 2, "open", (Path("/x"), 3))])
    assert recording.unpack(packed) == [(1, 2, "open", str((Path("/x"), 3)))]


def test_nothing_recorded_is_nothing_written() -> None:
    assert recording.part("keeper", 7, recording.pack([])) == b""
