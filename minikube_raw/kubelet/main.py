"""The kubelet as a process: image store, runtime and client are put together here, then the agent runs until SIGTERM.

Pods go on when it ends; the next one finds them in the runtime's records.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop

from minikube_raw.api import plain_text
from minikube_raw.client.http import HTTPTransport, client_context
from minikube_raw.client.rest import Client
from minikube_raw.kubelet.images import StoredImages
from minikube_raw.kubelet.kubelet import Kubelet
from minikube_raw.kubelet.options import KubeletOptions
from minikube_raw.linux import process, proctitle, rlimits
from minikube_raw.oci.images import ImageStore
from minikube_raw.runtime.service import Runtime


def run(options: KubeletOptions) -> None:
    """Run the agent of one node of a cluster; returns after SIGTERM or SIGINT."""
    plain_text.log_to_stderr()
    rlimits.raise_open_files()  # a socket for every pod, a pidfd for every container
    proctitle.set_title(f"kubelet {options.node_name}")
    process.go_first()
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(_run(options))


async def _run(options: KubeletOptions) -> None:
    cancel_on_signals()
    threads = ThreadPoolExecutor(thread_name_prefix="kubelet", initializer=process.go_with_others)
    asyncio.get_running_loop().set_default_executor(threads)
    store = ImageStore(Path(options.images_dir))
    runtime = make_runtime(options, store)
    await runtime.start()
    transport = HTTPTransport(
        options.servers[0],
        client_context(ca_file=options.ca, cert_file=options.client_certificate, key_file=options.client_key),
    )
    client = Client(transport, user_agent="minikube-raw/kubelet")
    gc.freeze()
    try:
        await Kubelet(options, client, runtime, StoredImages(store)).run()
    finally:
        await runtime.close()
        await client.close()


def make_runtime(options: KubeletOptions, store: ImageStore) -> Runtime:
    """The node's runtime over its image store."""
    for directory in (options.state_dir, options.run_dir):
        Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    options.logs_dir.mkdir(parents=True, exist_ok=True)
    places = (options.state_dir, options.run_dir, options.cgroup_root)
    return Runtime(*places, store, handlers=options.runtime_commands)


def cancel_on_signals(unless: Callable[[], bool] = lambda: False) -> None:
    """End the running task on SIGTERM, SIGINT and SIGHUP (which systemd sends beside SIGTERM when a session ends)."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def cancel() -> None:
        if not unless():
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, cancel)
