"""Every difference between what a process sees under us and under runc or crun that stays, each with its reason.

`python tests/conformance/runc/known_differences.py` prints the table of docs/runc-differences.md; a test holds the two together.
"""

from __future__ import annotations

import re
from typing import NamedTuple

EVERY = ".*"
PRIVILEGED = "privileged.*|propagation-both"
RUNC, CRUN, BOTH = ("runc",), ("crun",), ("runc", "crun")


class Known(NamedTuple):
    """A row: which keys of the probe, in which pods, with which values (regular expressions, whole strings), and why.

    `sometimes`: it depends on how busy the node is, and need not be seen. `words` name the key for readers. `under` whom.
    """

    key: str
    words: str
    pods: str
    ours: str
    theirs: str
    reason: str
    sometimes: bool = False
    under: tuple[str, ...] = RUNC

    def is_about(self, pod: str) -> bool:
        """Whether it can be seen in that pod."""
        return re.fullmatch(self.pods, pod) is not None

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
        under=BOTH,
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
        "device-open c 10:200",
        "opening a device 10:200 that it makes",
        f"(?!{PRIVILEGED}).*",
        "EPERM",
        "ok|ENXIO|ENODEV",
        "As above.",
    ),
    Known(
        "fd-flags [012]",
        "open flags of a terminal",
        "terminal.*",
        "2000002 0 tty=1",
        "100002 0 tty=1",
        "Our terminal's end is opened by TIOCGPTPEER, without a path that could be a link by then (CVE-2025-52565); "
        "runc's and crun's by its name in /dev/pts, which sets O_LARGEFILE.",
        under=BOTH,
    ),
    Known(
        "env .*",
        "HOME when a volume covers /etc",
        "over-etc",
        "HOME=/root",
        "HOME=/",
        "The user is looked up once, in the image, before any volume is mounted: uid, groups (as containerd does) and "
        "home come from one passwd. runc and crun look for the home after the mounts.",
        under=BOTH,
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
        under=BOTH,
    ),
    Known(
        "call 4[4-7].",
        "system calls newer than any that the profile names",
        f"(?!unconfined|{PRIVILEGED}).*",
        "ENOSYS",
        "EPERM",
        "A program asks for a new call and falls back on ENOSYS; EPERM ends it. So has runc it since 1.0-rc93; crun 1.8 not.",
        under=CRUN,
    ),
    Known(
        "mount /proc/(bus|fs|irq|sys|sysrq-trigger)",
        "the read-only paths of /proc",
        EVERY,
        "on /proc: proc proc /.* ro,nosuid,nodev,noexec,relatime .*",
        "on /proc: proc proc /.* ro,relatime .*",
        "A bind mount keeps the flags of what it shows, as under runc; crun's have ro alone.",
        under=CRUN,
    ),
    Known(
        "mount /dev/console",
        "the flags of /dev/console",
        "terminal.*",
        "on /dev: devpts devpts .* rw,nosuid,noexec,relatime .*",
        "on /dev: devpts devpts .* rw,relatime .*",
        "As above.",
        under=CRUN,
    ),
    Known(
        "mount /(?!v$).+",
        "the propagation of what is no volume",
        "propagation-both",
        r".* \[\] .*",
        r".* \[shared\] .*",
        "config.json's rootfsPropagation is for the root and lets the volume pass mounts on; crun has all mounts of the container do so.",
        under=CRUN,
    ),
    Known(
        "mount /v",
        "the propagation of the volume",
        "propagation-both",
        r".* \[master shared\] .*",
        r".* \[shared\] .*",
        "Ours is the node's volume: what is mounted in it on either side shows on the other. crun's has been cut off from it.",
        under=CRUN,
    ),
    Known(
        "mount /proc/(interrupts|kcore|keys|timer_list)",
        "masked files",
        EVERY,
        "on /proc: tmpfs tmpfs /null .*",
        "on /proc: devtmpfs .* /null .*",
        "Ours are covered by the container's own /dev/null, as under runc, crun's by the host's.",
        under=CRUN,
    ),
    Known(
        "mount (/proc/acpi|/proc/scsi|/sys/firmware|/sys/devices/virtual/powercap)",
        "masked directories",
        EVERY,
        r"on /\w+: tmpfs tmpfs / ro,relatime \[\] ro,inode64",
        r"on /\w+: tmpfs tmpfs / ro,relatime \[\] rw,size=0k,inode64",
        "An empty file system that is itself read-only, as under runc; crun's has no room instead.",
        under=CRUN,
    ),
    Known(
        "mount /sys/fs/cgroup",
        "the source of the cgroup mount",
        EVERY,
        "on /sys: cgroup2 cgroup .*",
        "on /sys: cgroup2 cgroup2 .*",
        "A word without meaning; ours is config.json's, and runc's.",
        under=CRUN,
    ),
    Known(
        "device-open c 5:1",
        "opening a device 5:1 (the host's console) that it makes",
        f"(?!{PRIVILEGED}).*",
        "EPERM",
        "ok",
        "Neither we nor runc let a container have the host's console; its own /dev/console is another terminal.",
        under=CRUN,
    ),
    Known(
        "fd [12]",
        "the group of standard streams",
        "user.*|strict-groups|restricted|image-user",
        "FIFO .*:0",
        "FIFO .*:[1-9].*",
        "Streams are given to the user, as by runc; crun gives the group too.",
        under=CRUN,
    ),
    Known(
        "fd 0|dev /dev/null",
        "the owner of /dev/null",
        EVERY,
        "/dev/null 020666 0:0|020666 0:0 1,3 ",
        r"/dev/null 020666 .*|020666 \d+:\d+ 1,3 ",
        "Where it is standard input crun gives it too, the host's, which other containers of that host see from then on.",
        sometimes=True,
        under=CRUN,
    ),
    Known(
        "session-keyring",
        "the session keyring",
        "unconfined|seccomp-.*|privileged.*|propagation-both",
        "ok keyring;0;0;3f1b0000;_ses.ID",
        "ok keyring;0;0;3f130000;.*",
        "Named and open to searches, as under runc.",
        under=CRUN,
    ),
    Known(
        r"cgroup-value hugetlb\.2MB\.rsvd\.max",
        "reservations of huge pages",
        EVERY,
        r"\d+\\x0a",
        r"max\\x0a",
        "As later runc: without it a process may map more than it can use, and dies by SIGBUS where mmap could have failed.",
        under=CRUN,
    ),
]

_HEAD = """# What a process sees differently under runc and crun

`minikube-raw pod inspect NAME --oci DIR` writes the OCI bundle of a container. A test runs a probe in the containers of
{pods} pods under ours and under runc from that bundle, and compares all that a process can see: its status, mounts, limits,
ids, capabilities, descriptors, environment, signals, session, keyring, devices, sysctls, cgroup files, names, what it may
write, and what each system call answers ([tests/conformance/runc](../tests/conformance/runc)). It fails on a
difference that is not in this table, and on a line of the table that is no longer true.

## runc 1.1.5 on a host with hybrid cgroups

"""
_CRUN = """
## crun 1.8.1 on cgroup v2

In the machine of `make lab` (systemd, AppArmor, cgroup v2 alone), for those of the pods whose fields mean something else
there and one of every other kind ([the choice](../tests/lab/test_lab_oracle.py)).

"""
_COLUMNS = """| what | in which pods | ours | {oracle} | why |
|---|---|---|---|---|
"""


def document(pods: int) -> str:
    """The text of docs/runc-differences.md."""
    return _HEAD.format(pods=pods) + _table(*RUNC) + _CRUN + _table(*CRUN)


def _table(oracle: str) -> str:
    rows = [
        f"| {row.words} | {_names(row.pods)} | {_cell(row.ours)} | {_cell(row.theirs)} | {row.reason} |\n"
        for row in KNOWN
        if oracle in row.under
    ]
    return _COLUMNS.format(oracle=oracle) + "".join(rows)


def _names(pattern: str) -> str:
    if pattern == EVERY:
        return "all"
    if pattern.startswith("(?!"):
        return "all but privileged ones"
    return pattern.replace(".*", "…").replace("|", ", ")


def _cell(pattern: str) -> str:
    text = re.sub(r"\(\?!.*?\)\.\*", "without it", pattern).replace(r"\[\] ", "").replace(r"\\x0a", "")
    text = re.sub(r"\\[dw]\+|\.\*", "…", text).replace("\\", "")
    return f"`{text.replace('|', ' or ')}`" if text not in ("", "without it") else text or "none"


if __name__ == "__main__":
    from compared_pods import ALL

    print(document(len(ALL)), end="")
