"""What an image, a container or a manifest says cannot act on the terminal of whoever looks, nor pass for a line of ours."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from standalone_host import Host

pytestmark = pytest.mark.root

EVIL = "\x1b]0;owned\x07\x1b[2J\r\nNAMESPACE   forged\x9b31m\u202e"
FORGED = "2026-01-01T00:00:00.000000000Z stdout F forged"


def hostile_root(directory: Path) -> Path:
    """A root file system whose user and programs are named to hurt."""
    (directory / "bin").mkdir(parents=True)
    (directory / "etc").mkdir()
    shutil.copy("/usr/bin/busybox", directory / "bin/busybox")
    for applet in ("sh", "sleep"):
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text("ev\x1b[2Jil:x:1000:1000:::\nroot:x:0:0::/:/bin/sh\n", newline="")
    return directory


def is_harmless(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)


def pod(name: str, root: Path, *command: str, **more: object) -> str:
    mount = {"name": "v", "mountPath": f"/v{EVIL}"}
    container = {"name": "c", "image": f"dir:{root}", "command": list(command), "volumeMounts": [mount], **more}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    spec["volumes"] = [{"name": "v", "emptyDir": {}}]
    note = {"annotations": {"note": EVIL}}
    text = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **note}, "spec": spec})
    return text.replace("{", "{{").replace("}", "}}")


def test_no_command_lets_a_text_of_a_pod_through_to_the_terminal(host: Host, tmp_path: Path) -> None:
    root = hostile_root(tmp_path / "root")
    user = {"runAsUser": 1000}
    wanders = pod("wanders", root, "sleep", "3600", securityContext=user)
    host("pod", "run", "-f", host.manifest("wanders", wanders))
    says = pod("says", root, "sh", "-c", f"printf '%s' '{EVIL}' > /dev/termination-log; exit 3")
    host("pod", "run", "-f", host.manifest("says", says), "--wait", "ended", status=1)
    failing = pod("fails", root, f"/no{EVIL}such")
    complaint = host("pod", "run", "-f", host.manifest("fails", failing), "--wait", "ended", status=1)

    tables = {
        "list": host("pod", "list"),
        "events": host("pod", "events"),
        "top": host("pod", "top", "wanders"),
        "stats": host("pod", "stats"),
        "trace": host("trace", "pod", "default/wanders"),
        "inspect": host("pod", "inspect", "says"),
        "json": host("pod", "list", "-o", "json"),
        "exec": host("pod", "exec", "wanders", "--", EVIL, status=1),
        "complaint": complaint,
    }

    assert [name for name, text in tables.items() if not is_harmless(text)] == []
    assert [
        line for text in tables.values() for line in text.splitlines() if line.startswith("NAMESPACE   forged")
    ] == []
    assert "\\x1b" in tables["top"]
    assert "\\x1b" in tables["events"]
    assert json.loads(tables["json"])["items"]  # what programs read is whole
    assert "Error" in tables["list"]


def archive(path: Path, label: str, reference: str) -> Path:
    """A docker-save archive of one image with a hostile label and tag."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w"):
        pass
    import hashlib

    digest = f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": label,
        "config": {"Labels": {label: label}, "Cmd": [label]},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    }
    listed = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    files = {"config.json": json.dumps(config).encode(), "layer.tar": layer.getvalue()}
    files["manifest.json"] = json.dumps(listed).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("reference", ["evil:1", f"evil:{EVIL}", f"{EVIL}:1", "../../x:1", "a/../../b:1"])
def test_no_command_lets_a_text_of_an_image_through_to_the_terminal(host: Host, tmp_path: Path, reference: str) -> None:
    loaded = reference == "evil:1"
    said = host("image", "load", str(archive(tmp_path / "i.tar", EVIL, reference)), status=0 if loaded else 1)

    assert is_harmless(said)
    assert is_harmless(host("image", "list"))
    if loaded:
        for output in ("json", "yaml"):
            assert is_harmless(host("image", "inspect", reference, "-o", output))


def test_no_text_of_a_container_makes_a_record_in_the_agents_log_or_in_its_own(host: Host, tmp_path: Path) -> None:
    root = hostile_root(tmp_path / "root")
    forged = f"\n{FORGED}\nWARNING forged: {EVIL}"
    for name, command in (("message", f"printf '%s' '{forged}' > /dev/termination-log; exit 3"), ("none", "")):
        text = pod(name, root, "sh", "-c", command) if command else pod(name, root, f"/no{forged}such")
        host("pod", "run", "-f", host.manifest(name, text), "--wait", "ended", status=1)

    log = (host.state / "standalone/agent.log").read_bytes().decode()
    assert is_harmless(log)
    assert [line for line in log.splitlines() if line.startswith(("2026-01-01", "WARNING forged", "NAMESPACE"))] == []
    records = [json.loads(path.read_text()) for path in host.state.rglob("records/exits/*.json")]
    assert sorted(each["exit_code"] for each in records) == [3, 128]


@pytest.mark.parametrize("name", ["a/b", "..", "../../x", "new\nline", "nul\0", "esc\x1b[2J", "x" * 300])
@pytest.mark.parametrize("what", ["pod", "container", "volume"])
def test_names_that_are_paths_or_lines_are_refused_and_make_nothing(host: Host, what: str, name: str) -> None:
    names = {"pod": "p", "container": "c", "volume": "v"} | {what: name}
    spec = {
        "containers": [{"name": names["container"], "image": "busybox"}],
        "volumes": [{"name": names["volume"], "emptyDir": {}}],
    }
    wish = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": names["pod"]}, "spec": spec}

    complaint = host("pod", "run", "-f", "-", stdin=json.dumps(wish), status=1)

    assert is_harmless(complaint)
    assert "Invalid value" in complaint or "Must be" in complaint or "not YAML" in complaint, complaint
    assert not host.run_dir.exists()
