"""ServiceAccount admission: every pod runs as an account of its namespace that exists, and finds what the account gives it.

A namespace's account `default` is made by a controller a moment after the namespace: a pod that comes in between waits for it
(plugin/pkg/admission/serviceaccount, v1.36).
"""

from __future__ import annotations

import asyncio
import contextlib

from minikube_raw.api import naming, status
from minikube_raw.apiserver.cache import KindCache
from minikube_raw.apiserver.changes import Change, Entry
from minikube_raw.apiserver.objects import decode
from minikube_raw.apiserver.registry import Registry
from minikube_raw.apiserver.resources.podparts import MIRROR
from minikube_raw.apiserver.resources.strategy import Object
from minikube_raw.apiserver.tokens import WARN_ONLY_SECONDS

DEFAULT_ACCOUNT = "default"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_VOLUME_PREFIX = "kube-api-access-"
# kube-apiserver looks ten times, 0.1 to 0.2 s apart.
_WAIT_SECONDS = 1.5


class PodAccounts:
    """Knows the service accounts there are. `tokens`: this API server signs tokens, so that pods can have theirs."""

    def __init__(self, registry: Registry, *, tokens: bool) -> None:
        self._tokens = tokens
        self._accounts = registry.core("serviceaccounts")
        self._awaited: dict[str, asyncio.Event] = {}
        registry.watch_cache.listen(self._record)

    async def admit(self, pod: Object) -> None:
        """Complete a new pod by its account. Raises 403."""
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            _check_mirror(pod)
            return
        spec, metadata = pod["spec"], pod["metadata"]
        spec["serviceAccountName"] = spec["serviceAccount"] = spec.get("serviceAccountName") or DEFAULT_ACCOUNT
        account = decode((await self._find(metadata, spec["serviceAccountName"])).stored)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [{"name": each.get("name", "")} for each in account["imagePullSecrets"]]
        if self._tokens and _wants_token(spec, account):
            mount_token(spec)

    async def _find(self, pod: Object, name: str) -> Entry:
        key = self._accounts.key(pod["namespace"], name)
        entry = self._accounts.cache.entries.get(key)
        if entry is None:
            await self._accounts.watch_cache.fresh()
            if name == DEFAULT_ACCOUNT:
                await self._until_made(key)
            entry = self._accounts.cache.entries.get(key)
        if entry is None:
            text = f'error looking up service account {pod["namespace"]}/{name}: serviceaccount "{name}" not found'
            raise status.forbidden("", "pods", pod.get("name", ""), text)
        return entry

    async def _until_made(self, key: str) -> None:
        if key in self._accounts.cache.entries:
            return
        made = self._awaited.setdefault(key, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_SECONDS):
                await made.wait()

    def _record(self, cache: KindCache, change: Change) -> None:
        if self._awaited and cache is self._accounts.cache and change.entry is not None:
            made = self._awaited.pop(change.entry.key, None)
            if made is not None:
                made.set()


def _wants_token(spec: Object, account: Object) -> bool:
    """Whether the pod is to find its account's token; what the pod says counts before what the account says."""
    for obj in (spec, account):
        if obj.get("automountServiceAccountToken") is not None:
            return bool(obj["automountServiceAccountToken"])
    return True


def mount_token(spec: Object) -> None:
    """Mount the token, the cluster's CA and the namespace's name where in-cluster clients look for them.

    A container that has something there already keeps it.
    """
    volumes: list[Object] = spec.get("volumes") or []
    name = next((volume["name"] for volume in volumes if volume.get("name", "").startswith(_VOLUME_PREFIX)), "")
    is_there = bool(name)
    name = name or naming.generate_name(_VOLUME_PREFIX)
    mounted = False
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind) or ():
            mounts = container.get("volumeMounts") or []
            if all(mount.get("mountPath") != TOKEN_PATH for mount in mounts):
                container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": TOKEN_PATH}]
                mounted = True
    if mounted and not is_there:
        spec["volumes"] = [*volumes, {"name": name, "projected": _token_source()}]


def _token_source() -> Object:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    certificate = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": WARN_ONLY_SECONDS, "path": "token"}},
            {"configMap": certificate},
            {"downwardAPI": {"items": [namespace]}},
        ],
        "defaultMode": 0o644,
    }


def _check_mirror(pod: Object) -> None:
    """A mirror pod only shows what a node runs by itself; it must not claim what the API would have to give."""
    spec, refusal = pod["spec"], ""
    if spec.get("serviceAccountName"):
        refusal = "a mirror pod may not reference service accounts"
    for volume in spec.get("volumes") or ():
        if volume.get("secret"):
            refusal = refusal or "a mirror pod may not reference secrets"
        sources = (volume.get("projected") or {}).get("sources") or ()
        if any(source.get("serviceAccountToken") for source in sources):
            refusal = refusal or "a mirror pod may not use ServiceAccountToken volume projections"
    if refusal:
        raise status.forbidden("", "pods", pod["metadata"].get("name", ""), refusal)
