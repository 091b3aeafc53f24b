"""Image configuration and ContainerConfig become one OCI-runtime-spec document, which is all that init acts on.

Pure: no kernel, no disk. Defaults (masked paths, capabilities, mounts, their options) are containerd's, so that a container
finds here what it finds there.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from minikube_raw.linux import capabilities
from minikube_raw.linux.cgroup_mounts import Hierarchies
from minikube_raw.oci.manifests import ImageConfig

from .cri import (
    UNIFIED_KEYS,
    ContainerConfig,
    LinuxContainerResources,
    LinuxContainerUser,
    Mount,
    MountPropagation,
    PodSandboxConfig,
    RuntimeServiceError,
)

Spec = dict[str, Any]

OCI_VERSION = "1.1.0"
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",  # CVE-2020-8694
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PROPAGATION = {
    MountPropagation.PRIVATE: "rprivate",
    MountPropagation.HOST_TO_CONTAINER: "rslave",
    MountPropagation.BIDIRECTIONAL: "rshared",
}


def container_spec(
    sandbox: PodSandboxConfig,
    config: ContainerConfig,
    image: ImageConfig,
    *,
    mounts: Sequence[Mount],
    layers: Mapping[str, Sequence[str]] | None = None,
    devices: Sequence[Spec] = (),
    hierarchies: Hierarchies,
    cgroup: str,
    open_files: tuple[int, int],
    seccomp_filter: bytes = b"",
    apparmor_profile: str = "",
) -> Spec:
    """Returns the document for one container.

    `mounts` are the volumes with the pod's own files, `layers` the directories of the images among them, uppermost first;
    `devices` those that it may use beside the usual ones, as OCI's linux.resources.devices has them; `open_files` is
    (soft, hard) of RLIMIT_NOFILE. Raises RuntimeServiceError (CreateContainerError) for what cannot be a container: nothing
    to run, an unknown capability.
    """
    privileged = config.security.privileged
    readonly = [] if privileged else ["ro"]
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            **process_spec(sandbox, config, image, open_files),
            **({"apparmorProfile": apparmor_profile} if apparmor_profile else {}),
        },
        "root": {"path": "rootfs", "readonly": config.security.readonly_rootfs},
        "hostname": sandbox.hostname,
        "mounts": [*_system_mounts(readonly, hierarchies), *_volume_mounts(mounts, layers or {})],
        "linux": {
            "cgroupsPath": f"/{cgroup}",
            "resources": resources_spec(config.resources),
            "maskedPaths": [] if privileged or config.security.unmasked_proc else list(MASKED_PATHS),
            "readonlyPaths": [] if privileged or config.security.unmasked_proc else list(READONLY_PATHS),
            "hostDevices": privileged,
            "allowedDevices": list(devices),
            **(
                {"seccompFilter": binascii.b2a_base64(seccomp_filter, newline=False).decode()} if seccomp_filter else {}
            ),
        },
    }


def usual_spec(hierarchies: Hierarchies) -> Spec:
    """Returns the part of container_spec() that is the same for every container without a wish of its own; see prepared.py."""
    return {
        "mounts": list(_system_mounts(["ro"], hierarchies)),
        "linux": {"maskedPaths": list(MASKED_PATHS), "readonlyPaths": list(READONLY_PATHS)},
    }


def process_spec(
    sandbox: PodSandboxConfig, config: ContainerConfig, image: ImageConfig, open_files: tuple[int, int]
) -> Spec:
    """Returns the OCI `process` of a container's first process."""
    security = config.security
    return {
        "terminal": config.tty,
        "user": _user(config, image),
        "args": arguments(config, image),
        "env": environment(sandbox, config, image),
        "cwd": config.working_dir or image.working_dir or "/",
        "capabilities": capability_names(config),
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": open_files[0], "hard": open_files[1]}],
        "noNewPrivileges": security.no_new_privs,
        "oomScoreAdj": config.resources.oom_score_adj,
        "umask": 0o022,
    }


def exec_process(process: Spec, command: Sequence[str], *, tty: bool, user: LinuxContainerUser | None = None) -> Spec:
    """Returns the OCI `process` of a program run beside the first: the same environment and rights, and the same `user`.

    By number: names would be looked up in what the container has by now as its /etc/passwd.
    """
    env = process["env"]
    if tty and not any(pair.startswith("TERM=") for pair in env):
        env = [*env, "TERM=xterm"]
    same = process["user"] if user is None else _same_user(user)
    return {**process, "args": list(command), "terminal": tty, "env": env, "user": same}


def _same_user(user: LinuxContainerUser) -> Spec:
    groups = list(user.supplemental_groups)
    return {"username": str(user.uid), "gid": user.gid, "additionalGids": groups, "strict": True}


def arguments(config: ContainerConfig, image: ImageConfig) -> list[str]:
    """Merges command and args with the image's ENTRYPOINT and CMD, as Kubernetes documents it.

    A command replaces both (CMD is then ignored); args alone replace CMD.
    """
    if config.command:
        return [*config.command, *config.args]
    merged = [*image.entrypoint, *(config.args or image.cmd)]
    if not merged:
        raise RuntimeServiceError("CreateContainerError", "no command specified")
    return merged


def environment(sandbox: PodSandboxConfig, config: ContainerConfig, image: ImageConfig) -> list[str]:
    """Returns NAME=value pairs: the image's, then the pod's; the last of a name counts, at the place of the first."""
    pairs: dict[str, str] = {}
    given = [f"HOSTNAME={sandbox.hostname}", *(["TERM=xterm"] if config.tty else [])]
    for pair in (DEFAULT_PATH, *given, *image.env, *(f"{name}={value}" for name, value in config.envs)):
        name, separator, _ = pair.partition("=")
        if separator and name:
            pairs[name] = pair
    return list(pairs.values())


def _user(config: ContainerConfig, image: ImageConfig) -> Spec:
    security = config.security
    user: Spec = {
        "username": image.user if security.run_as_user is None else str(security.run_as_user),
        "additionalGids": list(security.supplemental_groups),
        **({"strict": True} if security.strict_groups else {}),
    }
    if security.run_as_group is not None:
        user["gid"] = security.run_as_group
    return user


def capability_names(config: ContainerConfig) -> list[str]:
    """Returns the capabilities that a container asks for, CAP_ before each; RuntimeServiceError for one that does not exist."""
    security = config.security
    try:
        wanted = capabilities.container_set(
            security.add_capabilities, security.drop_capabilities, privileged=security.privileged
        )
    except ValueError as error:
        raise RuntimeServiceError("CreateContainerError", str(error)) from None
    return capabilities.names(wanted)


def _system_mounts(readonly: list[str], hierarchies: Hierarchies) -> Iterable[Spec]:
    safe = ["nosuid", "noexec", "nodev"]
    yield {"destination": "/proc", "type": "proc", "source": "proc", "options": safe}
    yield {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    }
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    yield {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts}
    yield {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe}
    yield {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*safe, *readonly]}
    yield {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": [*safe, "relatime", *readonly],
        "controllers": cgroup_controllers(hierarchies),
    }


def cgroup_controllers(hierarchies: Hierarchies) -> list[tuple[str, str]]:
    """Returns (directory, mount options) of each v1 hierarchy; empty where the unified one is all there is."""
    by_root: dict[str, list[str]] = {}
    for controller, root in hierarchies.v1.items():
        by_root.setdefault(root, []).append(controller)
    return [(root.rpartition("/")[2], ",".join(controllers)) for root, controllers in by_root.items()]


def _volume_mounts(mounts: Sequence[Mount], layers: Mapping[str, Sequence[str]]) -> Iterable[Spec]:
    """Parents before what is mounted inside them, else in the given order, as containerd's CRI plugin sorts them."""
    for mount in sorted(mounts, key=lambda mount: mount.container_path.rstrip("/").count("/")):
        if mount.image:
            yield {
                "destination": mount.container_path,
                "type": "image",
                "source": mount.image,
                "options": ["rprivate", "ro", "noexec"],
                "layers": list(layers[mount.image]),
                "path": mount.sub_path,
            }
            continue
        readonly = ["rro"] if mount.recursive_read_only else ["ro"] if mount.readonly else []
        options = ["rbind", _PROPAGATION[mount.propagation], *readonly]
        source = f"{mount.host_path}/{mount.sub_path}" if mount.sub_path else mount.host_path
        entry = {"destination": mount.container_path, "type": "bind", "source": source, "options": options}
        yield entry | ({"beneath": mount.host_path, "path": mount.sub_path} if mount.sub_path else {})


def limits(resources: LinuxContainerResources) -> dict[str, Any]:
    """Returns the arguments of linux.cgroups.Limits for a CRI resources message.

    Raises RuntimeServiceError (CreateContainerError) for a unified key that this runtime does not know.
    """
    memory, both = resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes
    wanted: dict[str, Any] = {
        "cpu_shares": resources.cpu_shares,
        "cpu_quota": resources.cpu_quota,
        "cpu_period": resources.cpu_period if resources.cpu_quota is not None else None,
        "cpuset_cpus": resources.cpuset_cpus,
        "cpuset_mems": resources.cpuset_mems,
        "memory_limit": memory,
        "swap_limit": None if both is None or memory is None else both - memory if both > 0 else -1,
        "pids_limit": resources.pids_limit,
        "hugetlb": resources.hugepage_limits or None,
    }
    wanted |= {name: value for name, value in _unified(resources.unified).items() if value is not None}
    return {name: value for name, value in wanted.items() if value is not None}


def _unified(files: Mapping[str, str]) -> dict[str, Any]:
    """The v2 files of UNIFIED_KEYS as arguments of Limits; "max" is no limit."""
    for name in files:
        if name not in UNIFIED_KEYS:
            raise RuntimeServiceError("CreateContainerError", f"cgroup file {name} is not one of {UNIFIED_KEYS}")
    amounts = {name: int(text) if text != "max" else -1 for name, text in files.items()}
    group = amounts.get("memory.oom.group")
    return {
        "memory_min": amounts.get("memory.min"),
        "memory_low": amounts.get("memory.low"),
        "memory_high": amounts.get("memory.high"),
        "swap_limit": amounts.get("memory.swap.max"),
        "oom_group": None if group is None else bool(group),
    }


def resources_spec(resources: LinuxContainerResources) -> Spec:
    """The same limits in OCI's words, for `pod inspect --oci`."""
    memory = resources.memory_limit_in_bytes
    cpu = {
        "shares": resources.cpu_shares,
        "quota": resources.cpu_quota,
        "period": resources.cpu_period,
        "cpus": resources.cpuset_cpus,
        "mems": resources.cpuset_mems,
    }
    return {
        "cpu": {name: value for name, value in cpu.items() if value is not None},
        # OCI's swap is memory and swap together: none beyond the limit.
        "memory": {} if memory is None else {"limit": memory, "swap": memory},
        "pids": {} if resources.pids_limit is None else {"limit": resources.pids_limit},
        "hugepageLimits": [{"pageSize": size, "limit": amount} for size, amount in resources.hugepage_limits.items()],
        "unified": dict(resources.unified),
    }
