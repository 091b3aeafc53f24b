"""Network configurations from files: *.conflist (a list of plugins) and *.conf, *.json (one plugin), in the order of
their names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from netplugins import errors, results, skel
from netplugins.errors import CNIError

EXTENSIONS = (".conflist", ".conf", ".json")


def load(directory: Path) -> list[dict[str, Any]]:
    """All configuration lists of a directory (`/etc/cni/net.d`), the default network's first. Raises CNIError for a
    broken file.

    A missing directory is an empty one.
    """
    if not directory.is_dir():
        return []
    return [load_file(path) for path in sorted(directory.iterdir()) if path.suffix in EXTENSIONS]


def load_file(path: Path) -> dict[str, Any]:
    """One configuration list; a single plugin's configuration becomes a list of one. Raises CNIError 6 or 7, naming
    the file.
    """
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise CNIError(errors.DECODING_FAILURE, f"{path} is not JSON", str(error)) from error
    if isinstance(config, dict) and "plugins" not in config and path.suffix != ".conflist":
        config = {"cniVersion": config.get("cniVersion", ""), "name": config.get("name"), "plugins": [config]}
    try:
        return validated(config)
    except CNIError as error:
        raise CNIError(error.code, f"{path}: {error.message}", error.details) from error


def validated(conflist: Any) -> dict[str, Any]:
    """Checks a configuration list and settles its version: the newest of cniVersion and cniVersions that is
    supported.
    """
    if not isinstance(conflist, dict):
        raise CNIError(errors.INVALID_CONFIG, "a configuration list must be a JSON object")
    name = conflist.get("name")
    if not isinstance(name, str) or not skel.IDENTIFIER.fullmatch(name):
        raise CNIError(
            errors.INVALID_CONFIG, f"invalid network name {name!r}", f"it must match {skel.IDENTIFIER.pattern}"
        )
    plugins = conflist.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        raise CNIError(errors.INVALID_CONFIG, f"network {name} has no plugins", 'write at least one under "plugins"')
    for plugin in plugins:
        if not isinstance(plugin, dict) or not isinstance(plugin.get("type"), str) or not plugin["type"]:
            raise CNIError(errors.INVALID_CONFIG, f"network {name} has a plugin without type")
    return conflist | {"cniVersion": _version(conflist)}


def _version(conflist: dict[str, Any]) -> str:
    offered = [version for version in [conflist.get("cniVersion"), *(conflist.get("cniVersions") or ())] if version]
    supported = [version for version in results.SUPPORTED_VERSIONS if version in offered]
    if offered and not supported:
        results.require_supported(offered[0])
    return supported[-1] if supported else results.SUPPORTED_VERSIONS[0]
