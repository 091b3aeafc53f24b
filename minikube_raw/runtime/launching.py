"""How a node's launcher is started: its command line and its socket. For whoever starts it: a machine's init, systemd, a test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

NODE = "node"  # under this name, which no sandbox has, the launcher holds what is the agent's own
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_MAIN = "from minikube_raw.runtime.launcher import main; main(sys.argv[1:])"


def launcher_argv(
    run_dir: str | Path, state_dir: str | Path = "", *needed_paths: str | Path, cgroup: str = ""
) -> list[str]:
    """Returns the command of the launcher of the node with this run directory.

    With `state_dir` it keeps only the mounts that it, `needed_paths` (images, logs) and the run directory need; without, all
    but those below the run directory. It and its keepers are accounted in `cgroup`, "" being where it is started.
    """
    code = f"import sys; sys.path.insert(0, {_PACKAGE_PARENT!r}); {_MAIN}"
    paths = [str(path) for path in (run_dir, state_dir, *needed_paths)]
    return [os.path.realpath(sys.executable), "-I", "-S", "-c", code, cgroup, *paths]


def launcher_socket(run_dir: str | Path) -> str:
    """Returns where the launcher of the node with this run directory listens."""
    return f"{run_dir}/launcher.sock"
