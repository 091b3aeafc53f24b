"""Calls a plugin by its type: in this process when it is one of ours, else by executing the binary CNI_PATH leads to.

Both ways take and give the same: configuration in, result in the configuration's version or CNIError out. The first
directory on the path that has the type decides; one of our own executables found there, or nothing at all, means the
module in this package. Plugins use this for delegation (IPAM), libcni for the plugins of a list.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import time
from typing import Any, cast

from . import errors, results, skel
from .errors import CNIError
from .skel import CmdArgs

# types and the modules that are them
OURS = {
    "bridge": "bridge",
    "host-local": "host_local",
    "loopback": "loopback",
    "portmap": "portmap",
    "vxlan": "vxlan",
}
# In the first bytes of every executable that `cni install` writes.
MARK = b"# A CNI plugin of minikube_raw"
ETXTBSY_TRIES = 5


def find(plugin_type: str, path: str) -> str | None:
    """The first executable of that name on the path (colon-separated), None when there is none. Raises CNIError 7 for
    a type with a separator.
    """
    if not plugin_type or os.sep in plugin_type or plugin_type in (".", ".."):
        raise CNIError(errors.INVALID_CONFIG, f"invalid plugin type {plugin_type!r}", "a plugin's type is a file name")
    for directory in filter(None, path.split(os.pathsep)):
        candidate = os.path.join(directory, plugin_type)
        if os.path.isfile(candidate):
            return candidate
    return None


def is_ours(executable: str) -> bool:
    """Whether `cni install` wrote this file."""
    with open(executable, "rb") as file:
        return MARK in file.read(512)


def module_of(plugin_type: str) -> skel.Plugin:
    """Our plugin of that type, imported when first used: a plugin brings pyroute2 (120 ms), VERSION and host-local do
    not.
    """
    return cast(skel.Plugin, importlib.import_module(f"{__package__}.{OURS[plugin_type]}"))


def invoke(plugin_type: str, command: str, args: CmdArgs) -> results.Result | None:
    """Runs a command of the plugin; returns ADD's result in the configuration's version. Raises CNIError."""
    executable = find(plugin_type, args.path)
    if plugin_type in OURS and (executable is None or is_ours(executable)):
        return skel.call(module_of(plugin_type), command, args)
    if executable is None:
        raise CNIError(
            errors.INVALID_CONFIG,
            f"there is no plugin {plugin_type!r}",
            f"looked in {args.path or 'an empty CNI_PATH'}",
        )
    return execute(executable, command, args)


def execute(executable: str, command: str, args: CmdArgs) -> results.Result | None:
    """Runs a plugin binary and reads its answer from stdout; its stderr is passed on."""
    environ = os.environ | {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": args.container_id,
        "CNI_NETNS": args.netns,
        "CNI_IFNAME": args.ifname,
        "CNI_ARGS": args.args,
        "CNI_PATH": args.path,
    }
    finished = _run(executable, environ, json.dumps(args.config).encode())
    if finished.returncode != 0:
        raise _error_of(executable, finished)
    if command != "ADD":
        return None
    try:
        result = json.loads(finished.stdout)
    except ValueError as error:
        raise CNIError(errors.DECODING_FAILURE, f"{executable}: its result is not JSON", str(error)) from error
    if not isinstance(result, dict):
        raise CNIError(errors.DECODING_FAILURE, f"{executable}: its result is no JSON object")
    return result


def _run(executable: str, environ: dict[str, str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    for attempt in range(ETXTBSY_TRIES):
        try:
            return subprocess.run([executable], env=environ, input=stdin, stdout=subprocess.PIPE, check=False)
        except OSError as error:
            # a plugin that is being installed at this moment is busy, not broken (libcni waits the same way)
            if error.errno != errno.ETXTBSY or attempt == ETXTBSY_TRIES - 1:
                raise CNIError(errors.IO_FAILURE, f"cannot execute {executable}", str(error)) from error
            time.sleep(1)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _error_of(executable: str, finished: subprocess.CompletedProcess[bytes]) -> CNIError:
    try:
        error: Any = json.loads(finished.stdout)
        return CNIError(int(error["code"]), str(error["msg"]), str(error.get("details", "")))
    except (ValueError, KeyError, TypeError):
        said = finished.stdout.decode(errors="replace").strip()
        return CNIError(errors.INTERNAL, f"{executable} ended with status {finished.returncode}", said)
