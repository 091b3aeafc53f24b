"""[sig-node] ContainerCheckpoint (KEP-2008), as upstream's node suite asks for it: through the API server, to the node's kubelet."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.cluster.manifests import pod
from tests.clusters import Cluster
from tests.criu import criu_works

Apply = Callable[..., str]


def test_will_checkpoint_a_container_out_of_a_pod_or_say_what_criu_lacks(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    apply(pod("counted", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"))
    cluster.kubectl("-n", namespace, "wait", "pod/counted", "--for=condition=Ready", "--timeout=30s")
    node = cluster.get("-n", namespace, "pod", "counted")["spec"]["nodeName"]
    base = f"/api/v1/nodes/{node}/proxy/checkpoint/{namespace}"

    done = cluster.kubectl("create", "--raw", f"{base}/counted/main?timeout=60", "-f", "/dev/null", check=False)
    if criu_works():
        (location,) = json.loads(done.stdout)["items"]
        assert Path(location).name.startswith(f"checkpoint-counted_{namespace}-main-")
        with tarfile.open(location) as archive:
            assert {"config.dump", "spec.dump", "checkpoint/inventory.img", "rootfs-diff.tar"} < set(archive.getnames())
        goes_on(cluster, namespace, apply, location)
    else:
        assert f"checkpointing of {namespace}/counted/main failed (rpc error: code = Unknown desc = " in done.stderr
        assert "CRIU binary not found or too old (<31600)" in done.stderr or "criu dump failed" in done.stderr
    log = cluster.kubectl("-n", namespace, "logs", "counted").stdout.splitlines()
    assert log == [str(number) for number in range(1, len(log) + 1)]

    for path in (f"{base}/nosuch/main", f"{base}/counted/x"):
        refused = cluster.kubectl("create", "--raw", path, "-f", "/dev/null", check=False)
        assert (
            "Error from server (NotFound)" in refused.stderr
        )  # a kubelet's text is no Status, which kubectl would show


def goes_on(cluster: Cluster, namespace: str, apply: Apply, archive: str) -> None:
    """On any node, with a token of its own service account where the old pod had one."""
    cluster.cli("image", "from-checkpoint", archive, "-t", "counted-before:v1")
    apply(pod("again", "exit 1").replace("image: busybox", "image: counted-before:v1"))
    cluster.kubectl("-n", namespace, "wait", "pod/again", "--for=condition=Ready", "--timeout=30s")
    assert int(cluster.kubectl("-n", namespace, "logs", "again").stdout.split()[0]) > 1
    read = ("cat", "/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    assert cluster.kubectl("-n", namespace, "exec", "again", "--", *read).stdout == namespace
