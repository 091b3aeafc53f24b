"""Streams to and from pods, and host ports, as Kubernetes' conformance suite asks for them and as a user has them with kubectl."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import socket
import struct
import subprocess
import termios
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets import connected, messages

from tests.cluster.manifests import pod
from tests.cluster.waiting import until
from tests.clusters import KUBECTLS, Cluster, newest_kubectl

pytestmark = pytest.mark.root
Apply = Callable[..., str]
READY = ("--for=condition=Ready", "--timeout=50s")
BIG = 30_000_000

STREAMS = f"""
apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "mkdir /w; head -c {BIG} /dev/urandom > /w/big; echo hello > /w/i; exec httpd -f -p 80 -h /w"]
  - name: d
    image: busybox
    command: [sh, -c, "echo container is alive; exec sleep 3600"]
---
apiVersion: v1
kind: Pod
metadata: {{name: waits}}
spec:
  initContainers:
  - {{name: i, image: busybox, command: [sleep, "3600"]}}
  containers:
  - {{name: c, image: busybox}}
---
apiVersion: v1
kind: Pod
metadata: {{name: nowhere}}
spec:
  nodeSelector: {{no: such}}
  containers:
  - {{name: c, image: busybox}}
"""


def initialising(cluster: Cluster) -> bool:
    """Whether the pod that waits has begun to."""
    status = cluster.get("-n", "streams", "pod", "waits")["status"]
    return any(each.get("started") for each in status.get("initContainerStatuses", ()))


@pytest.fixture(scope="module")
def streams(cluster: Cluster) -> Iterator[str]:
    """A namespace with a pod to talk to, one that still initialises and one on no node."""
    cluster.kubectl("create", "namespace", "streams")
    cluster.kubectl("-n", "streams", "apply", "-f", "-", stdin=STREAMS)
    cluster.kubectl("-n", "streams", "wait", "pod/p", *READY)
    cluster.kubectl("-n", "streams", "wait", "pod/waits", "--for=condition=PodScheduled", "--timeout=50s")
    until(lambda: initialising(cluster), bool, seconds=60)
    yield "streams"
    cluster.kubectl("delete", "namespace", "streams", "--wait=false")


async def test_pods_support_remote_command_execution_over_websockets(
    cluster: Cluster, streams: str, tmp_path: Path
) -> None:
    query = "stderr=1&stdout=1&container=d&command=echo&command=remote+execution+test"
    path = f"/api/v1/namespaces/{streams}/pods/p/exec?{query}"
    async with connected(cluster, tmp_path, path, ["v4.channel.k8s.io"]) as websocket:
        received = await messages(websocket)

    assert b"".join(each[1:] for each in received if each[0] == 1) == b"remote execution test\n"
    assert json.loads(received[-1][1:]) == {"metadata": {}, "status": "Success"}


async def test_pods_support_retrieving_logs_from_the_container_over_websockets(
    cluster: Cluster, streams: str, tmp_path: Path
) -> None:
    path = f"/api/v1/namespaces/{streams}/pods/p/log?container=d"
    async with connected(cluster, tmp_path, path, ["binary.k8s.io"]) as websocket:
        assert b"".join(await messages(websocket)) == b"container is alive\n"


async def test_a_client_of_channels_over_websocket_forwards_ports(
    cluster: Cluster, streams: str, tmp_path: Path
) -> None:
    path = f"/api/v1/namespaces/{streams}/pods/p/portforward?ports=80"
    async with connected(cluster, tmp_path, path, ["v4.channel.k8s.io"]) as websocket:
        assert [await websocket.receive_bytes() for _ in range(2)] == [b"\0P\0", b"\1P\0"]
        await websocket.send_bytes(b"\0GET /i HTTP/1.0\r\n\r\n")
        answer = b"".join(each[1:] for each in await messages(websocket))
    assert answer.endswith(b"\r\n\r\nhello\n")


def test_kubectl_logs_are_retrieved_and_filtered(cluster: Cluster, namespace: str, apply: Apply) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2; sleep 0.1; echo last"
    apply(pod("speaker", script, spec="restartPolicy: Never"))
    cluster.kubectl("-n", namespace, "wait", "pod/speaker", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=50s")

    def logs(*arguments: str) -> str:
        return cluster.kubectl("-n", namespace, "logs", "speaker", *arguments).stdout

    assert logs().splitlines() == [*(f"line {number}" for number in range(1, 6)), "bad", "last"]
    assert logs("--limit-bytes=1") == "l"
    assert logs("--tail=1") == "last\n"
    stamp, _, text = logs("--tail=1", "--timestamps").partition(" ")
    assert (bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", stamp)), text) == (True, "last\n")
    assert logs("--since=24h") == logs()
    assert (logs("--since-time=2020-01-01T00:00:00Z"), logs("--since-time=2200-01-01T00:00:00Z")) == (logs(), "")
    assert logs("--prefix", "--tail=1") == "[pod/speaker/main] last\n"
    raw = f"/api/v1/namespaces/{namespace}/pods/speaker/log"
    assert cluster.kubectl("get", "--raw", f"{raw}?stream=Stderr").stdout == "bad\n"
    refused = cluster.kubectl("get", "--raw", f"{raw}?stream=Stdout&tailLines=1", check=False).stderr
    assert "`tailLines` and specific `stream` are mutually exclusive for now" in refused


@pytest.mark.parametrize("binary", KUBECTLS)
def test_kubectl_exec_and_cp_carry_big_data_and_exit_codes(
    cluster: Cluster, streams: str, tmp_path: Path, binary: str | None
) -> None:
    kubectl = [binary or newest_kubectl(), "-n", streams]
    data = os.urandom(BIG)
    (tmp_path / "there").write_bytes(data)

    def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [*kubectl, *arguments]
        return subprocess.run(
            command, input=stdin, env=cluster.environment, capture_output=True, timeout=60, check=False
        )

    counted = run("exec", "-i", "p", "-c", "c", "--", "sh", "-c", "sha256sum; exit 7", stdin=data)
    assert (counted.returncode, counted.stdout.split()[0].decode()) == (7, hashlib.sha256(data).hexdigest())
    assert run("cp", str(tmp_path / "there"), "p:/tmp/there", "-c", "c").returncode == 0
    assert run("cp", "p:/tmp/there", str(tmp_path / "back"), "-c", "c").returncode == 0
    assert (tmp_path / "back").read_bytes() == data
    assert run("exec", "p", "-c", "c", "--", "sh", "-c", "kill -9 $$").returncode == 137


@contextlib.contextmanager
def port_forward(cluster: Cluster, binary: str | None, namespace: str, *ports: str) -> Iterator[list[int]]:
    """kubectl port-forward to pod p, with the local ports it chose."""
    command = [binary or newest_kubectl(), "-n", namespace, "port-forward", "pod/p", *ports]
    with subprocess.Popen(
        command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as forwarding:
        assert forwarding.stdout is not None
        local: list[int] = []
        try:
            while len(local) < len(ports):
                found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) ->", forwarding.stdout.readline())
                local += [int(found[1])] if found else []
            yield local
        finally:
            forwarding.kill()


@pytest.mark.parametrize("binary", KUBECTLS)
def test_kubectl_port_forward_carries_many_connections_and_big_answers(
    cluster: Cluster, streams: str, binary: str | None
) -> None:
    def get(port: int, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return bytes(answer.read())

    with port_forward(cluster, binary, streams, ":80") as (port,):
        with ThreadPoolExecutor(20) as threads:
            assert list(threads.map(lambda _: get(port, "/i"), range(60))) == [b"hello\n"] * 60
        inside = cluster.kubectl("-n", streams, "exec", "p", "-c", "c", "--", "sha256sum", "/w/big").stdout.split()[0]
        assert hashlib.sha256(get(port, "/big")).hexdigest() == inside


def test_port_forward_says_what_is_wrong_in_containerds_words(cluster: Cluster, streams: str) -> None:
    command = [newest_kubectl(), "-n", streams, "port-forward", "pod/p", ":99"]
    with subprocess.Popen(
        command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as forwarding:
        assert forwarding.stdout is not None
        assert forwarding.stderr is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline())
        assert found is not None
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=10) as connection:
            connection.recv(1)
        said = forwarding.stderr.readline()
        forwarding.kill()
    assert re.search(
        r"error forwarding port 99 to pod [0-9a-f]{64}, uid : failed to execute portforward in network namespace \S+: "
        r"failed to connect to localhost:99 inside namespace \S+, IPv4: dial tcp4 127\.0\.0\.1:99: connect: connection "
        r"refused IPv6 dial tcp6 \[::1\]:99: connect: connection refused",
        said,
    ), said


BAD_REQUEST = "Error from server (BadRequest): "
EXEC_FAILED = (
    "error: Internal error occurred: Internal error occurred: error executing command in container: failed to exec in "
    'container: failed to start exec "ID": OCI runtime exec failed: exec failed: unable to start container process: exec: '
)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("exec", "p", "-c", "c", "--", "nosuch"), EXEC_FAILED + '"nosuch": executable file not found in $PATH: unknown\n'),
        (("exec", "p", "-c", "c", "--", "/etc/passwd"), EXEC_FAILED + '"/etc/passwd": permission denied: unknown\n'),
        (("exec", "p", "-c", "x", "--", "true"), BAD_REQUEST + "container x is not valid for pod p\n"),
        (("exec", "waits", "-c", "c", "--", "true"), 'error: unable to upgrade connection: container not found ("c")\n'),
        (("attach", "waits", "-c", "c"), "error: unable to upgrade connection: container c not found in pod waits_streams\n"),
        (("exec", "nowhere", "--", "true"), BAD_REQUEST + "pod nowhere does not have a host assigned\n"),
        (("port-forward", "nowhere", ":80"), "error: unable to forward port because pod is not running. Current status=Pending\n"),
        (("logs", "waits", "-c", "c"), BAD_REQUEST + 'container "c" in pod "waits" is waiting to start: PodInitializing\n'),
        (("logs", "p", "-c", "d", "-p"), BAD_REQUEST + 'previous terminated container "d" in pod "p" not found\n'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_kubernetes_words(
    cluster: Cluster, streams: str, arguments: tuple[str, ...], text: str
) -> None:
    done = cluster.kubectl("-n", streams, *arguments, check=False)
    said = re.sub(r'"[0-9a-f]{64}"', '"ID"', done.stderr).removeprefix(
        "If you don't see a command prompt, try pressing enter.\n"
    )
    assert (done.returncode, said) == (1, text)


def test_clients_that_do_not_read_never_make_a_container_wait_and_logs_are_whole(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    script = f"while [ ! -e /tmp/go ]; do sleep 0.05; done; yes 0123456789 | head -c {BIG}; echo end"
    apply(pod("talker", script, spec="restartPolicy: Never"))
    cluster.kubectl("-n", namespace, "wait", "pod/talker", *READY)

    def started(*arguments: str) -> subprocess.Popen[bytes]:
        command = [newest_kubectl(), "-n", namespace, *arguments]
        return subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    with started("logs", "-f", "talker") as follower, started("attach", "talker") as attached:
        assert attached.stderr is not None
        assert b"command prompt" in attached.stderr.readline()
        cluster.kubectl("-n", namespace, "exec", "talker", "--", "touch", "/tmp/go")
        cluster.kubectl(
            "-n", namespace, "wait", "pod/talker", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=50s"
        )
        assert follower.stdout is not None
        seen = follower.stdout.read()
        attached.kill()
    assert len(seen) == BIG + len("end\n")
    assert seen.endswith(b"end\n")
    assert follower.returncode == 0


@pytest.mark.parametrize("binary", KUBECTLS)
def test_kubectl_run_attaches_its_input_and_removes_the_pod(
    cluster: Cluster, namespace: str, binary: str | None
) -> None:
    arguments = (
        "run",
        "i",
        "--image=busybox",
        "--rm",
        "-i",
        "--restart=Never",
        "--",
        "sh",
        "-c",
        "read a; echo got $a",
    )
    done = cluster.kubectl("-n", namespace, *arguments, stdin="hello\n", binary=binary)
    assert "got hello\n" in done.stdout
    assert 'pod "i" deleted' in done.stdout
    gone = cluster.kubectl("-n", namespace, "get", "pod", "i", check=False)
    assert "NotFound" in gone.stderr


@pytest.mark.parametrize("binary", KUBECTLS)
def test_kubectl_run_with_a_terminal_has_its_size_and_exit_code(
    cluster: Cluster, namespace: str, binary: str | None
) -> None:
    script = "until [ -t 0 ] && [ $(stty size | cut -d' ' -f1) = 33 ]; do sleep 0.05; done; stty size; read a; echo got=$a; exit 3"
    command = [
        binary or newest_kubectl(),
        "-n",
        namespace,
        "run",
        "t",
        "--image=busybox",
        "--rm",
        "-it",
        "--restart=Never",
    ]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], [*command, "--", "sh", "-c", script], cluster.environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    seen = b""
    with contextlib.suppress(OSError):  # EIO: kubectl has ended
        while piece := os.read(terminal, 4096):
            seen += piece
            if b"33 101" in seen and b"got=" not in seen:
                os.write(terminal, b"hello\n")
    os.close(terminal)
    assert (os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), b"got=hello" in seen) == (3, True), seen
    assert b'pod "t" deleted' in seen


HOST_PORTS = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "mkdir /w; hostname > /w/i; exec httpd -f -p 80 -h /w"]
    ports: [{{containerPort: 80, hostPort: 18080, hostIP: "{host_ip}", protocol: {protocol}}}]
"""


def test_host_ports_with_another_address_or_protocol_do_not_conflict_and_answer(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    node = cluster.get("nodes")["items"][0]
    address = next(each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")
    name = node["metadata"]["name"]
    pods = [("one", "127.0.0.1", "TCP"), ("two", address, "TCP"), ("three", address, "UDP")]
    apply("---".join(HOST_PORTS.format(name=pod, node=name, host_ip=ip, protocol=how) for pod, ip, how in pods))
    apply(pod("client", node=name, spec="hostNetwork: true"))
    cluster.kubectl("-n", namespace, "wait", "pod/one", "pod/two", "pod/three", "pod/client", *READY)

    def get(where: str) -> str:
        script = ("exec", "client", "--", "wget", "-qO-", f"http://{where}:18080/i")
        return cluster.kubectl("-n", namespace, *script).stdout.strip()

    assert (get("127.0.0.1"), get(address)) == ("one", "two")
    with urllib.request.urlopen(f"http://{address}:18080/i", timeout=5) as answer:
        assert answer.read() == b"two\n", "from outside the node"


def test_a_second_pod_with_the_same_host_port_waits_for_a_node_with_free_ports(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    ports = "ports: [{containerPort: 80, hostPort: 18081}]"
    for name in ("a", "b", "c", "d"):  # one more than there are nodes
        apply(pod(name, container=ports))
    refused = until(
        lambda: [
            each["message"]
            for each in cluster.get("-n", namespace, "events")["items"]
            if each["reason"] == "FailedScheduling"
        ],
        bool,
        seconds=60,
    )
    assert "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports." in refused[0]
