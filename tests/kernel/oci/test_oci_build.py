"""Building images: the recipes that come along really run, and a Containerfile's errors say where and what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minikube_raw.oci import packages, recipes, reference
from minikube_raw.oci.build import BuildError
from minikube_raw.oci.images import Image, ImageNotFound, ImageStore
from minikube_raw.oci.reference import InvalidReference
from minikube_raw.oci.snapshots import Snapshots

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="needs busybox-static: recipes copy it"),
]


def run_in(store: ImageStore, image: Image, workspace: Path, script: str) -> str:
    """Run a shell script in a container's file system: an overlay in namespaces that end with the script."""
    snapshot = Snapshots(store, workspace / "containers").prepare("c", image)
    options = f"lowerdir={':'.join(map(str, snapshot.lowers))},upperdir={snapshot.upper},workdir={snapshot.work}"
    setup = (
        f"mount -t overlay overlay -o {options} {snapshot.target} && mount --rbind /dev {snapshot.target}/dev && "
        f'hostname pod-7 && ip link set lo up && exec chroot {snapshot.target} /bin/sh -c "$1"'
    )
    command = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "sh", "-c", setup, "sh", script]
    environment = dict(pair.split("=", 1) for pair in image.config.env)
    environment["PATH"] += ":/usr/sbin:/sbin"
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


def recipe(root: Path, text: str, **files: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "Containerfile").write_text(text)
    for name, content in files.items():
        (root / name).write_text(content)
    return root


def build(store: ImageStore, directory: Path, name: str = "made") -> Image:
    return recipes.build_recipe(store, directory, [str(reference.parse(name))])


def test_busybox_is_built_when_asked_for_and_its_shell_runs(store: ImageStore, tmp_path: Path) -> None:
    image = recipes.ensure(store, "busybox")

    assert image == store.resolve("docker.io/library/busybox:latest") == recipes.ensure(store, image.id)
    assert image.config.cmd == ("sh",)
    output = run_in(store, image, tmp_path, "id -un; echo x | sed s/x/y/; stat -c %a /tmp; busybox --list")
    user, substituted, mode, *applets = output.split()
    assert (user, substituted, mode) == ("root", "y", "1777")
    links = {path.name for path in (store.layers(image)[0] / "bin").iterdir() if path.is_symlink()}
    assert {"sh", "ls", "wget", "httpd", "nslookup", "nc", "sleep"} <= links & set(applets)


def test_httpd_names_the_pod_that_answers(store: ImageStore, tmp_path: Path) -> None:
    image = recipes.ensure(store, "httpd")

    assert image.config.exposed_ports == ("80/tcp",)
    serve = " ".join(image.config.cmd)
    ask = "until wget -qO- http://127.0.0.1/ 2>/dev/null; do :; done"
    assert run_in(store, image, tmp_path, f"cd {image.config.working_dir}; {serve} & {ask}") == "Hello from pod-7\n"


@pytest.mark.skipif(not shutil.which("python3", path="/usr/bin"), reason="needs Debian's python3: the recipe copies it")
def test_python_has_its_standard_library(store: ImageStore, tmp_path: Path) -> None:
    image = recipes.ensure(store, "python")

    program = "import asyncio, bz2, ctypes, curses, http.server, lzma, sqlite3, ssl, zlib; print(ssl.HAS_TLSv1_3)"
    assert run_in(store, image, tmp_path, f"python3 -c '{program}'") == "True\n"


@pytest.mark.parametrize("name", ["busybox:1.36", "quay.io/library/busybox", "group/busybox", "nothing", "x" * 200])
def test_only_the_latest_of_our_own_names_is_built(name: str, store: ImageStore) -> None:
    with pytest.raises(ImageNotFound) as error:
        recipes.ensure(store, name)
    assert error.value.reference == name
    assert error.value.hint


def test_a_name_that_is_none_is_an_invalid_reference(store: ImageStore) -> None:
    with pytest.raises(InvalidReference):
        recipes.ensure(store, "../busybox")


def test_many_processes_asking_at_once_get_one_image(store: ImageStore) -> None:
    program = (
        "import sys; from pathlib import Path; from minikube_raw.oci import recipes; from minikube_raw.oci.images import *\n"
        "print(recipes.ensure(ImageStore(Path(sys.argv[1])), 'httpd').id)"
    )
    command = [sys.executable, "-c", program, str(store.root)]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]

    answers = {process.communicate()[0] for process in asking}

    assert len(answers) == 1
    assert {process.returncode for process in asking} == {0}
    assert len(store.list()) == 2
    assert os.listdir(store.root / "work") == []


def test_the_same_recipe_gives_the_same_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for number in range(2):
        directory = recipe(tmp_path / f"r{number}", "FROM scratch\nCOPY b a /x/\nENV A=1\n", a="a", b="b")
        os.utime(directory / "a", (number, number))
        (directory / "b").chmod(0o600 if number else 0o664)
        digests.append(build(ImageStore(tmp_path / f"s{number}"), directory).digest)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    dated = build(ImageStore(tmp_path / "dated"), tmp_path / "r0")

    assert digests[0] == digests[1] != dated.digest
    assert dated.created == "2023-11-14T22:13:20Z"


def test_instructions_become_files_and_configuration(store: ImageStore, tmp_path: Path) -> None:
    directory = recipe(
        tmp_path / "r",
        "FROM busybox\nWORKDIR /srv/app\nCOPY --chown=7:8 --chmod=640 a .\nCOPY sub /data\nADD spec.mtree /extra\n"
        'ENTRYPOINT ["a"]\nCMD b c\nUSER 7:8\nEXPOSE 80 53/udp\nLABEL k="v w"\nVOLUME /data\nSTOPSIGNAL SIGINT\nENV PATH=/x\n',
        a="a",
        **{"spec.mtree": "./d type=dir mode=0700\n"},
    )
    (directory / "sub/deep").mkdir(parents=True)
    (directory / "sub/deep/f").write_text("f")

    image = build(store, directory)

    top = store.layers(image)[0]
    status = (top / "srv/app/a").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (7, 8, 0o640)
    assert (top / "data/deep/f").read_text() == "f"
    assert (top / "extra/d").stat().st_mode & 0o777 == 0o700
    config = image.config
    assert (config.entrypoint, config.cmd) == (("a",), ("/bin/sh", "-c", "b c"))
    assert (config.working_dir, config.user, config.stop_signal) == ("/srv/app", "7:8", "SIGINT")
    assert (config.exposed_ports, config.volumes, config.labels) == (("53/udp", "80/tcp"), ("/data",), {"k": "v w"})
    assert config.env == ("PATH=/x",)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("FROM scratch\nRUN true", "line 2, column 1: RUN is not supported", ""),
        ("FROM scratch\nCOPY gone /", "line 2, column 1: COPY: gone is not in", ""),
        ("FROM scratch\nCOPY ../other /", "lies outside the recipe", ""),
        ("FROM scratch\nCOPY link /", "lies outside the recipe", ""),
        (
            "FROM scratch\nCOPY --from=apt:no-such-package /a /a",
            "package no-such-package is not installed",
            "apt-get install",
        ),
        ("FROM scratch\nCOPY --from=apt:busybox-static /etc/shadow /", "brought no /etc/shadow", ""),
        ("FROM scratch\nCOPY --from=apt:../../x /a /a", "is not installed", ""),
        ("FROM scratch\nCOPY --from=other /a /a", "only apt:PACKAGE", ""),
        ("FROM scratch\nCOPY --chown=www f /a", "line 2", ""),
        ("FROM scratch\nCOPY --mode=1 f /a", "no flag --mode", ""),
        ("FROM scratch\nCOPY f", "at least one source", ""),
        ("FROM busybox\nCOPY f /bin/sh/x", "not a directory", ""),
        ("FROM Gone\n", "line 1, column 1: FROM: couldn't parse", ""),
        ("FROM gone:v9\n", "line 1, column 1: FROM: image gone:v9 is not in the image store", "image load"),
        ("FROM made\n", "in a circle|not in the image store", ""),
    ],
)
def test_a_recipe_that_cannot_be_built_says_where_and_leaves_no_image(
    text: str, message: str, hint: str, store: ImageStore, tmp_path: Path
) -> None:
    directory = recipe(tmp_path / "r", text, f="f")
    (directory / "link").symlink_to("/etc/passwd")

    with pytest.raises(BuildError, match=message) as error:
        build(store, directory)

    assert hint in error.value.hint
    assert store.resolve("made") is None


def test_recipes_that_need_each_other_are_an_error_not_a_deadlock(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe(tmp_path / "one", "FROM two\nENV A=1")
    recipe(tmp_path / "two", "FROM one\nENV A=1")
    monkeypatch.setattr(recipes, "directory", lambda: tmp_path)

    with pytest.raises(BuildError, match="one → two → one"):
        recipes.ensure(store, "one")


def test_a_packages_dependencies_are_followed_and_can_be_left_out() -> None:
    closure = packages.with_dependencies("coreutils")
    assert {"coreutils", "libc6"} <= set(closure)
    assert "libc6" not in packages.with_dependencies("coreutils", without=["libc6"])
    with pytest.raises(packages.PackageMissing):
        packages.with_dependencies("no-such-package")
