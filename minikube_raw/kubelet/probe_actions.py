"""One run of a probe against a container: exec, httpGet, tcpSocket or grpc → a Result, in Kubernetes' words."""

from __future__ import annotations

import asyncio

import msgspec

from minikube_raw.api.core import Container, ExecAction, Pod, Probe, TCPSocketAction
from minikube_raw.kubelet import probe_http
from minikube_raw.kubelet.dialing import DialError, dial, host_port
from minikube_raw.kubelet.probes import Outcome, Result
from minikube_raw.runtime import cri

MAX_OUTPUT = 10 << 10


class Asked(msgspec.Struct, frozen=True):
    """What is probed: a run of a container, and the address its pod answers at."""

    pod: Pod
    container: Container
    container_id: str
    address: str


async def run(runtime: cri.RuntimeService, asked: Asked, probe: Probe) -> Result:
    """Ask once, for at most timeoutSeconds. Nothing is raised for what the container does."""
    timeout = float(probe.timeout_seconds)
    try:
        if probe.exec_ is not None:
            return await _exec(runtime, asked, probe.exec_, timeout)
        if probe.http_get is not None:
            return await probe_http.probe(probe_http.target(probe.http_get, asked.container, asked.address), timeout)
        if probe.tcp_socket is not None:
            return await _tcp(asked, probe.tcp_socket, timeout)
        if probe.grpc is not None:
            from minikube_raw.kubelet import probe_grpc

            return await probe_grpc.probe(asked.address, probe.grpc.port, probe.grpc.service, timeout)
    except probe_http.NamedPortError as error:
        return Result(Outcome.UNKNOWN, str(error))
    return Result(Outcome.UNKNOWN, f"missing probe handler for {asked.pod.metadata.name}:{asked.container.name}")


async def _exec(runtime: cri.RuntimeService, asked: Asked, action: ExecAction, timeout: float) -> Result:
    try:
        result = await runtime.exec_sync(asked.container_id, list(action.command), timeout)
    except TimeoutError:
        command = " ".join(action.command)
        return Result(Outcome.FAILURE, f'command timed out: "{command}" timed out after {timeout:g}s')
    except cri.RuntimeServiceError as error:
        return Result(Outcome.UNKNOWN, str(error))
    output = (result.stdout + result.stderr)[:MAX_OUTPUT].decode(errors="replace")
    return Result(Outcome.SUCCESS if result.exit_code == 0 else Outcome.FAILURE, output)


async def _tcp(asked: Asked, action: TCPSocketAction, timeout: float) -> Result:
    host, port = action.host or asked.address, probe_http.port_number(action.port, asked.container)
    try:
        async with asyncio.timeout(timeout):
            _, writer = await dial(host, port)
    except TimeoutError:
        return Result(Outcome.FAILURE, f"dial tcp {host_port(host, port)}: i/o timeout")
    except DialError as error:
        return Result(Outcome.FAILURE, str(error))
    writer.transport.abort()
    return Result(Outcome.SUCCESS)
