"""Service accounts and persistent volumes as a pod has them: its token, its claim, and what becomes of both after it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.waiting import until
from tests.clusters import Cluster

pytestmark = pytest.mark.root
Apply = Callable[..., str]
TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"

PODS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: quiet}
automountServiceAccountToken: false
---
apiVersion: v1
kind: Pod
metadata: {name: auto}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: busybox, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: none}
spec:
  serviceAccountName: quiet
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: busybox, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: vault}
spec:
  serviceAccountName: quiet
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: busybox, command: [sleep, "3600"], volumeMounts: [{name: t, mountPath: /tokens}]}
  volumes:
  - name: t
    projected: {sources: [{serviceAccountToken: {path: vault, audience: vault, expirationSeconds: 1200}}]}
"""


def claims_of(token: str) -> Any:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def review(cluster: Cluster, token: str, **spec: Any) -> Any:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, **spec}}
    made = cluster.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(body)).stdout
    return json.loads(made)["status"]


def test_pods_have_their_accounts_tokens_and_only_while_they_live(
    cluster: Cluster, namespace: str, apply: Apply
) -> None:
    apply(PODS)
    cluster.kubectl("-n", namespace, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=50s")

    def read(pod: str, path: str) -> str:
        return cluster.kubectl("-n", namespace, "exec", pod, "--", "cat", path).stdout

    token = read("auto", f"{TOKEN_DIR}/token")
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout)
    authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    assert read("auto", f"{TOKEN_DIR}/namespace") == namespace
    assert read("auto", f"{TOKEN_DIR}/ca.crt") == authority
    assert claims_of(token)["kubernetes.io"]["pod"]["name"] == "auto"
    who = review(cluster, token)
    assert who["user"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert who["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["auto"]
    assert cluster.kubectl("-n", namespace, "exec", "none", "--", "ls", "/var/run/secrets", check=False).returncode != 0
    vault = read("vault", "/tokens/vault")
    assert claims_of(vault)["aud"] == ["vault"]
    assert "error" in review(cluster, vault)
    assert review(cluster, vault, audiences=["vault"])["authenticated"] is True

    cluster.kubectl("-n", namespace, "delete", "pod", "auto")

    text = "[invalid bearer token, service account token has been invalidated]"
    until(lambda: review(cluster, token).get("error"), lambda error: error == text, seconds=60)


CLAIMED = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  securityContext: {runAsUser: 1000, runAsGroup: 1000}
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "echo kept > /data/file; cp /data/file /own/copy; cat /own/copy"]
    volumeMounts: [{name: v, mountPath: /data}, {name: own, mountPath: /own}]
  volumes:
  - name: v
    persistentVolumeClaim: {claimName: data}
  - name: own
    ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}}
"""

READER = """
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: busybox, command: [sleep, "3600"], volumeMounts: [{name: v, mountPath: /data, readOnly: true}]}
  volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]
"""


def test_a_claims_data_outlives_its_pods_and_not_itself(cluster: Cluster, namespace: str, apply: Apply) -> None:
    apply(CLAIMED)
    until(
        lambda: cluster.get("-n", namespace, "pod", "writer")["status"]["phase"],
        lambda phase: phase == "Succeeded",
        seconds=60,
    )
    volumes = [v for v in cluster.get("pv")["items"] if v["spec"]["claimRef"]["namespace"] == namespace]
    paths = {v["spec"]["claimRef"]["name"]: Path(v["spec"]["local"]["path"]) for v in volumes}
    assert paths.keys() == {"data", "writer-own"}
    assert (paths["data"] / "file").read_text() == (paths["writer-own"] / "copy").read_text() == "kept\n"
    node = cluster.get("-n", namespace, "pod", "writer")["spec"]["nodeName"]

    cluster.kubectl("-n", namespace, "delete", "pod", "writer")
    apply(READER)
    cluster.kubectl("-n", namespace, "wait", "pod", "reader", "--for=condition=Ready", "--timeout=50s")
    assert cluster.kubectl("-n", namespace, "exec", "reader", "--", "cat", "/data/file").stdout == "kept\n"
    assert cluster.get("-n", namespace, "pod", "reader")["spec"]["nodeName"] == node
    until(paths["writer-own"].exists, lambda exists: not exists, seconds=60)
    cluster.kubectl("-n", namespace, "delete", "pvc", "data", "--wait=false")
    assert cluster.get("-n", namespace, "pvc", "data")["status"]["phase"] == "Bound"
    assert (paths["data"] / "file").exists()

    cluster.kubectl("-n", namespace, "delete", "pod", "reader")
    until(
        lambda: cluster.kubectl("get", "pv", "-o", "name").stdout,
        lambda names: paths["data"].name not in names,
        seconds=60,
    )
    assert not paths["data"].exists()
    assert cluster.kubectl("-n", namespace, "get", "pvc", "-o", "name").stdout == ""
