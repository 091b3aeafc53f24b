"""Validation of containers: names, images, ports, environment, probes, hooks, mounts, security (apis/core/validation, v1.36)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from minikube_raw.api.status import Cause
from minikube_raw.apiserver import fielderrors as field
from minikube_raw.apiserver import names
from minikube_raw.apiserver.resources import (
    amounts,
    envvalidation,
    localpaths,
    mountvalidation,
    resizevalidation,
    restartvalidation,
    stopsignals,
)
from minikube_raw.apiserver.resources.strategy import Object

_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_MESSAGE_POLICIES = ("FallbackToLogsOnError", "File")
_PROFILE_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOKS = ("exec", "httpGet", "tcpSocket", "sleep")
_HEADER = re.compile("[-A-Za-z0-9]+")
_ONLY_FOR_SIDECARS = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
_NOT_FOR_EPHEMERAL = (
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
)


def containers(spec: Object, path: str, volumes: dict[str, Object]) -> Iterator[Cause]:
    """Judge all containers of a pod spec; `volumes` are the pod's by name."""
    main, at = spec.get("containers") or [], f"{path}.containers"
    if not main:
        yield field.required(at)
    seen: set[str] = set()
    for index, item in enumerate(main):
        container = item or {}
        yield from _container(container, f"{at}[{index}]", spec, volumes, seen)
        yield from _probes_and_hooks(container, f"{at}[{index}]", spec)
    for index, item in enumerate(spec.get("initContainers") or ()):
        container, here = item or {}, f"{path}.initContainers[{index}]"
        yield from _container(container, here, spec, volumes, seen)
        yield from _init_container(container, here, spec)
    for index, item in enumerate(spec.get("ephemeralContainers") or ()):
        container, here = item or {}, f"{path}.ephemeralContainers[{index}]"
        yield from _container(container, here, spec, volumes, seen)
        yield from _ephemeral_container(container, here, spec)
    yield from _host_ports(spec, path)


def _container(
    container: Object, path: str, spec: Object, volumes: dict[str, Object], seen: set[str]
) -> Iterator[Cause]:
    yield from _name(container.get("name") or "", path, seen)
    if not container.get("image"):
        yield field.required(f"{path}.image")
    elif container["image"] != container["image"].strip():
        yield field.invalid(f"{path}.image", container["image"], "must not have leading or trailing whitespace")
    policy = container.get("terminationMessagePolicy", "File")
    if policy not in _MESSAGE_POLICIES:
        yield field.not_supported(f"{path}.terminationMessagePolicy", policy, _MESSAGE_POLICIES)
    yield from restartvalidation.restarts(container, path)
    yield from _ports(container, path, spec)
    yield from envvalidation.env(container, path, volumes)
    yield from mountvalidation.mounts(container, path, volumes)
    if container.get("imagePullPolicy") not in _PULL_POLICIES:
        yield field.not_supported(f"{path}.imagePullPolicy", container.get("imagePullPolicy", ""), _PULL_POLICIES)
    yield from amounts.requirements(container.get("resources") or {}, f"{path}.resources")
    yield from _claims(container.get("resources") or {}, f"{path}.resources", spec)
    yield from resizevalidation.resize_policies(container, path, spec)
    host_users = spec.get("hostUsers") is not False
    yield from _security_context(container.get("securityContext") or {}, f"{path}.securityContext", host_users)


def _name(name: str, path: str, seen: set[str]) -> Iterator[Cause]:
    if not name:
        yield field.required(f"{path}.name")
    elif wrong := names.dns_label(name):
        yield from names.causes(f"{path}.name", name, wrong)
    if name and name in seen:
        yield field.duplicate(f"{path}.name", name)
    seen.add(name)


def _ports(container: Object, path: str, spec: Object) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, item in enumerate(container.get("ports") or ()):
        port, at = item or {}, f"{path}.ports[{index}]"
        name, number, host = port.get("name") or "", port.get("containerPort") or 0, port.get("hostPort") or 0
        if name:
            wrong = port_name(name)
            yield from names.causes(f"{at}.name", name, wrong)
            if not wrong and name in seen:
                yield field.duplicate(f"{at}.name", name)
            seen.add(name)
        if number == 0:
            yield field.required(f"{at}.containerPort")
        else:
            yield from port_number(number, f"{at}.containerPort")
        if host:
            yield from port_number(host, f"{at}.hostPort")
        if port.get("protocol") not in _PROTOCOLS:
            yield field.not_supported(f"{at}.protocol", port.get("protocol", ""), _PROTOCOLS)
        if spec.get("hostNetwork") and host and number and host != number:
            yield field.invalid(f"{at}.hostPort", host, "must match `containerPort` when `hostNetwork` is true")


def port_name(name: str) -> list[str]:
    """Judge an IANA service name (RFC 6335): what named ports are."""
    found = ["must be no more than 15 characters"] if len(name) > 15 else []
    if not re.fullmatch("[-a-z0-9]+", name):
        found.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", name):
        found.append("must contain at least one letter (a-z)")
    if "--" in name:
        found.append("must not contain consecutive hyphens")
    if name.startswith("-") or name.endswith("-"):
        found.append("must not begin or end with a hyphen")
    return found


def port_number(number: Any, path: str) -> Iterator[Cause]:
    """Judge a port's number."""
    if not 1 <= number <= 65535:
        yield field.invalid(path, number, "must be between 1 and 65535, inclusive")


def port(value: Any, path: str) -> Iterator[Cause]:
    """Judge a port given by number or name."""
    if isinstance(value, int):
        yield from port_number(value, path)
    else:
        yield from names.causes(path, value, port_name(value))


def _host_ports(spec: Object, path: str) -> Iterator[Cause]:
    seen = set()
    for kind in ("containers", "initContainers"):
        for number, container in enumerate(spec.get(kind) or ()):
            for index, item in enumerate((container or {}).get("ports") or ()):
                one = item or {}
                if not one.get("hostPort"):
                    continue
                taken = f"{one.get('protocol', '')}/{one.get('hostIP', '')}/{one['hostPort']}"
                if taken in seen:
                    yield field.duplicate(f"{path}.{kind}[{number}].ports[{index}].hostPort", taken)
                seen.add(taken)


def _claims(resources: Object, path: str, spec: Object) -> Iterator[Cause]:
    known = [(claim or {}).get("name") for claim in spec.get("resourceClaims") or ()]
    for index, claim in enumerate(resources.get("claims") or ()):
        name = (claim or {}).get("name", "")
        if name not in known:
            tail = "" if known else " which is empty"
            detail = f"must be one of the names in pod.spec.resourceClaims{tail}"
            cause = field.not_found(f"{path}.claims[{index}]", name)
            yield Cause(cause.reason, f"{cause.message}: {detail}", cause.field)


def _security_context(context: Object, path: str, host_users: bool) -> Iterator[Cause]:
    if context.get("allowPrivilegeEscalation") is False:
        refused = "cannot set `allowPrivilegeEscalation` to false and"
        if context.get("privileged"):
            yield field.invalid(path, context, f"{refused} `privileged` to true")
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            yield field.invalid(path, context, f"{refused} `capabilities.Add` CAP_SYS_ADMIN")
    for name in ("runAsUser", "runAsGroup"):
        value = context.get(name)
        if value is not None and not 0 <= value <= 2147483647:
            yield field.invalid(f"{path}.{name}", value, "must be between 0 and 2147483647, inclusive")
    if context.get("procMount") not in (None, "Default", "Unmasked"):
        yield field.not_supported(f"{path}.procMount", context["procMount"], ("Default", "Unmasked"))
    if context.get("procMount") == "Unmasked" and host_users:
        yield field.invalid(f"{path}.procMount", "Unmasked", "`hostUsers` must be false to use `Unmasked`")
    yield from profiles(context, path)


def profiles(context: Object, path: str) -> Iterator[Cause]:
    """Judge the seccomp and AppArmor profiles of a security context."""
    for name in ("seccompProfile", "appArmorProfile"):
        profile, at = context.get(name), f"{path}.{name}"
        if profile is None:
            continue
        if profile.get("type") not in _PROFILE_TYPES:
            yield field.not_supported(f"{at}.type", profile.get("type", ""), _PROFILE_TYPES)
        elif profile["type"] == "Localhost" and not profile.get("localhostProfile"):
            yield field.required(
                f"{at}.localhostProfile",
                f"must be set when {'seccomp' if name[0] == 's' else 'AppArmor'} type is Localhost",
            )
        elif profile["type"] == "Localhost" and name == "seccompProfile":
            yield from localpaths.relative_path(profile["localhostProfile"], f"{at}.localhostProfile")
        elif profile["type"] != "Localhost" and profile.get("localhostProfile") is not None:
            yield field.invalid(
                f"{at}.localhostProfile", profile["localhostProfile"], "can only be set when type is Localhost"
            )


def _probes_and_hooks(container: Object, path: str, spec: Object) -> Iterator[Cause]:
    for hook in ("postStart", "preStop"):
        handler = (container.get("lifecycle") or {}).get(hook)
        if handler is not None:
            yield from _handler(handler, f"{path}.lifecycle.{hook}", _HOOKS, spec)
    yield from stopsignals.stop_signal(container, path, spec)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            yield from _probe(container[name], f"{path}.{name}", name, spec)


def _probe(probe: Object, path: str, kind: str, spec: Object) -> Iterator[Cause]:
    yield from _handler(probe, path, _HANDLERS, spec)
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if (probe.get(name) or 0) < 0:
            yield field.invalid(f"{path}.{name}", probe[name], "must be greater than or equal to 0")
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and kind == "readinessProbe":
        yield field.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must not be set for readinessProbes")
    elif grace is not None and grace <= 0:
        yield field.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0")
    if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        yield field.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")


def _handler(handler: Object, path: str, kinds: tuple[str, ...], spec: Object) -> Iterator[Cause]:
    given = [kind for kind in kinds if handler.get(kind) is not None]
    if not given:
        yield field.required(path, "must specify a handler type")
    for kind in given[1:]:
        yield field.forbidden(f"{path}.{kind}", "may not specify more than 1 handler type")
    if given:
        yield from _action(given[0], handler[given[0]], f"{path}.{given[0]}", spec)


def _action(kind: str, action: Object, path: str, spec: Object) -> Iterator[Cause]:
    if kind == "exec":
        if not action.get("command"):
            yield field.required(f"{path}.command")
    elif kind == "sleep":
        grace = spec.get("terminationGracePeriodSeconds", 30)
        if not 0 <= action.get("seconds", 0) <= grace:
            detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            yield field.invalid(path, action.get("seconds", 0), detail)
    else:
        yield from port(action.get("port", 0), f"{path}.port")
    if kind == "httpGet":
        if action.get("scheme") not in ("HTTP", "HTTPS"):
            yield field.not_supported(f"{path}.scheme", action.get("scheme", ""), ("HTTP", "HTTPS"))
        for header in action.get("httpHeaders") or ():
            name = (header or {}).get("name") or ""
            if not _HEADER.fullmatch(name):
                detail = (
                    "a valid HTTP header must consist of alphanumeric characters or '-' "
                    "(e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"
                )
                yield field.invalid(f"{path}.httpHeaders", name, detail)


def _init_container(container: Object, path: str, spec: Object) -> Iterator[Cause]:
    if container.get("restartPolicy") == "Always":
        yield from _probes_and_hooks(container, path, spec)
        return
    for name in _ONLY_FOR_SIDECARS:
        if container.get(name) is not None:
            yield field.forbidden(f"{path}.{name}", "may not be set for init containers without restartPolicy=Always")


def _ephemeral_container(container: Object, path: str, spec: Object) -> Iterator[Cause]:
    target, refused = container.get("targetContainerName"), "cannot be set for an Ephemeral Container"
    others = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    if target and target not in {other.get("name") for other in others}:
        yield field.not_found(f"{path}.targetContainerName", target)
    for name in _NOT_FOR_EPHEMERAL:
        if container.get(name):
            yield field.forbidden(f"{path}.{name}", refused)
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        for name in ("subPath", "subPathExpr"):
            if (mount or {}).get(name):
                yield field.forbidden(f"{path}.volumeMounts[{index}].{name}", refused)


def warnings(container: Object, path: str) -> Iterator[str]:
    """Say what is accepted and probably not meant."""
    seen: dict[str, int] = {}
    for index, item in enumerate(container.get("env") or ()):
        name = (item or {}).get("name", "")
        if name in seen:
            yield f'{path}.env[{index}]: hides previous definition of "{name}", which may be dropped when using apply'
        seen[name] = index
    ports: dict[tuple[Any, ...], int] = {}
    for index, item in enumerate(container.get("ports") or ()):
        one = item or {}
        key = (one.get("containerPort"), one.get("protocol"), one.get("hostIP"), one.get("hostPort"))
        if key in ports:
            yield f"{path}.ports[{index}]: duplicate port definition with {path}.ports[{ports[key]}]"
        ports.setdefault(key, index)
        if one.get("hostIP") and not one.get("hostPort"):
            shown = (
                f"{{Name:{one.get('name', '')} HostPort:0 ContainerPort:{one.get('containerPort', 0)} "
                f"Protocol:{one.get('protocol', '')} HostIP:{one['hostIP']}}}"
            )
            yield f"{path}.ports[{index}]: hostIP set without hostPort: {shown}"
    yield from amounts.warnings(container.get("resources") or {}, f"{path}.resources")
