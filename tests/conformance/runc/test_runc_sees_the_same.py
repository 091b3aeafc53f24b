"""A process finds the same world under us and under runc: pods over every field, all that a process can see, both compared.

ORACLE=crun compares with crun instead, ORACLE_PODS=NAME,… these pods alone: so the lab does on cgroup v2 (tests/lab).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import observing
import pytest
from compared_pods import ALL, OBJECTS, Variation, manifest
from comparing import comparable, differences
from config_schema import CONFIG
from known_differences import KNOWN, Known, document
from profiles import PROFILES

pytestmark = pytest.mark.root

Differences = dict[str, dict[str, tuple[str, str]]]
ORACLE = os.environ.get("ORACLE", "runc")
PODS = [ALL[name] for name in os.environ.get("ORACLE_PODS", ",".join(ALL)).split(",")]
EXPECTED = [row for row in KNOWN if ORACLE in row.under and any(row.is_about(pod.name) for pod in PODS)]
VALIDATOR = jsonschema.Draft202012Validator(CONFIG)
MISSING = [program for program in (ORACLE, "gcc", "nsenter") if shutil.which(program) is None]
DOCUMENT = Path(__file__).parents[3] / "docs/runc-differences.md"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[observing.Host]:
    """An installation that runs all pods."""
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}: scripts/setup test installs them")
    directory = tmp_path_factory.mktemp("oracle")
    observing.build_probe(directory / "image")
    with observing.network_namespace() as holder:
        host = observing.Host(directory, holder, ORACLE)
        host.build(directory / "image", "", "probe:1")
        host.build(directory / "image", "USER web\nENV FROM=image\nWORKDIR /home\n", "probe-user:1")
        host.give_profiles(PROFILES)
        for pod in PODS:
            observing.make_host_directory(directory / "host" / pod.name)
        try:
            host.run([manifest(pod, str(directory / "host" / pod.name)) for pod in PODS], OBJECTS)
            yield host
        finally:
            host.remove_all()


@pytest.fixture(scope="module")
def found(host: observing.Host) -> Differences:
    """The differences of each pod's container; all pods run at once, each once under us and once under runc."""
    names = [pod.name for pod in PODS]
    ours, theirs = host.ours(names), host.theirs(names)
    assert all(len(ours[name]) > 1500 for name in names), "the probe sees less than it should"
    return {name: differences(comparable(ours[name]), comparable(theirs[name])) for name in names}


@pytest.mark.timeout(observing.PATIENCE * 3)
@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod.name)
def test_a_process_sees_the_same_under_runc_but_for_what_is_listed(found: Differences, pod: Variation) -> None:
    unlisted = {
        key: {"ours": values[0], ORACLE: values[1]}
        for key, values in found[pod.name].items()
        if not any(row.explains(pod.name, key, values) for row in EXPECTED)
    }
    assert not unlisted, json.dumps(unlisted, indent=1)


@pytest.mark.parametrize("row", [row for row in EXPECTED if not row.sometimes], ids=lambda row: row.words)
def test_a_listed_difference_is_still_there(found: Differences, row: Known) -> None:
    seen = [(pod, key) for pod, keys in found.items() for key, values in keys.items() if row.explains(pod, key, values)]
    assert seen, "take the line out of known_differences.py and docs/runc-differences.md"


def test_the_bundle_of_the_command_line_is_valid_and_runs(host: observing.Host, tmp_path: Path) -> None:
    said = host.cli("pod", "inspect", "user-and-group", "--oci", str(tmp_path / "bundle"))

    config = json.loads((tmp_path / "bundle/config.json").read_text())
    VALIDATOR.validate(config)
    assert config["process"]["user"] == {"uid": 1000, "gid": 3000, "additionalGids": [3000, 2000], "umask": 0o022}
    assert (tmp_path / "bundle/rootfs/probe").stat().st_mode & 0o777 == 0o755
    command = [*said.split(": ", 1)[1].removesuffix("NAME\n").split()]
    assert command[-2:] == ["--bundle", str(tmp_path / "bundle")]
    config["process"]["args"] = ["/nosuch"]
    (tmp_path / "bundle/config.json").write_text(json.dumps(config))
    done = subprocess.run([*command, "oracle-command-line"], capture_output=True, text=True, check=False, timeout=60)
    assert "stat /nosuch: no such file or directory" in done.stderr


def test_a_container_in_a_user_namespace_has_no_bundle(host: observing.Host, tmp_path: Path) -> None:
    host.run([manifest(Variation("mapped", {}, {"hostUsers": False}), "")], [])
    with pytest.raises(subprocess.CalledProcessError):
        host.cli("pod", "inspect", "mapped", "--oci", str(tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


def test_the_bundle_of_every_pod_is_valid(host: observing.Host, found: Differences) -> None:
    assert host.configs.keys() == found.keys()
    for name, config in host.configs.items():
        assert not [error.message for error in VALIDATOR.iter_errors(config)], name


def test_the_document_holds_the_table() -> None:
    assert DOCUMENT.read_text() == document(len(ALL)), f"write it anew: known_differences.py > {DOCUMENT.name}"
