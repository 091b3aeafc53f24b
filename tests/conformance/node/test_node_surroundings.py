"""What of its node and its name a pod finds around it: DNS, hosts, host namespaces, groups and hostPaths.

What is expected of names and DNS is what a kubelet 1.36 with containerd was seen to write for the same pods.
"""

from __future__ import annotations

import json
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.waiting import until
from tests.clusters import Cluster

pytestmark = pytest.mark.root
NAMESPACE = "surroundings"
HOSTS_HEAD = """# Kubernetes-managed hosts file.
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
"""
LOOK = """
show() { echo "### $*"; "$@" 2>&1; }
show hostname; show hostname -f; show cat /etc/hosts; show cat /etc/hostname; show cat /etc/resolv.conf; show id; show cat /proc/1/cmdline
for n in net pid ipc uts; do show readlink /proc/self/ns/$n; show readlink /proc/1/ns/$n; done; show cat /proc/self/status
"""


def pod(name: str, *, script: str = LOOK, own: Any = None, mounts: Any = (), **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "busybox", "command": ["sh", "-c", script], "securityContext": own or {}}
    body = {"restartPolicy": "Never", "containers": [{**container, "volumeMounts": list(mounts)}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


OPTIONS = {
    "nameservers": ["192.0.2.53"],
    "searches": ["x.example"],
    "options": [{"name": "ndots", "value": "2"}, {"name": "inet6"}],
}
ALIASES = [{"ip": "192.0.2.1", "hostnames": ["one", "two"]}, {"ip": "2001:db8::1", "hostnames": ["three"]}]
LOCKED = {
    "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
    "allowPrivilegeEscalation": False,
    "seccompProfile": {"type": "RuntimeDefault"},
    "readOnlyRootFilesystem": True,
}
IDS = {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000, "supplementalGroups": [4000]}
NODES = {"hostNetwork": True, "hostPID": True, "hostIPC": True}
PODS = [
    pod("p"),
    pod("named", hostname="hh", subdomain="ss", dnsPolicy="None", dnsConfig=OPTIONS, hostAliases=ALIASES),
    pod("qualified", hostname="hh", subdomain="sub", setHostnameAsFQDN=True),
    pod("subdomain-only", subdomain="sub"),
    pod("of-node", dnsPolicy="Default"),
    pod("of-node-and-more", dnsPolicy="Default", dnsConfig=OPTIONS),
    pod("in-node", own={"privileged": True}, hostname="hh", subdomain="ss", **NODES),
    pod("in-nodes-pids", own={"privileged": True}, hostPID=True),
    pod("in-nodes-ipc", own={"privileged": True}, hostIPC=True),
    pod("locked", own=LOCKED, securityContext=IDS),
    *(pod(f"groups-{policy.lower()}", securityContext={"supplementalGroups": [4000], "fsGroup": 2000,
        "supplementalGroupsPolicy": policy}) for policy in ("Merge", "Strict")),
]  # fmt: skip


class Surroundings:
    """The namespace with these pods."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster, self.directory = cluster, directory
        self._seen: dict[str, dict[str, str]] = {}

    def get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get("-n", NAMESPACE, "pod", name)
        return found

    def log(self, name: str) -> str:
        until(lambda: self.get(name)["status"]["phase"], lambda phase: phase in ("Succeeded", "Failed"), seconds=60)
        return self.cluster.kubectl("-n", NAMESPACE, "logs", name).stdout

    def seen(self, name: str) -> dict[str, str]:
        """Command → what it printed in a pod."""
        if name not in self._seen:
            parts = self.log(name).split("### ")[1:]
            self._seen[name] = {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}
        return self._seen[name]


@pytest.fixture(scope="module")
def surroundings(cluster: Cluster) -> Iterator[Surroundings]:
    directory = make_places(cluster.folder / "places")
    pods = [
        *PODS,
        *(place_pod(directory, *case) for case in RIGHT),
        *(place_pod(directory, *case[:3]) for case in WRONG),
    ]
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl(
        "-n", NAMESPACE, "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods})
    )
    yield Surroundings(cluster, directory)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


# -- names and resolvers -----------------------------------------------------------------------------------------------


def node_resolvers() -> str:
    return Path("/etc/resolv.conf").read_text()


def test_a_pod_is_called_as_it_is_named(surroundings: Surroundings) -> None:
    seen = surroundings.seen("p")
    address = surroundings.get("p")["status"]["podIP"]
    assert (seen["hostname"], seen["cat /etc/hostname"]) == ("p\n", "p\n")
    assert seen["cat /etc/hosts"] == f"{HOSTS_HEAD}{address}\tp\n"


def test_a_hostname_in_a_subdomain_is_qualified_in_hosts_and_dns_is_what_the_pod_says(
    surroundings: Surroundings,
) -> None:
    seen = surroundings.seen("named")
    address = surroundings.get("named")["status"]["podIP"]
    own = f"{address}\thh.ss.{NAMESPACE}.svc.cluster.local\thh\n"
    aliases = "\n# Entries added by HostAliases.\n192.0.2.1\tone\ttwo\n2001:db8::1\tthree\n"
    assert (seen["hostname"], seen["cat /etc/hostname"]) == ("hh\n", "hh\n")
    assert seen["cat /etc/hosts"] == f"{HOSTS_HEAD}{own}{aliases}"
    assert seen["cat /etc/resolv.conf"] == "search x.example\nnameserver 192.0.2.53\noptions ndots:2 inet6\n"


def test_a_qualified_hostname_is_the_kernels_too(surroundings: Surroundings) -> None:
    name = f"hh.sub.{NAMESPACE}.svc.cluster.local\n"
    seen = surroundings.seen("qualified")
    assert (seen["hostname"], seen["hostname -f"], seen["cat /etc/hostname"]) == (name, name, name)


def test_a_subdomain_alone_qualifies_the_pods_name(surroundings: Surroundings) -> None:
    seen = surroundings.seen("subdomain-only")
    assert seen["hostname"] == "subdomain-only\n"
    assert seen["hostname -f"] == f"subdomain-only.sub.{NAMESPACE}.svc.cluster.local\n"


def test_default_dns_is_the_nodes_and_what_the_pod_adds(surroundings: Surroundings) -> None:
    words = [line.split() for line in node_resolvers().splitlines() if not line.startswith("#") and line.strip()]
    servers = [line[1] for line in words if line[0] == "nameserver"]
    plain, more = (surroundings.seen(name)["cat /etc/resolv.conf"] for name in ("of-node", "of-node-and-more"))
    assert re.findall("^nameserver (.*)$", plain, re.MULTILINE) == servers[:3]
    assert re.findall("^nameserver (.*)$", more, re.MULTILINE) == [*servers, "192.0.2.53"][:3]
    assert re.findall("^search .*x.example$", more, re.MULTILINE)
    assert "ndots:2" in more


# -- the node's namespaces ---------------------------------------------------------------------------------------------


def test_a_pod_in_the_nodes_namespaces_is_in_all_of_them(surroundings: Surroundings) -> None:
    seen = surroundings.seen("in-node")
    node = surroundings.get("in-node")["spec"]["nodeName"]
    for kind in ("net", "pid", "ipc", "uts"):
        assert seen[f"readlink /proc/self/ns/{kind}"] == seen[f"readlink /proc/1/ns/{kind}"]
    assert (seen["hostname"], seen["cat /etc/hostname"]) == (f"{node}\n", f"{node}\n")
    assert (
        seen["cat /etc/hosts"] == f"# Kubernetes-managed hosts file (host network).\n{Path('/etc/hosts').read_text()}"
    )
    assert surroundings.get("in-node")["status"]["podIP"] == surroundings.get("in-node")["status"]["hostIP"]


@pytest.mark.parametrize(("name", "kind"), [("in-nodes-pids", "pid"), ("in-nodes-ipc", "ipc")])
def test_one_namespace_of_the_node_brings_no_other(surroundings: Surroundings, name: str, kind: str) -> None:
    seen, node = surroundings.seen(name), surroundings.seen("in-node")
    same_node = surroundings.get(name)["spec"]["nodeName"] == surroundings.get("in-node")["spec"]["nodeName"]
    if kind == "pid":
        theirs = [
            each
            for each in ("net", "pid", "ipc", "uts")
            if seen[f"readlink /proc/self/ns/{each}"] == seen[f"readlink /proc/1/ns/{each}"]
        ]
        assert theirs == ["pid"]
    elif same_node:
        assert seen["readlink /proc/self/ns/ipc"] == node["readlink /proc/self/ns/ipc"]
    assert seen["hostname"] == f"{name}\n"


# -- who one is --------------------------------------------------------------------------------------------------------


def test_a_locked_up_pod_is_what_containerd_makes_of_it(surroundings: Surroundings) -> None:
    seen = surroundings.seen("locked")
    status = dict(line.split(":", 1) for line in seen["cat /proc/self/status"].splitlines())
    facts = {
        name: status[name].strip() for name in ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
    }
    assert facts == {
        "Uid": "1000\t1000\t1000\t1000",
        "Gid": "3000\t3000\t3000\t3000",
        "Groups": "2000 3000 4000",
        "CapEff": "0000000000000000",
        "CapBnd": "0000000000001000",
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }


@pytest.mark.parametrize(("policy", "wheel"), [("merge", True), ("strict", False)])
def test_groups_of_the_image_count_unless_the_policy_is_strict(
    surroundings: Surroundings, policy: str, wheel: bool
) -> None:
    name = f"groups-{policy}"
    groups = {int(each) for each in re.findall(r"[=,](\d+)", surroundings.seen(name)["id"].partition("groups")[2])}
    assert groups == {0, 2000, 4000} | ({10} if wheel else set())  # busybox' /etc/group has root in wheel
    user = surroundings.get(name)["status"]["containerStatuses"][0]["user"]["linux"]
    assert set(user["supplementalGroups"]) == groups


# -- hostPath ----------------------------------------------------------------------------------------------------------

RIGHT = [
    ("", "directory", "directory"),
    ("", "missing", "directory"),
    ("", "file", "regular file"),
    ("DirectoryOrCreate", "made/deeply", "directory"),
    ("DirectoryOrCreate", "directory", "directory"),
    ("FileOrCreate", "made-file", "regular empty file"),
    ("FileOrCreate", "file", "regular file"),
    ("Directory", "link-to-directory", "directory"),
    ("File", "link-to-file", "regular file"),
    ("Socket", "socket", "socket"),
    ("CharDevice", "character", "character special file"),
    ("BlockDevice", "block", "block special file"),
]
WRONG = [
    ("DirectoryOrCreate", "file", "", "hostPath type check failed: {} is not a directory"),
    ("Directory", "nosuch", "", "hostPath type check failed: {} is not a directory"),
    ("Directory", "file", "", "hostPath type check failed: {} is not a directory"),
    ("FileOrCreate", "directory", "", "hostPath type check failed: {} is not a file"),
    ("FileOrCreate", "nosuch/file", "", "open {}: no such file or directory"),
    ("File", "nosuch", "", "hostPath type check failed: {} is not a file"),
    ("File", "socket", "", "hostPath type check failed: {} is not a file"),
    ("Socket", "file", "", "hostPath type check failed: {} is not a socket file"),
    ("CharDevice", "block", "", "hostPath type check failed: {} is not a character device"),
    ("BlockDevice", "character", "", "hostPath type check failed: {} is not a block device"),
]


def make_places(directory: Path) -> Path:
    """A directory of the node with one of each kind."""
    (directory / "directory").mkdir(parents=True)
    (directory / "file").write_text("content")
    (directory / "link-to-directory").symlink_to("directory")
    (directory / "link-to-file").symlink_to("file")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "socket"))
    os.mknod(directory / "character", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(directory / "block", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    return directory


def place_name(kind: str, path: str, right: bool) -> str:
    return re.sub("[^a-z0-9]+", "-", f"{'right' if right else 'wrong'}-{kind or 'untyped'}-{path}".lower())


def place_pod(directory: Path, kind: str, path: str, seen: str) -> dict[str, Any]:
    volume = {"name": "v", "hostPath": {"path": str(directory / path), "type": kind}}
    mount = {"name": "v", "mountPath": "/v"}
    return pod(place_name(kind, path, bool(seen)), script="stat -c %F /v", mounts=[mount], volumes=[volume])


@pytest.mark.parametrize(("kind", "path", "seen"), RIGHT)
def test_a_host_path_of_the_right_type_is_there(surroundings: Surroundings, kind: str, path: str, seen: str) -> None:
    assert surroundings.log(place_name(kind, path, True)) == f"{seen}\n"
    if kind.endswith("OrCreate") and "made" in path:
        assert stat.S_IMODE((surroundings.directory / path).stat().st_mode) == (0o644 if "File" in kind else 0o755)


@pytest.mark.parametrize(("kind", "path", "_", "why"), WRONG)
def test_a_host_path_of_another_type_is_refused_in_the_kubelets_words(
    surroundings: Surroundings, kind: str, path: str, _: str, why: str
) -> None:
    name = place_name(kind, path, False)
    message = f'MountVolume.SetUp failed for volume "v" : {why.format(surroundings.directory / path)}'
    find = ("-n", NAMESPACE, "events", "--field-selector", f"involvedObject.name={name},reason=FailedMount")
    until(
        lambda: {each["message"] for each in surroundings.cluster.get(*find)["items"]},
        lambda found: message in found,
        seconds=60,
    )
