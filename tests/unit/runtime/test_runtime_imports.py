from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "asyncio",
    "typing",
    "dataclasses",
    "subprocess",
    "logging",
    "threading",
    "msgspec",
    "inspect",
    "traceback",
    "tokenize",
    # What each of these costs a keeper is in linux/unix_sockets.py, linux/signals.py and runtime/jsontext.py.
    "collections",
    "contextlib",
    "enum",
    "functools",
    "json",
    "re",
    "selectors",
    "signal",
    "socket",
}


def test_launcher_keeper_and_init_import_nothing_heavy() -> None:
    """Keepers share these pages, but each import makes the launcher bigger and more to go wrong inside an image."""
    code = "import sys; sys.path.insert(0, '.'); import minikube_raw.runtime.launcher; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert set(result.stdout.split()) & HEAVY == set()
