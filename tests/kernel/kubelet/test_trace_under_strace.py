"""A pod's trace is what happened: every call that strace sees stands in it with its arguments, and the other way round."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from typing import Any, NamedTuple

import pytest
from strace_lines import CALLS, Call, read, sorted_flags

pytestmark = pytest.mark.root

POD = """
apiVersion: v1
kind: Pod
metadata: {name: seen}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, emptyDir: {}}]
  securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "1024"}]}
  containers:
  - name: c
    image: busybox
    command: [sleep, "1000"]
    securityContext: {runAsUser: 1000, allowPrivilegeEscalation: false}
    volumeMounts: [{name: v, mountPath: /made/here}]
    resources: {limits: {cpu: 500m, memory: 64Mi}}
"""
# Words of a trace that are names of the calls strace was asked for.
COMPARED = {call for call in CALLS if not call.startswith(("send", "clone", "fork", "vfork", "execve"))} | {
    "clone",
    "netlink",
}
# What the kubelet does for one pod only; it makes threads and directories for itself too.
OF_A_POD = COMPARED - {"mkdir", "clone", "prctl"}
VERBS = {"add": "new", "set": "new", "replace": "new", "append": "new", "delete": "del"}  # rtnetlink's few
Json = dict[str, Any]


class Witnesses(NamedTuple):
    """What both say of one pod's start."""

    trace: Json
    calls: list[Call]
    parents: dict[int, int]  # thread → the thread of the same process that made it

    def traced(self, *who: str) -> Counter[tuple[str, str]]:
        """The steps of these in our trace."""
        steps = [step for step in self.trace["steps"] if step["who"] in who and step["what"] in COMPARED]
        return Counter(_comparable(step["what"], step["object"]) for step in steps)

    def seen(self, pids: set[int], *, failed: bool = False) -> Counter[tuple[str, str]]:
        """The calls of these processes that strace saw until the container's program ran; with `failed`, those that did too."""
        calls = [call for call in self.calls if call.thread in pids and call.what in COMPARED]
        return Counter((call.what, call.words) for call in calls if failed or call.result >= 0)

    def threads(self, pid: int) -> set[int]:
        """All threads of a process."""
        found = {pid}
        while more := {thread for thread, parent in self.parents.items() if parent in found} - found:
            found |= more
        return found

    def pids(self, who: str) -> set[int]:
        """The processes that our trace names so."""
        return {step["pid"] for step in self.trace["steps"] if step["who"] == who}


def _comparable(what: str, words: str) -> tuple[str, str]:
    """A step as strace_lines words a call."""
    if what == "prctl":
        return what, words if words.startswith("PR_CAPBSET_DROP") else words.split(" ")[0]
    if what == "capset":
        return what, f"effective={int(words.split('=')[1].split(',')[0], 16).bit_count()} capabilities"
    if what == "netlink":
        messages = [message.split() for message in words.split(";")]
        return what, ", ".join(f"{VERBS.get(verb, verb)} {kind}" for kind, verb, *_ in messages)
    return what, sorted_flags(words)


@pytest.fixture(scope="module")
def witnesses(tmp_path_factory: pytest.TempPathFactory) -> Witnesses:
    """One pod, whose agent was born under strace."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace: scripts/setup test installs it")
    directory = tmp_path_factory.mktemp("strace")
    (directory / "pod.yaml").write_text(POD)
    (directory / "calls").mkdir()
    directories = ["--state-dir", str(directory / "state"), "--run-dir", str(directory / "run")]
    enter = ["unshare", "--net"]
    ours = [sys.executable, "-m", "minikube_raw", *directories]
    subprocess.run([*ours, "image", "build", "busybox"], check=True, capture_output=True)
    strace = ["strace", "-ff", "--seccomp-bpf", "-ttt", "-s", "8192", "-e", f"trace={','.join(CALLS)}"]
    strace += ["-e", "signal=none", "-o", str(directory / "calls/t")]
    watched = subprocess.Popen(
        [*enter, *strace, *ours, "pod", "run", "-f", str(directory / "pod.yaml")], stdout=subprocess.PIPE, text=True
    )
    assert watched.stdout is not None
    try:
        assert watched.stdout.readline() == "pod default/seen running\n"
        shown = subprocess.run([*ours, "trace", "pod", "seen", "-o", "json"], check=True, capture_output=True)
    finally:
        subprocess.run([*ours, "pod", "rm", "seen"], check=True, capture_output=True)
        watched.communicate(timeout=60)
    trace = json.loads(shown.stdout)
    calls = read(directory / "calls")
    threads = [call for call in calls if call.what == "clone" and "CLONE_THREAD" in call.words]
    parents = {call.result: call.thread for call in threads}
    program = next(call.at for call in calls if call.what == "execve" and "sleep" in call.words)
    return Witnesses(trace, [call for call in calls if call.at < program], parents)


def test_the_child_did_what_its_trace_says_and_nothing_else(witnesses: Witnesses) -> None:
    (child,) = witnesses.pids("child")

    traced, seen = witnesses.traced("child"), witnesses.seen({child})
    tried = witnesses.seen({child}, failed=True)

    assert {"mount", "pivot_root", "umount2", "fsconfig", "move_mount", "capset", "setresuid"} <= {w for w, _ in seen}
    assert (seen - traced, traced - tried) == (Counter(), Counter())


def test_the_keeper_did_what_its_trace_says_and_nothing_else(witnesses: Witnesses) -> None:
    (keeper,) = witnesses.pids("keeper")

    traced, seen = witnesses.traced("keeper"), witnesses.seen({keeper})
    tried = witnesses.seen({keeper}, failed=True)

    assert {"unshare", "clone", "mount", "sethostname", "mkdir"} <= {what for what, _ in seen}
    assert (seen - traced, traced - tried) == (Counter(), Counter())


def test_the_kubelet_and_its_plugins_did_for_the_pod_what_its_trace_says_and_nothing_else(witnesses: Witnesses) -> None:
    (agent,) = witnesses.pids("cni")
    ours = witnesses.threads(agent)
    traced, tried = witnesses.traced("kubelet", "cni"), witnesses.seen(ours, failed=True)
    made = next(call.at for call in witnesses.calls if call.what == "mkdir" and "/sandboxes/" in call.words)
    since = witnesses._replace(calls=[call for call in witnesses.calls if call.at > made and call.what in OF_A_POD])

    assert {"netlink", "open_tree", "mount", "setns"} <= {what for what, _ in traced}
    assert (since.seen(ours) - traced, traced - tried) == (Counter(), Counter())
