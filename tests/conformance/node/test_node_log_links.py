"""A node's /var/log as log collectors know it: /var/log/containers leads to /var/log/pods, for as long as a container is there."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.cluster.waiting import until
from tests.clusters import Cluster

pytestmark = pytest.mark.root


def pod(name: str, script: str, **spec: Any) -> str:
    container = {"name": "c", "image": "busybox", "command": ["sh", "-c", script]}
    mounts = [{"name": each["name"], "mountPath": "/var/log", "readOnly": True} for each in spec.get("volumes", ())]
    wish = {"terminationGracePeriodSeconds": 0, "containers": [container | {"volumeMounts": mounts}], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": wish})


def test_a_collector_finds_each_containers_log_by_its_link(cluster: Cluster, namespace: str, apply: Any) -> None:
    apply(pod("talks", "echo collected; exec sleep 3600"))
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "--timeout=50s", "pod/talks")
    talks = cluster.get("-n", namespace, "pod", "talks")
    host_log = {"name": "log", "hostPath": {"path": "/var/log"}}
    apply(pod("collector", "exec sleep 3600", volumes=[host_log], nodeName=talks["spec"]["nodeName"]))
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "--timeout=50s", "pod/collector")

    def look(command: str) -> str:
        return cluster.kubectl("-n", namespace, "exec", "collector", "--", "sh", "-c", command).stdout

    container_id = talks["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
    link = f"/var/log/containers/talks_{namespace}_c-{container_id}.log"
    log = f"/var/log/pods/{namespace}_talks_{talks['metadata']['uid']}/c/0.log"
    assert look(f"readlink {link}").strip() == log
    assert look(f"cat {link}").endswith(" stdout F collected\n")

    cluster.kubectl("-n", namespace, "delete", "pod", "talks")
    until(lambda: look("ls /var/log/containers"), lambda names: f"talks_{namespace}" not in names, seconds=60)
    assert not any(f"_{namespace}_" in name for name in os.listdir("/var/log"))
    assert not os.path.exists(link)
