"""The everyday verbs of an unmodified kubectl, and what it prints."""

from __future__ import annotations

import asyncio
import json

from kubectls import Kubectl

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "busybox:1", ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  # kubectl would take the mounts that admission adds to a list of ours for a change, with every API server.
  automountServiceAccountToken: false
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - {name: a, image: busybox, volumeMounts: [{name: v, mountPath: /v}]}
  - {name: b, image: busybox}
"""


def web(replicas: int = 3) -> str:
    return WEB.replace("REPLICAS", str(replicas))


async def test_applying_twice_says_unchanged_and_a_change_configured(kubectl: Kubectl) -> None:
    first = await kubectl("apply", "-f", "-", stdin=web())
    second = await kubectl("apply", "-f", "-", stdin=web())
    third = await kubectl("apply", "-f", "-", stdin=web(2))

    assert first.split() == ["deployment.apps/web", "created", "service/web", "created", "pod/two", "created"]
    assert second.split() == ["deployment.apps/web", "unchanged", "service/web", "unchanged", "pod/two", "unchanged"]
    assert third.split() == ["deployment.apps/web", "configured", "service/web", "unchanged", "pod/two", "unchanged"]
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "2"


async def test_diff_shows_what_apply_would_change(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=web())

    result = await kubectl.run("diff", "-f", "-", stdin=web(5))

    assert result.code == 1
    assert "-  replicas: 3" in result.out
    assert "+  replicas: 5" in result.out


async def test_server_side_apply_keeps_owners_apart(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", "-", stdin=web())

    applied = await kubectl("apply", "--server-side", "--field-manager=mine", "-f", "-", stdin=web())
    again = await kubectl("apply", "--server-side", "--field-manager=mine", "-f", "-", stdin=web())
    refused = await kubectl.fails("apply", "--server-side", "--field-manager=mine", "-f", "-", stdin=web(7))
    forced = await kubectl(
        "apply", "--server-side", "--field-manager=mine", "--force-conflicts", "-f", "-", stdin=web(7)
    )

    assert applied.splitlines()[0] == again.splitlines()[0] == "deployment.apps/web serverside-applied"
    assert "conflict with" in refused
    assert ".spec.replicas" in refused
    assert forced.splitlines()[0] == "deployment.apps/web serverside-applied"
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "7"


async def test_get_prints_tables_and_every_other_form(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=web())

    table = await kubectl("get", "pods", "-o", "wide")
    yaml = await kubectl("get", "pod", "two", "-o", "yaml")
    names = await kubectl("get", "deploy,svc,pods", "-o", "name")

    assert table.splitlines()[0].split()[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert table.splitlines()[1].split()[:4] == ["two", "0/2", "Pending", "0"]
    assert yaml.startswith("apiVersion: v1\nkind: Pod\n")
    assert json.loads(await kubectl("get", "pods", "-o", "json"))["items"][0]["metadata"]["name"] == "two"
    assert names.split() == ["deployment.apps/web", "service/web", "pod/two"]
    assert "NotFound" in await kubectl.fails("get", "pod", "nope")
    assert "the server doesn't have a resource type" in await kubectl.fails("get", "nopes")


async def test_a_watch_prints_changes_as_they_come(kubectl: Kubectl) -> None:
    await kubectl("create", "configmap", "seen")
    watch = await kubectl.start("get", "configmaps", "-w", "--no-headers", "-o", "custom-columns=X:.metadata.labels.x")
    assert watch.stdout is not None
    try:
        async with asyncio.timeout(20):
            shown = [(await watch.stdout.readline()).decode().strip()]
            for value in ("1", "2"):
                await kubectl("label", "--overwrite", "configmap", "seen", f"x={value}")
                shown.append((await watch.stdout.readline()).decode().strip())
    finally:
        watch.terminate()
        await watch.communicate()

    assert shown == ["<none>", "1", "2"]


async def test_small_changes_go_by_label_annotate_patch_edit_set(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=web())

    await kubectl("label", "pod", "two", "x=y")
    await kubectl("annotate", "pod", "two", "note=yes")
    await kubectl(
        "patch", "deploy", "web", "-p", '{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"b:2"}]}}}}'
    )
    await kubectl("patch", "deploy", "web", "--type=json", "-p", '[{"op":"replace","path":"/spec/replicas","value":5}]')
    await kubectl("patch", "deploy", "web", "--type=merge", "-p", '{"metadata":{"labels":{"z":"1"}}}')
    assert "image updated" in await kubectl("set", "image", "deploy/web", "c=b:3")
    assert "edited" in await kubectl("edit", "deploy", "web", EDITOR="sed -i s/b:3/b:4/")
    assert "scaled" in await kubectl("scale", "deploy", "web", "--replicas=4")

    deployment = json.loads(await kubectl("get", "deploy", "web", "-o", "json"))
    pod = json.loads(await kubectl("get", "pod", "two", "-o", "json"))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["ports"][0]["containerPort"]) == ("b:4", 80)
    assert deployment["spec"]["replicas"] == 4
    assert deployment["metadata"]["labels"] == {"app": "web", "z": "1"}
    assert (pod["metadata"]["labels"]["x"], pod["metadata"]["annotations"]["note"]) == ("y", "yes")


async def test_create_makes_the_usual_things(kubectl: Kubectl) -> None:
    await kubectl("create", "configmap", "c", "--from-literal=a=b")
    await kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
    await kubectl("create", "serviceaccount", "sa")
    await kubectl("create", "deployment", "d", "--image=busybox")
    await kubectl("run", "r", "--image=busybox")
    await kubectl("expose", "deployment", "d", "--port=80")

    assert "already exists" in await kubectl.fails("create", "configmap", "c")
    assert await kubectl("get", "secret", "s", "-o", "jsonpath={.data.a}") == "Yg=="
    assert await kubectl("run", "x", "--image=i", "--dry-run=server", "-o", "name") == "pod/x\n"
    assert "NotFound" in await kubectl.fails("get", "pod", "x")


async def test_describe_tells_about_pods_services_and_deployments(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=web())

    assert "QoS Class:" in await kubectl("describe", "pod", "two")
    assert "Selector:" in await kubectl("describe", "service", "web")
    assert "3 desired | 0 updated" in await kubectl("describe", "deployment", "web")


async def test_explain_knows_the_fields(kubectl: Kubectl) -> None:
    assert "restartPolicy" in await kubectl("explain", "pod.spec")
    assert "maxSurge" in await kubectl("explain", "deployment.spec.strategy.rollingUpdate")
    assert "FIELDS" in await kubectl("explain", "service", "--recursive")
    assert "does not exist" in await kubectl.fails("explain", "pod.nope")


async def test_resources_versions_and_rights_are_known(kubectl: Kubectl) -> None:
    resources = await kubectl("api-resources", "--no-headers")

    assert {"pods", "deployments", "leases", "events"} <= {line.split()[0] for line in resources.splitlines()}
    assert "apps/v1" in (await kubectl("api-versions")).split()
    assert "v1.36" in await kubectl("version")
    assert await kubectl("auth", "can-i", "delete", "pods") == "yes\n"
    assert await kubectl("get", "--raw", "/healthz") == "ok"


async def test_bad_manifests_are_refused_in_words(kubectl: Kubectl) -> None:
    unknown = '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"foo":1,"containers":[{"name":"c","image":"i"}]}}'
    negative = unknown.replace('"foo":1,', "").replace('"i"', '"i","resources":{"requests":{"cpu":"-1"}}')

    assert "foo" in await kubectl.fails("apply", "-f", "-", stdin=unknown)
    assert "must be greater than or equal to 0" in await kubectl.fails("apply", "-f", "-", stdin=negative)
    assert await kubectl.fails("apply", "-f", "-", stdin="a: [")
    long_name = await kubectl.fails("create", "configmap", "x" * 300)
    assert "must be no more than 253" in long_name


async def test_delete_waits_until_it_is_gone(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=web())

    gone = await kubectl("delete", "-f", "-", stdin=web())

    assert gone.count("deleted") == 3
    assert "No resources found" in (await kubectl.run("get", "deploy,svc,pods")).err


async def test_nodes_are_cordoned_tainted_and_shown(kubectl: Kubectl) -> None:
    name = f"n-{'old' if kubectl.is_old else 'new'}"
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"node-role.kubernetes.io/worker": ""}},
    }
    await kubectl("create", "-f", "-", stdin=json.dumps(node))

    assert "cordoned" in await kubectl("cordon", name)
    assert "tainted" in await kubectl("taint", "node", name, "a=b:NoSchedule")
    row = (await kubectl("get", "node", name, "--no-headers")).split()
    assert row[:3] == [name, "Unknown,SchedulingDisabled", "worker"]
    assert "uncordoned" in await kubectl("uncordon", name)
    await kubectl("delete", "node", name)
