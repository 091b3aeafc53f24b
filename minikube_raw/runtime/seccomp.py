"""Which seccomp profile a container has, as OCI's linux.seccomp: RuntimeDefault, a file of the node, or none.

Files are Docker's JSON or the OCI's; Docker's conditions (capabilities, architectures, kernel) are decided here, so that
what comes out has none. filters.py compiles it; the child that becomes the container only ever sees the compiled bytes.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import msgspec

from . import seccomp_default
from .cri import ProfileType, RuntimeServiceError, SecurityContext

Json = dict[str, Any]

# Go's names of machines (Docker's conditions use them) and the OCI's native architecture, by uname(2)'s.
_GO_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def document(security: SecurityContext, capabilities: Collection[str], machine: str) -> Json | None:
    """Returns the profile of a container with these capabilities; None if it has none.

    Raises RuntimeServiceError (CreateContainerError) in containerd's words for a file that is missing or no profile.
    """
    profile = security.seccomp
    if security.privileged or profile.type is ProfileType.UNCONFINED:
        return None
    if profile.type is ProfileType.RUNTIME_DEFAULT:
        return seccomp_default.document(capabilities, machine)
    return resolve(_read(profile.localhost_ref), capabilities, machine, os.uname().release)


def _read(path: str) -> Json:
    try:
        with open(path, "rb") as file:
            found = msgspec.json.decode(file.read(), type=Json)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise _failure(f'cannot load seccomp profile "{path}": open {path}: {reason}') from None
    except msgspec.MsgspecError as error:
        raise _failure(f'decoding seccomp profile failed "{path}": {error}') from None
    if not isinstance(found.get("defaultAction"), str):
        raise _failure(f'decoding seccomp profile failed "{path}": it has no defaultAction')
    return found


def _failure(text: str) -> RuntimeServiceError:
    return RuntimeServiceError("CreateContainerError", f"failed to generate container spec: {text}")


def resolve(found: Json, capabilities: Collection[str], machine: str, kernel: str) -> Json:
    """Returns the OCI's document for Docker's (or the OCI's own): conditions decided, names and architectures spelled out."""
    go = _GO_MACHINES.get(machine, machine)
    rules = []
    for rule in found.get("syscalls") or ():
        if not _applies(rule, capabilities, go, kernel):
            continue
        names = rule.get("names") or [rule["name"]]
        kept = {key: rule[key] for key in ("action", "errnoRet", "args") if rule.get(key) is not None}
        rules.append({"names": names, **kept})
    taken = {key: found[key] for key in ("defaultErrnoRet", "flags") if found.get(key) is not None}
    architectures = found.get("architectures") or _architectures(found.get("archMap") or (), machine)
    return {"defaultAction": found["defaultAction"], **taken, "architectures": architectures, "syscalls": rules}


def _architectures(arch_map: Collection[Json], machine: str) -> list[str]:
    native = seccomp_default.ARCHITECTURES.get(machine, ("",))[0]
    for entry in arch_map:
        if entry.get("architecture") == native:
            return [native, *(entry.get("subArchitectures") or ())]
    return []


def _applies(rule: Json, capabilities: Collection[str], machine: str, kernel: str) -> bool:
    wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
    if any(capability in capabilities for capability in unwanted.get("caps") or ()):
        return False
    if machine in (unwanted.get("arches") or ()):
        return False
    if unwanted.get("minKernel") and _version(kernel) >= _version(unwanted["minKernel"]):
        return False
    if any(capability not in capabilities for capability in wanted.get("caps") or ()):
        return False
    if wanted.get("arches") and machine not in wanted["arches"]:
        return False
    return not wanted.get("minKernel") or _version(kernel) >= _version(wanted["minKernel"])


def _version(text: str) -> tuple[int, ...]:
    """The first two numbers of a kernel's release."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in text.split(".")[:2])
