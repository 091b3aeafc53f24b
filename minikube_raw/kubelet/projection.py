"""What a configMap, secret, downwardAPI or projected volume holds: relative path → file, computed from objects.

Pure, with upstream's messages for what is missing; `atomicwriter` puts it on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

import msgspec

from minikube_raw.api.core import DownwardAPIVolumeFile, KeyToPath, Pod, Volume
from minikube_raw.api.storage import PersistentVolume
from minikube_raw.api.volumes import ServiceAccountTokenProjection, VolumeProjection
from minikube_raw.kubelet import downward, env
from minikube_raw.kubelet.atomicwriter import File, Payload
from minikube_raw.kubelet.pods import all_containers

_PRIVATE = 0o600


class PayloadError(Exception):
    """What a volume is made from is not there; the text goes into the FailedMount Event."""


class Sources(msgspec.Struct, frozen=True):
    """What volumes are made from: objects, the pod's addresses, the node's amounts, tokens by what was asked for."""

    referred: env.Referred
    at: downward.Addresses
    allocatable: Mapping[str, str] = {}
    tokens: Mapping[ServiceAccountTokenProjection, str] = {}
    persistent: Mapping[str, PersistentVolume] = {}  # by the name of the pod's volume


def is_projected(volume: Volume) -> bool:
    """Whether a volume's files are made from objects."""
    return any((volume.config_map, volume.secret, volume.downward_api, volume.projected))


def token_sources(pod: Pod) -> Iterator[ServiceAccountTokenProjection]:
    """Yield what tokens the pod's volumes ask for."""
    for volume in pod.spec.volumes:
        for source in volume.projected.sources if volume.projected is not None else ():
            if source.service_account_token is not None:
                yield source.service_account_token


def payload(pod: Pod, volume: Volume, sources: Sources) -> Payload:
    """Relative path → file. Raises PayloadError for a missing object or key that is not optional, naming all of them."""
    if volume.config_map is not None:
        each = volume.config_map
        return _config_map(each.name, each.items, each.default_mode, each.optional, sources)
    if volume.secret is not None:
        secret = volume.secret
        return _secret(secret.secret_name, secret.items, secret.default_mode, secret.optional, sources)
    if volume.downward_api is not None:
        return _downward(pod, volume.downward_api.items, volume.downward_api.default_mode, sources)
    return _projected(pod, volume, sources)


def _projected(pod: Pod, volume: Volume, sources: Sources) -> Payload:
    """Later sources win a path that earlier ones have too."""
    files: Payload = {}
    if volume.projected is None:
        return files
    problems: list[str] = []
    for source in volume.projected.sources:
        try:
            files |= _source(pod, source, volume.projected.default_mode, sources)
        except PayloadError as error:
            problems.append(str(error))
    if problems:
        raise PayloadError(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    return files


def _source(pod: Pod, source: VolumeProjection, mode: int, sources: Sources) -> Payload:
    if source.config_map is not None:
        wanted = source.config_map
        return _config_map(wanted.name, wanted.items, mode, wanted.optional, sources)
    if source.secret is not None:
        secret = source.secret
        return _secret(secret.name, secret.items, mode, secret.optional, sources)
    if source.downward_api is not None:
        return _downward(pod, source.downward_api.items, mode, sources)
    if source.service_account_token is not None:
        return _token(pod, source.service_account_token, mode, sources)
    if source.cluster_trust_bundle is not None:
        raise PayloadError("ClusterTrustBundle projection is not supported on this node")
    raise PayloadError("this kind of projected source is not supported on this node")


def _config_map(name: str, items: tuple[KeyToPath, ...], mode: int, optional: bool, sources: Sources) -> Payload:
    found = sources.referred.config_maps.get(name)
    if found is None:
        return _missing(f'configmap "{name}" not found', optional)
    return _keys(env.files(found), items, mode, optional, "configmap references non-existent config key")


def _secret(name: str, items: tuple[KeyToPath, ...], mode: int, optional: bool, sources: Sources) -> Payload:
    found = sources.referred.secrets.get(name)
    if found is None:
        return _missing(f'secret "{name}" not found', optional)
    return _keys(env.files(found), items, mode, optional, "references non-existent secret key")


def _missing(message: str, optional: bool) -> Payload:
    if optional:
        return {}
    raise PayloadError(message)


def _keys(
    data: Mapping[str, bytes], items: tuple[KeyToPath, ...], mode: int, optional: bool, complaint: str
) -> Payload:
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    files: Payload = {}
    for item in items:
        if item.key in data:
            files[_safe(item.path)] = File(data[item.key], mode if item.mode is None else item.mode)
        elif not optional:
            raise PayloadError(f"{complaint}: {item.key}")
    return files


def _downward(pod: Pod, items: Iterable[DownwardAPIVolumeFile], mode: int, sources: Sources) -> Payload:
    files: Payload = {}
    for item in items:
        if item.field_ref is not None:
            text = downward.field(pod, item.field_ref.field_path, sources.at)
        elif item.resource_field_ref is not None:
            text = downward.resource_field(pod, item.resource_field_ref, None, sources.allocatable)
        else:
            continue
        files[_safe(item.path)] = File(text.encode(), mode if item.mode is None else item.mode)
    return files


def _token(pod: Pod, wanted: ServiceAccountTokenProjection, mode: int, sources: Sources) -> Payload:
    """A token is its user's alone, if the pod says who that is; fsGroup opens it to the group afterwards."""
    token = sources.tokens.get(wanted)
    if token is None:
        raise PayloadError("failed to fetch token: there is no API server that issues any")
    owner = file_owner(pod)
    private = owner is not None or pod.spec.security_context.fs_group is not None
    return {_safe(wanted.path): File(token.encode(), _PRIVATE if private else mode, owner)}


def file_owner(pod: Pod) -> int | None:
    """The user that all containers run as, None when they differ or one does not say (pkg/volume/util, FsUserFrom)."""
    users: set[int | None] = set()
    for container in all_containers(pod):
        own = container.security_context
        users.add(own.run_as_user if own and own.run_as_user is not None else pod.spec.security_context.run_as_user)
    return users.pop() if len(users) == 1 else None


def _safe(path: str) -> str:
    """A path that stays inside the volume."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise PayloadError(f"invalid path {path!r}: must be relative and must not contain '..'")
    return str(PurePosixPath(path))
