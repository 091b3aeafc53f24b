"""What runtime-spec 1.1 (config.md, config-linux.md) says of the parts of config.json that we write, as a closed JSON schema.

Closed: a field that the specification does not know, at the place where we put it, is an error here.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

INTEGER: Schema = {"type": "integer"}
UNSIGNED: Schema = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
ABSOLUTE: Schema = {"type": "string", "pattern": "^/"}
ACCESS: Schema = {"type": "string", "pattern": "^[rwm]+$"}


def closed(required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": required.split(), "properties": properties, "additionalProperties": False}


def every(item: Schema) -> Schema:
    return {"type": "array", "items": item}


CAPABILITIES = every({"type": "string", "pattern": "^CAP_[A-Z_]+$"})
IDMAP = every(closed("containerID hostID size", containerID=UNSIGNED, hostID=UNSIGNED, size=UNSIGNED))
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
PROCESS = closed(
    "cwd args",
    terminal=BOOLEAN,
    user=closed("uid gid", uid=UNSIGNED, gid=UNSIGNED, umask=UNSIGNED, additionalGids=every(UNSIGNED)),
    args={**every(STRING), "minItems": 1},
    env=every(STRING),
    cwd=ABSOLUTE,
    capabilities=closed("", **dict.fromkeys(SETS, CAPABILITIES)),
    rlimits=every(
        closed("type soft hard", type={"type": "string", "pattern": "^RLIMIT_[A-Z]+$"}, soft=INTEGER, hard=INTEGER)
    ),
    noNewPrivileges=BOOLEAN,
    oomScoreAdj={"type": "integer", "minimum": -1000, "maximum": 1000},
    apparmorProfile=STRING,
)
MOUNT = closed(
    "destination",
    destination=ABSOLUTE,
    type=STRING,
    source=STRING,
    options=every(STRING),
    uidMappings=IDMAP,
    gidMappings=IDMAP,
)
NAMESPACE = closed(
    "type",
    type={"enum": ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]},
    path=ABSOLUTE,
)
RESOURCES = closed(
    "",
    devices=every(
        closed("allow", allow=BOOLEAN, type={"enum": ["a", "b", "c"]}, major=INTEGER, minor=INTEGER, access=ACCESS)
    ),
    cpu=closed("", shares=INTEGER, quota=INTEGER, period=INTEGER, burst=INTEGER, cpus=STRING, mems=STRING),
    memory=closed("", limit=INTEGER, swap=INTEGER, reservation=INTEGER),
    pids=closed("", limit=INTEGER),
    hugepageLimits=every(closed("pageSize limit", pageSize=STRING, limit=INTEGER)),
    unified={"type": "object", "additionalProperties": STRING},
)
DEVICE = closed(
    "type path",
    type={"enum": ["b", "c", "u", "p"]},
    path=ABSOLUTE,
    major=INTEGER,
    minor=INTEGER,
    fileMode={"type": "integer", "minimum": 0, "maximum": 0o777},
    uid=UNSIGNED,
    gid=UNSIGNED,
)
ARGUMENT = closed("index value op", index=UNSIGNED, value=INTEGER, valueTwo=INTEGER, op=STRING)
SECCOMP = closed(
    "defaultAction",
    defaultAction=STRING,
    defaultErrnoRet=UNSIGNED,
    architectures=every({"type": "string", "pattern": "^SCMP_ARCH_"}),
    flags=every({"type": "string", "pattern": "^SECCOMP_FILTER_FLAG_"}),
    listenerPath=STRING,
    listenerMetadata=STRING,
    syscalls=every(
        closed(
            "names action",
            names={**every(STRING), "minItems": 1},
            action=STRING,
            errnoRet=UNSIGNED,
            args=every(ARGUMENT),
        )
    ),
)
LINUX = closed(
    "",
    namespaces=every(NAMESPACE),
    uidMappings=IDMAP,
    gidMappings=IDMAP,
    cgroupsPath=ABSOLUTE,
    resources=RESOURCES,
    devices=every(DEVICE),
    maskedPaths=every(ABSOLUTE),
    readonlyPaths=every(ABSOLUTE),
    rootfsPropagation={"enum": ["private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave"]},
    seccomp=SECCOMP,
    sysctl={"type": "object", "additionalProperties": STRING},
)
CONFIG = closed(
    "ociVersion process root",
    ociVersion={"type": "string", "pattern": r"^1\.[12]\.\d+$"},
    process=PROCESS,
    root=closed("path", path=STRING, readonly=BOOLEAN),
    hostname=STRING,
    mounts=every(MOUNT),
    linux=LINUX,
)
