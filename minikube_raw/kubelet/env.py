"""A container's environment variables, command and arguments: fieldRefs, ConfigMaps, Secrets, Services, `$(NAME)`.

Pure: the objects referred to come in as mappings. Order and precedence are the kubelet's: Service variables first,
then envFrom, then env; a later one of the same name wins and keeps the first one's place.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from minikube_raw.api.core import (
    ConfigMap,
    Container,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    FileKeySelector,
    KeySelector,
    Pod,
    ResourceFieldSelector,
    Secret,
    Service,
)

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


class ConfigError(Exception):
    """A container cannot be configured: the waiting reason is CreateContainerConfigError."""


def files(source: ConfigMap | Secret) -> dict[str, bytes]:
    """Every key of a ConfigMap or Secret with its bytes."""
    if isinstance(source, Secret):
        return {key: base64.b64decode(value) for key, value in source.data.items()}
    texts = {key: value.encode() for key, value in source.data.items()}
    return texts | {key: base64.b64decode(value) for key, value in source.binary_data.items()}


def texts(source: ConfigMap | Secret) -> dict[str, str]:
    """Every key that can become a variable: of a ConfigMap its data alone, as in Kubernetes, for binaryData is no text."""
    if isinstance(source, ConfigMap):
        return dict(source.data)
    return {key: value.decode(errors="replace") for key, value in files(source).items()}


class Referred(msgspec.Struct, frozen=True):
    """Objects of the pod's namespace that it refers to, by name, and the Services it is told of."""

    config_maps: Mapping[str, ConfigMap] = {}
    secrets: Mapping[str, Secret] = {}
    services: tuple[Service, ...] = ()


class EnvSources(msgspec.Struct, frozen=True):
    """What variables may be made from. A name missing in config_maps or secrets: the API server has no such object."""

    fields: Callable[[str], str]  # fieldPath → value
    resource_field: Callable[[ResourceFieldSelector], str]
    config_maps: Mapping[str, ConfigMap] = {}
    secrets: Mapping[str, Secret] = {}
    services: tuple[Service, ...] = ()
    file_key: Callable[[FileKeySelector], str | None] = lambda wanted: None  # raises ConfigError


def environment(pod: Pod, container: Container, sources: EnvSources) -> dict[str, str]:
    """The variables of a container in order. Raises ConfigError when something it needs is not there."""
    result = service_variables(sources.services)
    declared: dict[str, str] = {}
    for source in container.env_from:
        for key, value in _all_keys(source, sources).items():
            declared[source.prefix + key] = value
    result |= declared
    for variable in container.env:
        value_or_none = _value(pod, variable, sources, result)
        if value_or_none is not None:
            result[variable.name] = value_or_none
    for name, value in result.items():
        if "\0" in value:
            raise ConfigError(f'environment variable "{name}" contains a NUL byte, which no program can be given')
    return result


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by its value; `$$` is `$`; an unknown name stays as written (k8s.io/kubernetes/third_party)."""

    def replacement(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else variables.get(name, match.group(0))

    return _REFERENCE.sub(replacement, text)


def expand_all(texts: Iterable[str], variables: Mapping[str, str]) -> tuple[str, ...]:
    """Expand each word of a command."""
    return tuple(expand(text, variables) for text in texts)


def service_variables(services: Iterable[Service]) -> dict[str, str]:
    """NAME_SERVICE_HOST, NAME_SERVICE_PORT… and Docker's link variables, for Services with an address."""
    result: dict[str, str] = {}
    for service in services:
        if service.spec.cluster_ip in ("", "None") or not service.spec.ports:
            continue
        result |= _variables_of(service)
    return result


def _variables_of(service: Service) -> dict[str, str]:
    name, host, ports = _variable_name(service.metadata.name), service.spec.cluster_ip, service.spec.ports
    result = {f"{name}_SERVICE_HOST": host, f"{name}_SERVICE_PORT": str(ports[0].port)}
    for port in ports:
        if port.name:
            result[f"{name}_SERVICE_PORT_{_variable_name(port.name)}"] = str(port.port)
    address = f"[{host}]" if ":" in host else host
    for index, port in enumerate(ports):
        protocol = port.protocol.upper()
        url = f"{protocol.lower()}://{address}:{port.port}"
        prefix = f"{name}_PORT_{port.port}_{protocol}"
        result |= {f"{name}_PORT": url} if index == 0 else {}
        result |= {prefix: url, f"{prefix}_PROTO": protocol.lower()}
        result |= {f"{prefix}_PORT": str(port.port), f"{prefix}_ADDR": host}
    return result


def _variable_name(name: str) -> str:
    return name.upper().replace("-", "_")


def _value(pod: Pod, variable: EnvVar, sources: EnvSources, so_far: Mapping[str, str]) -> str | None:
    if variable.value_from is not None:
        return _from_source(pod, variable.value_from, sources)
    return expand(variable.value, so_far)


def _from_source(pod: Pod, source: EnvVarSource, sources: EnvSources) -> str | None:
    if source.field_ref is not None:
        return sources.fields(source.field_ref.field_path)
    if source.resource_field_ref is not None:
        return sources.resource_field(source.resource_field_ref)
    if source.config_map_key_ref is not None:
        return _from_key(source.config_map_key_ref, sources.config_maps, "configmap", "ConfigMap", pod)
    if source.secret_key_ref is not None:
        return _from_key(source.secret_key_ref, sources.secrets, "secret", "Secret", pod)
    if source.file_key_ref is not None:
        return sources.file_key(source.file_key_ref)
    return ""


def _from_key(
    wanted: KeySelector, objects: Mapping[str, ConfigMap] | Mapping[str, Secret], noun: str, kind: str, pod: Pod
) -> str | None:
    found = objects.get(wanted.name)
    if found is None and not wanted.optional:
        raise ConfigError(f'{noun} "{wanted.name}" not found')
    value = texts(found).get(wanted.key) if found is not None else None
    if value is None:
        if wanted.optional:
            return None
        raise ConfigError(f"couldn't find key {wanted.key} in {kind} {pod.metadata.namespace}/{wanted.name}")
    return value


def _all_keys(source: EnvFromSource, sources: EnvSources) -> dict[str, str]:
    for reference, objects, noun in (
        (source.config_map_ref, sources.config_maps, "configmap"),
        (source.secret_ref, sources.secrets, "secret"),
    ):
        if reference is None:
            continue
        found = objects.get(reference.name)
        if found is not None:
            return texts(found)
        if not reference.optional:
            raise ConfigError(f'{noun} "{reference.name}" not found')
    return {}
