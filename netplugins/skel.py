"""The frame around every plugin: environment and stdin in, checks, dispatch, result or error out.

Environment, stdin and stdout are arguments, so a plugin is testable without a process. Errors are translated once,
here; a plugin raises CNIError where it knows better and lets OSError through where it does not.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, TextIO

from . import errors, results
from .errors import CNIError

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", re.ASCII)
IFNAME_BYTES = 15
# The variables each command needs (SPEC.md, "CNI operations"); CNI_PATH is tolerated missing.
REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
}
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


@dataclass(frozen=True)
class CmdArgs:
    """What a plugin is called with: the CNI_* variables and the decoded network configuration."""

    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: str = ""
    path: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def cni_version(self) -> str:
        """The version the configuration speaks; a configuration without one speaks 0.1.0."""
        return self.config.get("cniVersion") or "0.1.0"

    @property
    def extra(self) -> dict[str, str]:
        """CNI_ARGS ("K=V;K=V") decoded; raises CNIError 4 for a malformed pair."""
        pairs = {}
        for pair in filter(None, self.args.split(";")):
            key, separator, value = pair.partition("=")
            if not separator or not key or not value:
                raise CNIError(
                    errors.INVALID_ENVIRONMENT, f"CNI_ARGS: malformed pair {pair!r}", "write KEY=VALUE;KEY=VALUE"
                )
            pairs[key] = value
        return pairs

    @property
    def previous(self) -> results.Result | None:
        """prevResult as 1.1.0, None when there is none."""
        previous = self.config.get("prevResult")
        return results.upgrade(previous, self.cni_version) if previous else None

    def require_previous(self) -> results.Result:
        """prevResult as 1.1.0; raises CNIError 7 without one."""
        if (previous := self.previous) is None:
            raise CNIError(errors.INVALID_CONFIG, "prevResult is missing", "CHECK needs the result of ADD")
        return previous


class Plugin(Protocol):
    """A plugin module; every command may raise CNIError or OSError."""

    def cmd_add(self, args: CmdArgs, /) -> results.Result:
        """Attaches; returns a 1.1.0 result."""
        ...

    def cmd_del(self, args: CmdArgs, /) -> None:
        """Detaches; bears that anything is gone."""
        ...

    def cmd_check(self, args: CmdArgs, /) -> None:
        """Raises when the kernel differs from prevResult."""
        ...

    def cmd_gc(self, args: CmdArgs, /) -> None:
        """Removes what no valid attachment owns."""
        ...

    def cmd_status(self, args: CmdArgs, /) -> None:
        """Raises when ADD could not work."""
        ...


def call(plugin: Plugin, command: str, args: CmdArgs) -> results.Result | None:
    """Checks the arguments and runs one command; ADD's result is in the configuration's version. Raises CNIError
    only.
    """
    try:
        check_config(command, args)
        check_names(command, args)
        if command == "ADD":
            return results.downgrade(plugin.cmd_add(args), args.cni_version)
        {"DEL": plugin.cmd_del, "CHECK": plugin.cmd_check, "GC": plugin.cmd_gc, "STATUS": plugin.cmd_status}[command](
            args
        )
    except OSError as error:
        raise CNIError(errors.IO_FAILURE, str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # the configuration is the caller's: a value of a wrong shape surfaces as one of these
        raise CNIError(errors.INVALID_CONFIG, f"malformed configuration: {type(error).__name__}: {error}") from error
    return None


def check_config(command: str, args: CmdArgs) -> None:
    """Raises CNIError for a version or a network name that cannot be used."""
    version = args.config.get("cniVersion", "")
    if not isinstance(version, str):
        raise CNIError(errors.DECODING_FAILURE, f"cniVersion must be a string, not {version!r}")
    results.require_supported(args.cni_version)
    if command in SINCE and not results.at_least(args.cni_version, SINCE[command]):
        raise CNIError(
            errors.INCOMPATIBLE_VERSION,
            f"{command} needs cniVersion {SINCE[command]}, the configuration has {args.cni_version}",
        )
    name = args.config.get("name")
    if not name or not isinstance(name, str):
        raise CNIError(errors.INVALID_CONFIG, "the network name is missing", 'write "name" in the configuration')
    if not IDENTIFIER.fullmatch(name):
        raise CNIError(errors.INVALID_CONFIG, f"invalid network name {name!r}", f"it must match {IDENTIFIER.pattern}")


def check_names(command: str, args: CmdArgs) -> None:
    """Raises CNIError 4 for a container id or interface name the kernel or a file system could not bear."""
    if not REQUIRED[command]:
        return
    if not IDENTIFIER.fullmatch(args.container_id):
        raise CNIError(
            errors.INVALID_ENVIRONMENT,
            f"invalid CNI_CONTAINERID {args.container_id!r}",
            f"it must match {IDENTIFIER.pattern}",
        )
    name = args.ifname
    if name in (".", "..") or len(os.fsencode(name)) > IFNAME_BYTES or re.search(r"[/:%\s]", name):
        raise CNIError(
            errors.INVALID_ENVIRONMENT, f"invalid CNI_IFNAME {name!r}", "up to 15 bytes without / : % or white space"
        )


def run(load: Callable[[], Plugin], environ: Mapping[str, str], stdin: BinaryIO, stdout: TextIO) -> int:
    """Runs one command as the environment asks and prints result or error; returns the exit status.

    `load` imports the plugin, when it comes to that: VERSION is answered without.
    """
    command = environ.get("CNI_COMMAND", "")
    data = stdin.read()
    version = results.LATEST
    try:
        if command == "VERSION":
            answer: results.Result | None = version_answer(data)
        else:
            require_variables(command, environ)
            config = decode(data)
            version = config["cniVersion"] if config.get("cniVersion") in results.SUPPORTED_VERSIONS else version
            answer = call(load(), command, args_from(environ, config))
    except CNIError as error:
        answer, failed = error.to_json(version), True
    except Exception as error:  # the top of the process: whatever it is, the runtime must get JSON, not a traceback
        answer, failed = CNIError(errors.INTERNAL, f"{type(error).__name__}: {error}").to_json(version), True
    else:
        failed = False
    if answer is not None:
        json.dump(answer, stdout)
        stdout.write("\n")
        stdout.flush()
    return 1 if failed else 0


def require_variables(command: str, environ: Mapping[str, str]) -> None:
    """Raises CNIError 4 naming every variable that is missing."""
    if command not in REQUIRED:
        raise CNIError(
            errors.INVALID_ENVIRONMENT, f"unknown CNI_COMMAND {command!r}", "one of VERSION, " + ", ".join(REQUIRED)
        )
    if missing := [name for name in REQUIRED[command] if not environ.get(name)]:
        raise CNIError(errors.INVALID_ENVIRONMENT, f"required environment variables missing: {', '.join(missing)}")


def decode(data: bytes) -> dict[str, Any]:
    """Reads the configuration from stdin's bytes; raises CNIError 6 unless it is a JSON object."""
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CNIError(errors.DECODING_FAILURE, "stdin is not JSON", str(error)) from error
    if not isinstance(config, dict):
        raise CNIError(errors.DECODING_FAILURE, f"stdin must be a JSON object, not {type(config).__name__}")
    return config


def args_from(environ: Mapping[str, str], config: dict[str, Any]) -> CmdArgs:
    """Gathers the CNI_* variables."""
    return CmdArgs(
        container_id=environ.get("CNI_CONTAINERID", ""),
        netns=environ.get("CNI_NETNS", ""),
        ifname=environ.get("CNI_IFNAME", ""),
        args=environ.get("CNI_ARGS", ""),
        path=environ.get("CNI_PATH", ""),
        config=config,
    )


def version_answer(data: bytes) -> results.Result:
    """VERSION's answer: the version on stdin if there is one, and all we support."""
    try:
        asked = json.loads(data).get("cniVersion")
    except (ValueError, AttributeError):
        asked = None
    return {
        "cniVersion": asked if isinstance(asked, str) and asked else results.LATEST,
        "supportedVersions": list(results.SUPPORTED_VERSIONS),
    }
