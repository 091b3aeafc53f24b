"""Names that users and images write, and what they mean: capabilities, signals, recorded steps, switches for features."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minikube_raw.linux import capabilities, features, rlimits, signals, steps

DEFAULT = capabilities.mask(capabilities.DEFAULT)
EVERY = capabilities.mask(["ALL"])


def bit(name: str) -> int:
    return 1 << capabilities.NUMBERS[name]


@pytest.mark.parametrize(
    ("add", "drop", "privileged", "expected"),
    [
        pytest.param([], [], False, DEFAULT, id="default"),
        pytest.param(["NET_ADMIN"], [], False, DEFAULT | bit("CAP_NET_ADMIN"), id="added without prefix"),
        pytest.param(["cap_sys_time"], [], False, DEFAULT | bit("CAP_SYS_TIME"), id="added in small letters"),
        pytest.param([], ["CHOWN"], False, DEFAULT & ~bit("CAP_CHOWN"), id="dropped"),
        pytest.param([], ["ALL"], False, 0, id="all dropped"),
        pytest.param(["NET_BIND_SERVICE"], ["ALL"], False, bit("CAP_NET_BIND_SERVICE"), id="one beside all dropped"),
        pytest.param(["ALL"], ["ALL"], False, 0, id="all added and all dropped"),
        pytest.param(["all", "CHOWN"], ["all"], False, bit("CAP_CHOWN"), id="one beside all added and all dropped"),
        pytest.param(["ALL"], ["SYS_ADMIN"], False, EVERY & ~bit("CAP_SYS_ADMIN"), id="all but one"),
        pytest.param([], [], True, EVERY, id="privileged"),
        pytest.param([], ["SYS_ADMIN"], True, EVERY & ~bit("CAP_SYS_ADMIN"), id="privileged but one"),
    ],
)
def test_a_containers_capabilities(add: list[str], drop: list[str], privileged: bool, expected: int) -> None:
    assert capabilities.container_set(add, drop, privileged=privileged) == expected


def test_the_default_is_containerds_fourteen() -> None:
    assert DEFAULT == 0xA80425FB


def test_an_unknown_capability_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="unknown capability NONSENSE"):
        capabilities.mask(["NONSENSE"])


def test_names_and_masks_are_each_others_inverse() -> None:
    assert capabilities.mask(capabilities.names(DEFAULT)) == DEFAULT
    assert capabilities.names(EVERY) == list(capabilities.NAMES)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", 15),
        ("TERM", 15),
        ("term", 15),
        ("9", 9),
        ("SIGRTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMIN+30", 64),
        ("64", 64),
    ],
)
def test_a_signal_by_any_of_its_names(name: str, number: int) -> None:
    assert signals.number(name) == number


@pytest.mark.parametrize("name", ["", "0", "65", "SIGNONSENSE", "SIGRTMIN+31", "SIGRTMIN+x", "-9", "SIG"])
def test_what_is_no_signal_is_a_value_error(name: str) -> None:
    with pytest.raises(ValueError):
        signals.number(name)


def test_nothing_is_recorded_unless_asked_for() -> None:
    steps.end(steps.begin(), "mount", "/")
    assert steps.begin() == 0
    assert steps.take() == []


def test_steps_are_taken_once_in_order_with_their_times() -> None:
    steps.start_recording()
    with steps.step("outer", 1), steps.step("inner", "x"):
        pass
    (inner, outer), again = steps.take(), steps.take()
    assert (inner[2:], outer[2:]) == (("inner", "x"), ("outer", "1"))
    assert outer[0] <= inner[0]
    assert outer[1] >= inner[1] >= 0
    assert again == []
    assert steps.recording()
    assert steps.stop_recording() == []
    assert not steps.recording()


def test_a_step_that_fails_is_recorded_too() -> None:
    steps.start_recording()
    with pytest.raises(ZeroDivisionError), steps.step("divide"):
        _ = 1 // 0
    assert [step[2] for step in steps.stop_recording()] == ["divide"]


def test_each_thread_records_for_itself() -> None:
    steps.start_recording()
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(steps.recording()))
    thread.start()
    thread.join()
    steps.stop_recording()
    assert seen == [False]


def test_a_feature_is_off_when_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIKUBE_RAW_NO_OPENAT2", "1")
    features.forget()
    assert features.openat2() is False
    monkeypatch.undo()
    features.forget()
    assert set(features.all()) >= {"openat2", "overlay_lowerdir_plus", "cgroup_kill", "clone_into_cgroup", "psi"}


@pytest.mark.parametrize("feature", ["overlay_lowerdir_plus", "tmpfs_noswap"])
def test_a_file_system_that_takes_any_option_until_it_is_created_is_not_believed(
    feature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does overlay before Linux 6.5."""
    monkeypatch.setattr(features.mount_calls, "fsopen", lambda name: os.open(os.devnull, os.O_RDONLY))
    for call in ("fsconfig_flag", "fsconfig_string"):
        monkeypatch.setattr(features.mount_calls, call, lambda *words: None)
    features.forget()
    believed = getattr(features, feature)()
    monkeypatch.undo()
    features.forget()
    assert not believed


def test_limits_are_named_as_oci_names_them() -> None:
    assert {"RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_NPROC"} <= set(rlimits.NUMBERS)


HEAVY = (
    "enum",
    "dataclasses",
    "typing",
    "contextlib",
    "collections",
    "functools",
    "re",
    "pathlib",
    "signal",
    "socket",
    "threading",
)


def test_what_starts_with_every_container_imports_nothing_heavy() -> None:
    """Each of these costs 1 to 10 ms at every start of launcher or plugin."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from minikube_raw.linux import capabilities, cgroups, features, fds, files, mounts, namespaces, pidfd, process\n"
        "from minikube_raw.linux import rlimits, signals, steps\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_recording_can_be_turned_off_for_good() -> None:
    script = "from minikube_raw.linux import steps; steps.start_recording(); print(steps.recording())"
    answers = [
        subprocess.run(
            [sys.executable, "-c", script], env=dict(os.environ) | more, check=True, capture_output=True
        ).stdout
        for more in ({}, {"MINIKUBE_RAW_NO_STEPS": "1"})
    ]
    assert answers == [b"True\n", b"False\n"]
