"""Every difference between what a process sees under us and under runc that stays, each with its reason.

`python tests/conformance/runc/known_differences.py` prints the table of docs/runc-differences.md; a test holds the two together.
"""

from __future__ import annotations

import re
from typing import NamedTuple

EVERY = ".*"
PRIVILEGED = "privileged.*|propagation-both"


class Known(NamedTuple):
    """A row: which keys of the probe, in which pods, with which values (regular expressions, whole strings), and why.

    `sometimes`: it depends on how busy the node is, and need not be seen. `words` name the key for readers.
    """

    key: str
    words: str
    pods: str
    ours: str
    theirs: str
    reason: str
    sometimes: bool = False

    def explains(self, pod: str, key: str, values: tuple[str, str]) -> bool:
        """Whether this row is about a difference."""
        patterns = ((self.key, key), (self.pods, pod), (self.ours, values[0]), (self.theirs, values[1]))
        return all(re.fullmatch(pattern, text, re.DOTALL) for pattern, text in patterns)


KNOWN = [
    Known(
        "mount /",
        "the root mount",
        EVERY,
        "on -: overlay .*",
        r"on -: (?!overlay).* (ro|rw),relatime .*",
        "A bundle's rootfs is a directory; our container has an overlay of its image's layers, volatile, by lowerdir+.",
    ),
    Known(
        "mount /sys/fs/cgroup/systemd",
        "the hierarchy name=systemd",
        EVERY,
        "",
        ".*name=systemd",
        "It limits nothing and is systemd's own (cgroup v1): we make no directory in it, and show none.",
    ),
    Known(
        r"cgroup-(file|value) (/sys/fs/cgroup/)?systemd(/.*)?",
        "files of the hierarchy name=systemd",
        EVERY,
        "",
        ".*",
        "As above.",
    ),
    Known(
        "cgroup-value devices/devices.list",
        "the devices that may be used",
        f"(?!{PRIVILEGED}).*",
        "(?!.*10:200).*",
        ".*c 10:200 rwm.*",
        "runc before 1.2 lets every container use /dev/net/tun; later ones and we do not.",
    ),
    Known(
        "fd-flags [012]",
        "open flags of a terminal",
        "terminal.*",
        "2000002 0 tty=1",
        "100002 0 tty=1",
        "Our terminal's end is opened by TIOCGPTPEER, without a path that could be a link by then (CVE-2025-52565); "
        "runc's is opened by its name in /dev/pts, which sets O_LARGEFILE.",
    ),
    Known(
        "env .*",
        "HOME when a volume covers /etc",
        "over-etc",
        "HOME=/root",
        "HOME=/",
        "The user is looked up once, in the image, before any volume is mounted: uid, groups (as containerd does) and "
        "home come from one passwd. runc looks for the home after the mounts.",
    ),
    Known(
        "status FDSize",
        "slots of the descriptor table",
        EVERY,
        "128|256|512|1024",
        "64",
        "The kernel sizes it by the highest descriptor that the keeper held when it forked. It says how busy the node was, "
        "and limits nothing.",
        sometimes=True,
    ),
]

_HEAD = """# What a process sees differently under runc

`minikube-raw pod inspect NAME --oci DIR` writes the OCI bundle of a container. A test runs a probe in the containers of
{pods} pods under ours and under runc from that bundle, and compares all that a process can see: its status, mounts, limits,
ids, capabilities, descriptors, environment, signals, session, keyring, devices, sysctls, cgroup files, names, what it may
write, and what each system call answers ([tests/conformance/runc](../tests/conformance/runc)). It fails on a
difference that is not in this table, and on a line of the table that is no longer true. Compared with runc {version}.

| what | in which pods | ours | runc | why |
|---|---|---|---|---|
"""


def document(pods: int, version: str = "1.1.5") -> str:
    """The text of docs/runc-differences.md."""
    rows = [
        f"| {row.words} | {_names(row.pods)} | {_cell(row.ours)} | {_cell(row.theirs)} | {row.reason} |\n"
        for row in KNOWN
    ]
    return _HEAD.format(pods=pods, version=version) + "".join(rows)


def _names(pattern: str) -> str:
    if pattern == EVERY:
        return "all"
    if pattern.startswith("(?!"):
        return "all but privileged ones"
    return pattern.replace(".*", "…").replace("|", ", ")


def _cell(pattern: str) -> str:
    text = re.sub(r"\(\?!.*?\)\.\*", "without it", pattern).replace(r"\[\] ", "").replace("\\", "").replace(".*", "…")
    return f"`{text.replace('|', ' or ')}`" if text not in ("", "without it") else text or "none"


if __name__ == "__main__":
    from compared_pods import PODS

    print(document(len(PODS)), end="")
