"""Fields of a pod that a node acts upon, with values that make no sense: refused in the words of Kubernetes 1.36."""

from __future__ import annotations

from typing import Any

import pytest
from served_api import CORE, Api, pod

C = "spec.containers[0]"


def one(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "i", **fields}]}


def mounting(source: dict[str, Any], **mount: Any) -> dict[str, Any]:
    return one(volumeMounts=[{"name": "v", "mountPath": "/v", **mount}]) | {"volumes": [{"name": "v", **source}]}


def device(source: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return one(volumeDevices=[{"name": "v", "devicePath": "/dev/x"}], **fields) | {"volumes": [{"name": "v", **source}]}


HOST = {"hostPath": {"path": "/x"}}
CLAIM = {"persistentVolumeClaim": {"claimName": "x"}}
LINUX = {"os": {"name": "linux"}}
MODES = "Required value: at least 1 access mode is required"

CASES = {
    "a stop signal without a system": (
        one(lifecycle={"stopSignal": "SIGUSR1"}),
        f"{C}.lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
    ),
    "an ephemeral volume without a template": (
        mounting({"ephemeral": {}}),
        "spec.volumes[0].ephemeral.volumeClaimTemplate: Required value",
    ),
    "an ephemeral volume's template": (
        mounting({"ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Mi"}}}}}}),
        f"spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: {MODES}",
    ),
    "an image volume without a reference": (
        mounting({"image": {}}),
        "spec.volumes[0].image.reference: Required value",
    ),
    "two projections in one": (
        mounting({"projected": {"sources": [{"secret": {"name": "a"}, "configMap": {"name": "b"}}]}}),
        "spec.volumes[0].projected.sources[0].configMap: Forbidden: may not specify more than 1 volume type per source",
    ),
    "propagation from an unprivileged container": (
        mounting(HOST, mountPropagation="Bidirectional"),
        (
            f"{C}.volumeMounts[0].mountPropagation: Forbidden: "
            "Bidirectional mount propagation is available only to privileged containers"
        ),
    ),
    "recursively read-only and writable": (
        mounting(HOST, recursiveReadOnly="Enabled"),
        f"{C}.volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
    ),
    "recursively read-only and propagating": (
        mounting(HOST, recursiveReadOnly="IfPossible", readOnly=True, mountPropagation="HostToContainer"),
        (
            f"{C}.volumeMounts[0].recursiveReadOnly: Forbidden: "
            "may only be specified when mountPropagation is None or not specified"
        ),
    ),
    "a block device that is a directory": (
        device({"emptyDir": {}}),
        (
            f'{C}.volumeDevices[0].name: Invalid value: "v": '
            "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
        ),
    ),
    "a block device that is mounted too": (
        device(CLAIM, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        f'{C}.volumeDevices[0].name: Invalid value: "v": must not already exist in volumeMounts',
    ),
    "two policies for one resource": (
        one(resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}] * 2),
        f'{C}.resizePolicy: Duplicate value: "cpu"',
    ),
    "a restart at a resize of what never restarts": (
        one(resizePolicy=[{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]) | {"restartPolicy": "Never"},
        f"{C}.resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is 'Never'",
    ),
    "an unmasked /proc of the host's users": (
        one(securityContext={"procMount": "Unmasked"}),
        f'{C}.securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`',
    ),
    "a policy of groups that is none": (
        one() | {"securityContext": {"supplementalGroupsPolicy": "X"}},
        'spec.securityContext.supplementalGroupsPolicy: Unsupported value: "X": supported values: "Merge", "Strict"',
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_value_that_makes_no_sense_is_refused(api: Api, case: str) -> None:
    spec, message = CASES[case]

    refused = await api.create(CORE + "pods", pod("p", **spec), code=422)

    assert refused["message"] == f'Pod "p" is invalid: {message}'


async def test_a_signal_that_linux_does_not_have_is_refused(api: Api) -> None:
    spec = one(lifecycle={"stopSignal": "SIGFOO"}) | LINUX

    refused = await api.create(CORE + "pods", pod("p", **spec), code=422)

    begin = f'Pod "p" is invalid: {C}.lifecycle.stopSignal: Unsupported value: "SIGFOO": supported values: "SIGABRT", "SIGALRM", '
    assert refused["message"].startswith(begin)


ACCEPTED = {
    "a stop signal": one(lifecycle={"stopSignal": "SIGRTMIN+3"}) | LINUX,
    "propagation from a privileged container": one(
        volumeMounts=[{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}],
        securityContext={"privileged": True},
    )
    | {"volumes": [{"name": "v", **HOST}]},
    "recursively read-only": mounting(HOST, recursiveReadOnly="Enabled", readOnly=True),
    "a block device": device(CLAIM),
    "an unmasked /proc of users of its own": one(securityContext={"procMount": "Unmasked"}) | {"hostUsers": False},
    "a source that no node here knows": mounting({"gcePersistentDisk": {"pdName": "x"}}),
}


@pytest.mark.parametrize("case", ACCEPTED)
async def test_what_makes_sense_is_accepted_whether_or_not_a_node_can_do_it(api: Api, case: str) -> None:
    await api.create(CORE + "pods", pod("p", **ACCEPTED[case]))
