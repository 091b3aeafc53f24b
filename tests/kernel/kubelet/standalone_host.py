"""A host of its own for `minikube-raw pod …`: a network namespace, directories, and a manifest to run."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 5
  volumes:
  - {{name: shared, emptyDir: {{}}}}
  - {{name: info, downwardAPI: {{items: [{{path: name, fieldRef: {{fieldPath: metadata.name}}}}]}}}}
  containers:
  - name: writer
    image: busybox
    command: [sh, -c, "echo from $IP > /s/f; trap 'exit 0' TERM; echo started; while true; do sleep 0.05; done"]
    env: [{{name: IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}]
    volumeMounts: [{{name: shared, mountPath: /s}}, {{name: info, mountPath: /i}}]
  - name: reader
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; while true; do sleep 0.05; done"]
    volumeMounts: [{{name: shared, mountPath: /s, readOnly: true}}]
"""

PATIENCE = 90.0


class Host:
    """A network namespace in which the command line is run, and directories of its own."""

    def __init__(self, directory: Path, namespace: int) -> None:
        self.enter = ["nsenter", f"--net=/proc/{namespace}/ns/net"]
        self.state, self.run_dir, self._directory = directory / "state", directory / "run", directory

    def __call__(self, *arguments: str, status: int = 0, stdin: str | None = None) -> str:
        command = [sys.executable, "-m", "minikube_raw", "--state-dir", str(self.state), "--run-dir", str(self.run_dir)]
        try:
            done = subprocess.run(
                [*self.enter, *command, *arguments], capture_output=True, text=True, timeout=PATIENCE, input=stdin
            )
        except subprocess.TimeoutExpired as expired:
            log = self.state / "standalone/agent.log"
            said = log.read_text() if log.exists() else "nothing"
            raise AssertionError(f"{expired}; so far it said {expired.output!r}, and the agent:\n{said}") from expired
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    @contextlib.contextmanager
    def started(self, *arguments: str, errors: bool = False) -> Iterator[subprocess.Popen[str]]:
        """A command that runs until we are done with it; with `errors` what it complains of is in its output."""
        command = [sys.executable, "-m", "minikube_raw", "--state-dir", str(self.state), "--run-dir", str(self.run_dir)]
        kept = subprocess.STDOUT if errors else None
        with subprocess.Popen(
            [*self.enter, *command, *arguments], stdout=subprocess.PIPE, stderr=kept, text=True
        ) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)

    def manifest(self, name: str, text: str = POD) -> str:
        path = self._directory / f"{name}.yaml"
        path.write_text(text.format(name=name))
        return str(path)

    def pods(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self("pod", "list", "-o", "json"))["items"]
        return listed

    def links(self) -> str:
        return subprocess.run([*self.enter, "ip", "-br", "link"], capture_output=True, text=True, check=True).stdout

    def agent(self) -> psutil.Process | None:
        """The agent, told from those of other hosts by its launcher's directory."""
        launchers = self.launchers()
        return launchers[0].parent() if launchers else None

    def launchers(self) -> list[psutil.Process]:
        """Launchers of this host's pods."""
        wanted = f"launcher {self.run_dir}"
        return [each for each in psutil.process_iter(["cmdline"]) if wanted in " ".join(each.info["cmdline"] or ())]


def gone(host: Host) -> None:
    """Wait until the agent has left; its last act is to remove its run directory."""
    until(lambda: not (host.run_dir / "standalone").exists(), "the agent has left")


def until(reached: Callable[[], object], what: str) -> None:
    """Wait for it, but not for ever."""
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline, f"not within 60 s: {what}"
        time.sleep(0.02)
