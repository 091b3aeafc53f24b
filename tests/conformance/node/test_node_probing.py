"""Probes, hooks, sidecars and deadlines, as Kubernetes' conformance suite asks for them: all pods at once, then one look each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.cluster.waiting import until
from tests.clusters import Cluster

pytestmark = pytest.mark.root
Pod = dict[str, Any]
SLEEP = "exec sleep 3600"
HTTPD = "mkdir /w; echo ok > /w/healthz; exec httpd -f -p 8080 -h /w"
FAILS_LATER = "mkdir /w; echo ok > /w/healthz; httpd -f -p 8080 -h /w & sleep 2.5; rm /w/healthz; wait"


def probe(**how: Any) -> dict[str, Any]:
    return {"periodSeconds": 1, "failureThreshold": 2, **how}


def pod(name: str, script: str = SLEEP, *, image: str = "busybox", spec: Any = None, **container: Any) -> Pod:
    first = {"name": "c", "image": image, "command": ["sh", "-c", script], **container}
    body = {"terminationGracePeriodSeconds": 1, "containers": [first], **(spec or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def health_server(seconds: float = 3600) -> str:
    """A gRPC health server in the standard library: answers SERVING, after some seconds NOT_SERVING."""
    return GRPC_SERVER.replace("SECONDS", str(seconds))


# HTTP/2 by hand: SETTINGS first; each request stream is answered by headers, one message and trailers (HPACK literals).
GRPC_SERVER = r"""
import socketserver, struct, time
born = time.monotonic()
def frame(kind, flags, stream, body): return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body
def literal(name, value): return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.read(24)
        self.wfile.write(frame(4, 0, 0, b""))
        while len(head := self.rfile.read(9)) == 9:
            size, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
            self.rfile.read(size)
            if kind == 4 and not flags & 1: self.wfile.write(frame(4, 1, 0, b""))
            if kind == 0 and flags & 1:
                up = time.monotonic() - born < SECONDS
                self.wfile.write(frame(1, 4, stream, b"\x88" + literal(b"content-type", b"application/grpc"))
                    + frame(0, 0, stream, b"\0\0\0\0\2\x08" + (b"\1" if up else b"\2"))
                    + frame(1, 5, stream, literal(b"grpc-status", b"0")))
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("", 5050), Handler).serve_forever()
"""


def python(name: str, source: str, **container: Any) -> Pod:
    return pod(name, image="python", **container | {"command": ["python3", "-c", source]})


LIVENESS_HTTP = probe(httpGet={"path": "/healthz", "port": "web"})
PORTS = [{"name": "web", "containerPort": 8080}]
LIVENESS_GRPC = probe(grpc={"port": 5050}, initialDelaySeconds=2)
CAT = probe(exec={"command": ["cat", "/tmp/health"]})


SIDECARS = {
    "terminationGracePeriodSeconds": 20,
    "initContainers": [
        {
            "name": name,
            "image": "busybox",
            "restartPolicy": "Always",
            "command": ["sh", "-c", f"trap 'echo {name} ends >> /log/order; exit 0' TERM; touch /tmp/up; while true; do sleep 0.1; done"],
            "startupProbe": {"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1},
            "volumeMounts": [{"name": "log", "mountPath": "/log"}],
        }
        for name in ("s1", "s2")
    ],
    "volumes": [{"name": "log", "emptyDir": {}}],
    "restartPolicy": "Never",
}  # fmt: skip

PODS = [
    pod("http-stays", HTTPD, livenessProbe=LIVENESS_HTTP, ports=PORTS),
    pod("tcp-stays", HTTPD, livenessProbe=probe(tcpSocket={"port": 8080})),
    pod("exec-stays", f"touch /tmp/health; {SLEEP}", livenessProbe=CAT),
    pod("http-restarts", FAILS_LATER, livenessProbe=LIVENESS_HTTP, ports=PORTS),
    pod("exec-restarts", f"touch /tmp/health; sleep 1; rm /tmp/health; {SLEEP}", livenessProbe=CAT),
    pod("counts", SLEEP, livenessProbe=probe(exec={"command": ["false"]}, failureThreshold=1)),
    python("grpc-stays", health_server(), livenessProbe=LIVENESS_GRPC, readinessProbe=LIVENESS_GRPC),
    python("grpc-restarts", health_server(4), livenessProbe=LIVENESS_GRPC),
    pod("delayed", readinessProbe=probe(exec={"command": ["true"]}, initialDelaySeconds=6)),
    pod("never-ready", readinessProbe=probe(exec={"command": ["false"]})),
    pod("slow-start", f"sleep 2; touch /tmp/up; {SLEEP}", startupProbe=probe(exec={"command": ["cat", "/tmp/up"]}, failureThreshold=20)),
    pod("post-exec", lifecycle={"postStart": {"exec": {"command": ["sh", "-c", "echo started > /tmp/hook"]}}}),
    pod("post-fails", lifecycle={"postStart": {"exec": {"command": ["sh", "-c", "echo no; exit 4"]}}}),
    pod("deadline", spec={"activeDeadlineSeconds": 3}),
    pod("job", "sleep 1", spec=SIDECARS),
    pod("target", "exec httpd -f -vv -p 8080 -h /var"),
]  # fmt: skip


@pytest.fixture(scope="module")
def probed(cluster: Cluster) -> Iterator[str]:
    """A namespace with all of these pods, and the pods that call `target` from their hooks."""
    cluster.kubectl("create", "namespace", "probed")
    every = {"apiVersion": "v1", "kind": "List", "items": PODS}
    cluster.kubectl("-n", "probed", "apply", "-f", "-", stdin=json.dumps(every))
    cluster.kubectl("-n", "probed", "wait", "pod/target", "--for=condition=Ready", "--timeout=50s")
    host = cluster.get("-n", "probed", "pod", "target")["status"]["podIP"]
    callers = [
        pod("calls-post", lifecycle={"postStart": {"httpGet": {"host": host, "path": "/hook-post", "port": 8080}}}),
        pod("calls-pre", lifecycle={"preStop": {"httpGet": {"host": host, "path": "/hook-pre", "port": 8080}}}),
        pod("execs-pre", lifecycle={"preStop": {"exec": {"command": ["wget", "-qO-", f"http://{host}:8080/hook-exec"]}}}),
    ]  # fmt: skip
    cluster.kubectl(
        "-n", "probed", "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": callers})
    )
    yield "probed"
    cluster.kubectl("delete", "namespace", "probed", "--wait=false")


@pytest.fixture
def see(cluster: Cluster, probed: str) -> Any:
    """A pod's status, once it is as wanted."""

    def look(name: str, wanted: Any, seconds: float = 25) -> Any:
        return until(lambda: cluster.get("-n", probed, "pod", name)["status"], wanted, seconds=seconds)

    return look


@pytest.fixture
def events(cluster: Cluster, probed: str) -> Any:
    """(reason, message) of a pod's Events."""

    def look(name: str) -> set[tuple[str, str]]:
        found = cluster.get("-n", probed, "events", "--field-selector", f"involvedObject.name={name}")
        return {(each["reason"], each["message"]) for each in found["items"]}

    return look


def first(status: Any) -> Any:
    return status.get("containerStatuses", [{}])[0]


def restarts(status: Any) -> int:
    return int(first(status).get("restartCount", 0))


def phase(wanted: str) -> Any:
    return lambda status: status["phase"] == wanted


def condition(status: Any, kind: str) -> Any:
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})


def ready(status: Any) -> bool:
    return bool(condition(status, "Ready").get("status") == "True")


def test_restarted_with_a_healthz_http_liveness_probe(see, events) -> None:
    status = see("http-restarts", lambda status: restarts(status) >= 1)

    assert first(status)["lastState"]["terminated"]["exitCode"] in (137, 143)
    assert {
        ("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 404"),
        ("Killing", "Container c failed liveness probe, will be restarted"),
    } <= events("http-restarts")


def test_restarted_with_a_exec_cat_tmp_health_liveness_probe(see, events) -> None:
    see("exec-restarts", lambda status: restarts(status) >= 1)

    message = "Liveness probe failed: cat: can't open '/tmp/health': No such file or directory\n"
    assert ("Unhealthy", message) in events("exec-restarts")


def test_restarted_with_a_grpc_liveness_probe(see, events) -> None:
    see("grpc-restarts", lambda status: restarts(status) >= 1)

    assert ("Unhealthy", 'Liveness probe failed: service unhealthy (responded with "NOT_SERVING")') in events(
        "grpc-restarts"
    )


def test_have_monotonically_increasing_restart_count(see) -> None:
    seen: list[int] = []
    see("counts", lambda status: seen.append(restarts(status)) or seen[-1] >= 2)

    assert seen == sorted(seen)


def test_with_readiness_probe_not_be_ready_before_initial_delay_and_never_restart(see) -> None:
    status = see("delayed", ready)

    started = datetime.fromisoformat(first(status)["state"]["running"]["startedAt"])
    turned = datetime.fromisoformat(condition(status, "Ready")["lastTransitionTime"])
    assert (turned - started).total_seconds() >= 5  # both are whole seconds
    assert restarts(status) == 0


def test_with_readiness_probe_that_fails_never_be_ready_and_never_restart(see, events) -> None:
    status = see("never-ready", phase("Running"))

    assert not ready(status)
    assert restarts(status) == 0
    assert ("Unhealthy", "Readiness probe failed: ") in events("never-ready")


def test_a_slow_start_is_waited_for(see) -> None:
    status = see("slow-start", ready)

    assert first(status)["started"] is True
    assert restarts(status) == 0


def test_execute_poststart_exec_hook_properly(cluster: Cluster, probed: str, see) -> None:
    see("post-exec", ready)

    assert cluster.kubectl("-n", probed, "exec", "post-exec", "--", "cat", "/tmp/hook").stdout == "started\n"


def test_execute_poststart_http_hook_properly(cluster: Cluster, probed: str, see) -> None:
    see("calls-post", ready)

    assert "/hook-post" in cluster.kubectl("-n", probed, "logs", "target").stdout


@pytest.mark.parametrize(
    ("name", "said"), [pytest.param("calls-pre", "pre", id="http"), pytest.param("execs-pre", "exec", id="exec")]
)
def test_execute_prestop_hook_properly(cluster: Cluster, probed: str, see, name: str, said: str) -> None:
    see(name, ready)

    cluster.kubectl("-n", probed, "delete", "pod", name, "--grace-period=2")

    assert f"/hook-{said}" in cluster.kubectl("-n", probed, "logs", "target").stdout


def test_a_poststart_hook_that_fails_is_told_and_its_container_tried_again(see, events) -> None:
    see("post-fails", lambda status: restarts(status) >= 1)

    assert {("FailedPostStartHook", "PostStartHook failed"), ("Killing", "FailedPostStartHook")} <= events("post-fails")


def test_a_pod_past_its_deadline_fails_with_the_reason(see, events) -> None:
    status = see("deadline", phase("Failed"))

    message = "Pod was active on the node longer than the specified deadline"
    assert (status["reason"], status["message"]) == ("DeadlineExceeded", message)
    assert condition(status, "Ready")["reason"] == "PodFailed"
    assert {("DeadlineExceeded", message), ("Killing", "Stopping container c")} <= events("deadline")


def test_a_pod_succeeds_although_its_sidecars_would_run_on(see) -> None:
    status = see("job", phase("Succeeded"))

    ended = [each["state"]["terminated"] for each in status["initContainerStatuses"]]
    assert [each["exitCode"] for each in ended] == [0, 0]
    assert ended[0]["finishedAt"] >= ended[1]["finishedAt"]


@pytest.mark.parametrize("kind", ["http", "tcp", "exec", "grpc"])
def test_not_be_restarted_while_healthy(see, kind: str) -> None:
    status = see(f"{kind}-stays", ready)

    assert restarts(status) == 0
