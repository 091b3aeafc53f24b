"""Plugins as programs: ours judged from outside by the protocol, and the reference ones through our libcni."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from minikube_raw.cni import Network, install
from minikube_raw.netlink import links, routes
from netplugins.errors import CNIError
from netplugins.results import SUPPORTED_VERSIONS
from tests.netns import NetworkNamespace

pytestmark = pytest.mark.root
REFERENCE = Path("/usr/lib/cni")
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "bridge").exists(), reason="needs the reference plugins (Debian: containernetworking-plugins)"
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("plugins")
    install(directory)
    return directory


def call(
    executable: Path, command: str, config, *, netns: NetworkNamespace | None = None, drop: str = "", **environ: str
):
    """Runs a plugin as a runtime would; returns exit status and decoded stdout."""
    variables = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/proc/self/ns/net",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(executable.parent),
    } | environ
    variables.pop(drop, None)
    stdin = config if isinstance(config, str) else json.dumps(config)
    run = netns.command if netns else lambda *words, **options: subprocess.run(words, capture_output=True, **options)
    done = run(str(executable), check=False, input=stdin, env=variables, **({} if netns else {"text": True}))
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def bridge_config(tmp_path: Path, version: str = "1.1.0", **options) -> dict:
    ipam = {"type": "host-local", "dataDir": str(tmp_path / "ipam"), "subnet": "10.2.0.0/24"}
    return {"cniVersion": version, "name": "net", "type": "bridge", "isDefaultGateway": True, "ipam": ipam} | options


def test_installed_executables_name_an_absolute_interpreter(ours):
    assert sorted(os.listdir(ours)) == ["bridge", "host-local", "loopback", "portmap", "vxlan"]
    for path in ours.iterdir():
        assert path.read_text().startswith("#!/")
        assert os.access(path, os.X_OK)


@pytest.mark.parametrize("plugin", ["bridge", "host-local", "loopback", "portmap", "vxlan"])
def test_version_needs_no_other_variable_and_answers_with_the_asked_version(ours, plugin):
    variables = {"CNI_COMMAND": "VERSION"}
    done = subprocess.run(
        [ours / plugin], env=variables, input=b'{"cniVersion": "0.4.0"}', capture_output=True, check=True
    )
    answer = json.loads(done.stdout)
    assert answer == {"cniVersion": "0.4.0", "supportedVersions": list(SUPPORTED_VERSIONS)}


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_every_version_really_works(ours, host, pod, tmp_path, version):
    config = bridge_config(tmp_path, version)
    status, result = call(ours / "bridge", "ADD", config, netns=host, CNI_NETNS=pod.path)
    assert (status, result["cniVersion"]) == (0, version)
    assert result["ips"][0].get("version") == ("4" if version.startswith("0.") else None)
    assert pod.reaches("10.2.0.1")
    with_result = config | {"prevResult": result}
    if version not in ("0.3.0", "0.3.1"):
        assert call(ours / "bridge", "CHECK", with_result, netns=host, CNI_NETNS=pod.path) == (0, None)
    for _ in range(2):
        assert call(ours / "bridge", "DEL", with_result, netns=host, CNI_NETNS=pod.path) == (0, None)
    assert not [link for link in host.query(links.dump) if link.kind == "veth"]


def test_a_program_and_a_call_give_the_same_result(ours, host, make_pod, tmp_path):
    config = bridge_config(tmp_path)
    pod = make_pod()
    executed = call(ours / "bridge", "ADD", config, netns=host, CNI_NETNS=pod.path)[1]
    call(ours / "bridge", "DEL", config, netns=host, CNI_NETNS=pod.path)
    for record in (tmp_path / "ipam/net").glob("last_reserved_ip.*"):
        record.unlink()
    network = Network({"cniVersion": "1.1.0", "name": "net", "plugins": [config]}, (), tmp_path / "cache")
    called = host.run(lambda: network.add("c1", pod.path)).raw
    assert called == executed


@pytest.mark.parametrize(
    ("command", "config", "environ", "code"),
    [
        pytest.param("ADD", {"cniVersion": "9.9.9", "name": "n"}, {}, 1, id="unknown version"),
        pytest.param("ADD", {"cniVersion": "1.0", "name": "n"}, {}, 1, id="version of two parts"),
        pytest.param("CHECK", {"cniVersion": "0.3.1", "name": "n"}, {}, 1, id="CHECK before 0.4.0"),
        pytest.param("GC", {"cniVersion": "1.0.0", "name": "n"}, {}, 1, id="GC before 1.1.0"),
        pytest.param("STATUS", {"cniVersion": "1.0.0", "name": "n"}, {}, 1, id="STATUS before 1.1.0"),
        pytest.param("add", {}, {}, 4, id="command in small letters"),
        pytest.param("ADD", {}, {"drop": "CNI_IFNAME"}, 4, id="variable missing"),
        pytest.param("ADD", {"name": "n"}, {"CNI_CONTAINERID": "../x"}, 4, id="container id with a path"),
        pytest.param("ADD", {"name": "n"}, {"CNI_IFNAME": "sixteen-bytes-xx"}, 4, id="interface name of 16 bytes"),
        pytest.param("ADD", {"name": "n"}, {"CNI_IFNAME": "%d"}, 4, id="interface name the kernel would fill in"),
        pytest.param("ADD", {"name": "n"}, {"CNI_IFNAME": ".."}, 4, id="interface name of dots"),
        pytest.param("ADD", "", {}, 6, id="empty stdin"),
        pytest.param("ADD", "{", {}, 6, id="cut off stdin"),
        pytest.param("ADD", "[]", {}, 6, id="stdin a list"),
        pytest.param("ADD", {"cniVersion": 1, "name": "n"}, {}, 6, id="version a number"),
        pytest.param("ADD", {"cniVersion": "1.1.0"}, {}, 7, id="no name"),
        pytest.param("ADD", {"cniVersion": "1.1.0", "name": "a/b"}, {}, 7, id="name with a slash"),
        pytest.param("ADD", {"cniVersion": "1.1.0", "name": "n"}, {"CNI_NETNS": "/gone"}, 3, id="namespace missing"),
        pytest.param("ADD", {"cniVersion": "1.1.0", "name": "n"}, {"CNI_NETNS": "/etc/fstab"}, 8, id="no namespace"),
    ],
)
def test_errors_carry_the_specs_codes_and_a_version(ours, host, command, config, environ, code):
    status, error = call(ours / "loopback", command, config, netns=host, **environ)
    assert status == 1
    assert (error["code"], error["cniVersion"] in SUPPORTED_VERSIONS) == (code, True)
    assert error["msg"]


def test_all_missing_variables_are_named_at_once(ours, host):
    _, error = call(ours / "bridge", "ADD", {}, netns=host, CNI_CONTAINERID="", CNI_NETNS="", CNI_IFNAME="")
    assert all(name in error["msg"] for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"))


def test_a_configuration_larger_than_a_pipe_is_read_to_its_end(ours, host, pod):
    config = {"cniVersion": "1.1.0", "name": "n", "type": "loopback", "unknown": "x" * 1_000_000}
    assert call(ours / "loopback", "ADD", config, netns=host, CNI_NETNS=pod.path)[0] == 0


def test_a_recorder_on_the_path_is_executed_and_not_our_host_local(host, pod, tmp_path):
    """The first directory of CNI_PATH that has the type decides, so delegation is seen from outside."""
    seen = tmp_path / "seen"
    recorder = tmp_path / "bin" / "host-local"
    recorder.parent.mkdir()
    recorder.write_text(
        f'#!/bin/sh\ncat >> {seen}\necho " $CNI_COMMAND" >> {seen}\n'
        '[ $CNI_COMMAND = ADD ] && echo \'{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24"}]}\'\nexit 0\n'
    )
    recorder.chmod(0o755)
    plan = {"cniVersion": "1.1.0", "name": "net", "plugins": [bridge_config(tmp_path, capabilities={"mac": True})]}
    network = Network(plan, [tmp_path / "bin"], tmp_path / "cache")
    result = host.run(lambda: network.add("a", pod.path, runtime_config={"mac": "02:00:00:00:00:07", "x": 1}))
    host.run(lambda: network.delete("a", pod.path))
    assert result.ips[0].address == "10.9.0.5/24"
    first, second = seen.read_text().splitlines()
    assert (first.endswith(" ADD"), second.endswith(" DEL")) == (True, True)
    config = json.loads(first.removesuffix(" ADD"))
    assert config["runtimeConfig"] == {"mac": "02:00:00:00:00:07"}
    assert "capabilities" not in config
    assert "prevResult" in json.loads(second.removesuffix(" DEL"))


def test_plugins_are_added_forward_and_deleted_backward_with_one_result(host, pod, tmp_path):
    seen, directory = tmp_path / "seen", tmp_path / "bin"
    directory.mkdir()
    for name in ("first", "second", "third"):
        (directory / name).write_text(
            f'#!/bin/sh\ncat > {seen}.config\necho "$CNI_COMMAND {name} $(grep -c prevResult {seen}.config)" >> {seen}\n'
            f'[ $CNI_COMMAND = ADD ] && echo \'{{"cniVersion": "1.1.0", "dns": {{"domain": "{name}"}}}}\'\nexit 0\n'
        )
        (directory / name).chmod(0o755)
    plan = {"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": t} for t in ("first", "second", "third")]}
    network = Network(plan, [directory], tmp_path / "cache")
    assert host.run(lambda: network.add("a", pod.path)).dns.domain == "third"
    host.run(lambda: network.check("a", pod.path))
    host.run(lambda: network.delete("a", pod.path))
    assert seen.read_text().splitlines() == [
        *("ADD first 0", "ADD second 1", "ADD third 1"),
        *("CHECK first 1", "CHECK second 1", "CHECK third 1"),
        *("DEL third 1", "DEL second 1", "DEL first 1"),
    ]


def test_a_delegate_that_fails_is_told_del_and_its_error_is_passed_on(host, pod, tmp_path):
    seen = tmp_path / "seen"
    failing = tmp_path / "bin" / "host-local"
    failing.parent.mkdir()
    failing.write_text(
        f"#!/bin/sh\necho $CNI_COMMAND >> {seen}\n[ $CNI_COMMAND = DEL ] && exit 0\n"
        'echo \'{"cniVersion": "1.1.0", "code": 11, "msg": "not now"}\'\nexit 1\n'
    )
    failing.chmod(0o755)
    plan = {"cniVersion": "1.1.0", "name": "net", "plugins": [bridge_config(tmp_path)]}
    with pytest.raises(CNIError, match="not now") as raised:
        host.run(lambda: Network(plan, [tmp_path / "bin"], tmp_path / "cache").add("a", pod.path))
    assert raised.value.code == 11
    assert seen.read_text().split()[:2] == ["ADD", "DEL"]
    assert pod.query(lambda netlink: links.get(netlink, "eth0")) is None


@needs_reference
@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_the_reference_plugins_run_through_our_libcni(host, make_pod, tmp_path, version):
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    plan = {"cniVersion": version, "name": "net", "plugins": [bridge_config(tmp_path, version), portmap]}
    network, first, second = Network(plan, [REFERENCE], tmp_path / "cache"), make_pod(), make_pod()
    mapping = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    host.run(lambda: network.add("a", first.path, runtime_config=mapping))
    address = host.run(lambda: network.add("b", second.path)).ips[0].ip
    assert first.reaches(address)
    assert "8080" in host.command("iptables-save", "-t", "nat").stdout
    for _ in range(2):
        host.run(lambda: network.delete("a", first.path))
        host.run(lambda: network.delete("b", second.path))
    assert "8080" not in host.command("iptables-save", "-t", "nat").stdout
    assert not [link for link in host.query(links.dump) if link.kind == "veth"]


@needs_reference
@pytest.mark.parametrize("ours_first", [True, False], ids=["ours adds", "reference adds"])
def test_ours_and_the_reference_share_one_store_and_undo_each_other(ours, host, pod, tmp_path, ours_first):
    config = bridge_config(tmp_path, "1.0.0")
    adds, deletes = (ours, REFERENCE) if ours_first else (REFERENCE, ours)
    result = call(adds / "bridge", "ADD", config, netns=host, CNI_NETNS=pod.path)[1]
    address = result["ips"][0]["address"].partition("/")[0]
    assert (tmp_path / "ipam/net" / address).read_bytes() == b"c1\r\neth0"
    assert call(deletes / "bridge", "DEL", config, netns=host, CNI_NETNS=pod.path)[0] == 0
    assert not (tmp_path / "ipam/net" / address).exists()
    assert not [link for link in host.query(links.dump) if link.kind == "veth"]


def test_vxlan_attaches_pods_of_two_hosts_without_anything_else_running(ours, make_pod, tmp_path):
    first, second = make_pod(), make_pod()
    first.request(links.add_veth("uplink", peer_name="uplink", peer_netns=second.fd))
    hosts = []
    for number, host in enumerate((first, second), start=1):
        host.command("ip", "address", "add", f"192.0.2.{number}/24", "dev", "uplink")
        host.command("ip", "link", "set", "uplink", "up")
        hosts.append({"publicIP": f"192.0.2.{number}", "subnet": f"10.3.{number}.0/24"})
    answers, pods = [], [make_pod(), make_pod()]
    for number, host in enumerate((first, second)):
        config = {
            "cniVersion": "1.1.0",
            "name": "net",
            "type": "vxlan",
            "network": "10.3.0.0/16",
            "subnet": hosts[number]["subnet"],
            "publicIP": hosts[number]["publicIP"],
            "peers": hosts,
            "ipam": {"dataDir": str(tmp_path / str(number))},
        }
        status, result = call(ours / "vxlan", "ADD", config, netns=host, CNI_NETNS=pods[number].path)
        assert status == 0, result
        answers.append((host, config | {"prevResult": result}, pods[number]))
    address = answers[1][1]["prevResult"]["ips"][0]["address"].partition("/")[0]
    assert pods[0].reaches(address)
    for host, config, pod in answers:
        assert call(ours / "vxlan", "CHECK", config, netns=host, CNI_NETNS=pod.path) == (0, None)
        assert call(ours / "vxlan", "STATUS", config, netns=host) == (0, None)
    first.command("ip", "neigh", "flush", "dev", "vxlan.1", "nud", "permanent")
    status, error = call(ours / "vxlan", "CHECK", answers[0][1], netns=first, CNI_NETNS=pods[0].path)
    assert (status, error["code"]) == (1, 100)
    for host, config, pod in answers:
        assert call(ours / "vxlan", "DEL", config, netns=host, CNI_NETNS=pod.path) == (0, None)
        bridge = host.query(lambda netlink: links.get(netlink, "cni0"))
        assert host.query(lambda netlink, index=bridge.index: routes.dump_neighbours(netlink, index)) == []
