"""Runs a network's list of plugins over a container: ADD forward, DEL backward, with the result cached in between.

Synchronous: an ADD takes milliseconds and a DEL waits for the kernel, so callers use threads. One container's calls
must not overlap (the caller's duty, as the specification says); different containers' may. Plugins of our own run in
this process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from netplugins import errors, results
from netplugins.attachments import KEYS as VALID_ATTACHMENT_KEYS
from netplugins.errors import CNIError
from netplugins.invoke import invoke
from netplugins.skel import CmdArgs

from .cache import Cache, CachedAttachment
from .config import validated
from .types import Result

DEFAULT_CACHE_DIRECTORY = Path("/var/lib/cni")


class Network:
    """One network configuration list, ready to attach containers.

    `plugin_dirs` is CNI_PATH: the first directory that has a plugin's type decides; types found in none are our own
    modules. All methods raise CNIError (code, message, details).
    """

    def __init__(
        self,
        conflist: dict[str, Any],
        plugin_dirs: Sequence[str | Path] = (),
        cache_dir: str | Path = DEFAULT_CACHE_DIRECTORY,
    ) -> None:
        self.conflist = validated(conflist)
        self.name: str = self.conflist["name"]
        self.cni_version: str = self.conflist["cniVersion"]
        self._plugins: list[dict[str, Any]] = self.conflist["plugins"]
        self._path = ":".join(map(str, plugin_dirs))
        self._cache = Cache(Path(cache_dir), self.name)

    def add(
        self,
        container_id: str,
        netns_path: str,
        ifname: str = "eth0",
        runtime_config: dict[str, Any] | None = None,
        args: dict[str, str] | None = None,
    ) -> Result:
        """Attaches the container's namespace; when a plugin fails, DEL has run before the error is raised.

        `runtime_config` holds capability values (portMappings, mac, ips, …), `args` becomes CNI_ARGS. An attachment
        that is there already is an error (101), and stays.
        """
        attachment = CachedAttachment(container_id, ifname, netns_path, runtime_config or {}, args or {})
        with self._cache.locked():
            if self._cache.load(container_id, ifname):
                raise CNIError(
                    errors.ALREADY_ATTACHED,
                    f"{container_id} {ifname} is already attached to {self.name}",
                    "DEL it first",
                )
            # a record before the first plugin runs: after a crash in the middle, GC and DEL know of it
            self._cache.store(attachment, self.conflist)
            try:
                result = self._add_all(attachment)
            except BaseException as error:
                self._undo(attachment, error)
                raise
            completed = CachedAttachment(
                container_id, ifname, netns_path, attachment.runtime_config, attachment.args, result
            )
            self._cache.store(completed, self.conflist)
        return Result.from_json(result, self.cni_version)

    def _undo(self, attachment: CachedAttachment, error: BaseException) -> None:
        """DEL after a failed ADD; not when a plugin found the attachment made already: DEL would take the first one's."""
        if isinstance(error, CNIError) and error.code == errors.ALREADY_ATTACHED:
            self._cache.remove(attachment.container_id, attachment.ifname)
            return
        with suppress(CNIError):  # the error of ADD is the one to report
            self._delete(attachment)

    def _add_all(self, attachment: CachedAttachment) -> dict[str, Any]:
        previous: dict[str, Any] | None = None
        for plugin in self._plugins:
            previous = self._invoke(plugin, "ADD", attachment, previous)
            if previous is None:
                raise CNIError(errors.DECODING_FAILURE, f"plugin {plugin['type']} gave no result")
        return previous or {}

    def delete(
        self,
        container_id: str,
        netns_path: str = "",
        ifname: str = "eth0",
        runtime_config: dict[str, Any] | None = None,
        args: dict[str, str] | None = None,
    ) -> None:
        """Detaches; patient and repeatable: a vanished namespace ("" or a path that is gone) and a second call are
        fine.

        runtime_config and args are those of ADD, from the cache, unless given. Plugins run in reverse order, all of
        them; the first error is raised at the end and the record stays.
        """
        with self._cache.locked():
            cached = self._cache.load(container_id, ifname) or CachedAttachment(container_id, ifname)
            self._delete(
                CachedAttachment(
                    container_id,
                    ifname,
                    netns_path,
                    cached.runtime_config if runtime_config is None else runtime_config,
                    cached.args if args is None else args,
                    cached.result,
                )
            )

    def _delete(self, attachment: CachedAttachment) -> None:
        # prevResult reaches DEL since 0.4.0 (SPEC.md, "DEL")
        previous = attachment.result if results.at_least(self.cni_version, "0.4.0") else None
        failures: list[CNIError] = []
        for plugin in reversed(self._plugins):
            try:
                self._invoke(plugin, "DEL", attachment, previous)
            except CNIError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        self._cache.remove(attachment.container_id, attachment.ifname)

    def check(self, container_id: str, netns_path: str, ifname: str = "eth0") -> None:
        """Raises CNIError when the attachment is not as ADD left it; does nothing where the list says disableCheck."""
        if self.conflist.get("disableCheck"):
            return
        if not results.at_least(self.cni_version, "0.4.0"):
            raise CNIError(
                errors.INCOMPATIBLE_VERSION, f"CHECK needs cniVersion 0.4.0, network {self.name} has {self.cni_version}"
            )
        cached = self._cache.load(container_id, ifname)
        if cached is None or cached.result is None:
            raise CNIError(errors.UNKNOWN_CONTAINER, f"{container_id} {ifname} is not attached to {self.name}")
        attachment = CachedAttachment(container_id, ifname, netns_path, cached.runtime_config, cached.args)
        for plugin in self._plugins:
            self._invoke(plugin, "CHECK", attachment, cached.result)

    def result(self, container_id: str, ifname: str = "eth0") -> Result | None:
        """The cached result of an attachment, None when there is none: what a restarted agent asks first."""
        cached = self._cache.load(container_id, ifname)
        return Result.from_json(cached.result, self.cni_version) if cached and cached.result else None

    def gc(self, valid: Iterable[tuple[str, str]]) -> None:
        """Removes every attachment but the valid ones (container id, ifname): cached ones by DEL, the rest by the
        plugins' GC.

        Goes on after errors and raises the first. Where the list says disableGC or is older than 1.1.0, only cached
        ones go.
        """
        keep = set(valid)
        failures: list[CNIError] = []
        with self._cache.locked(exclusive=True):
            for cached in self._cache.attachments():
                if (cached.container_id, cached.ifname) not in keep:
                    try:
                        self._delete(cached)
                    except CNIError as error:
                        failures.append(error)
            if results.at_least(self.cni_version, "1.1.0") and not self.conflist.get("disableGC"):
                failures += self._collect(keep)
        if failures:
            raise failures[0]

    def _collect(self, keep: set[tuple[str, str]]) -> list[CNIError]:
        listed = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in sorted(keep)]
        failures = []
        for plugin in self._plugins:
            config = self._plugin_config(plugin, {}) | dict.fromkeys(VALID_ATTACHMENT_KEYS, listed)
            try:
                invoke(plugin["type"], "GC", CmdArgs(path=self._path, config=config))
            except CNIError as error:
                failures.append(error)
        return failures

    def status(self) -> None:
        """Raises CNIError 50 or 51 when a plugin is not ready to ADD; before 1.1.0 nobody can be asked."""
        if results.at_least(self.cni_version, "1.1.0"):
            for plugin in self._plugins:
                invoke(plugin["type"], "STATUS", CmdArgs(path=self._path, config=self._plugin_config(plugin, {})))

    def _invoke(
        self, plugin: dict[str, Any], command: str, attachment: CachedAttachment, previous: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        config = self._plugin_config(plugin, attachment.runtime_config)
        if previous is not None:
            config["prevResult"] = previous
        extra = ";".join(f"{key}={value}" for key, value in attachment.args.items())
        return invoke(
            plugin["type"],
            command,
            CmdArgs(attachment.container_id, attachment.netns, attachment.ifname, extra, self._path, config),
        )

    def _plugin_config(self, plugin: dict[str, Any], runtime_config: dict[str, Any]) -> dict[str, Any]:
        """What a plugin reads on stdin: its own section with name and version, and the capabilities it declares."""
        config = {key: value for key, value in plugin.items() if key != "capabilities"}
        declared = plugin.get("capabilities") or {}
        values = {key: value for key, value in runtime_config.items() if declared.get(key)}
        if values:
            config["runtimeConfig"] = values
        return config | {"name": self.name, "cniVersion": self.cni_version}
