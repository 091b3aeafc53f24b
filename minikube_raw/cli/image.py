"""`minikube-raw image`: what is in this host's image store, and how it gets in and out without a registry."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from minikube_raw.api.plain_text import one_line
from minikube_raw.cli.errors import Failure, need_root
from minikube_raw.cli.output import Table, print_as, size
from minikube_raw.oci import checkpoints, exports, recipes, reference
from minikube_raw.oci.content import ContentError
from minikube_raw.oci.images import Image, ImageError, ImageNotFound, ImageStore
from minikube_raw.oci.reference import InvalidReference


@click.group()
def image() -> None:
    """Images in this host's store, shared by all its nodes."""


@image.command("load")
@click.argument("archive", type=click.Path(path_type=Path, exists=True))
@click.pass_context
def load(ctx: click.Context, archive: Path) -> None:
    """Load the images of ARCHIVE: an OCI layout (directory or tar) or a docker-save tar."""
    with _store(ctx) as store:
        for name in store.load(archive):
            click.echo(f"loaded {one_line(name)}")


@image.command("list")
@click.option("-o", "output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
@click.pass_context
def list_images(ctx: click.Context, output: str) -> None:
    """List images."""
    with _store(ctx) as store:
        print_as(output, {"images": [_described(item) for item in store.list()]}, _tables)


@image.command("build")
@click.argument("recipe")
@click.option("-t", "--tag", "tags", multiple=True, help="Reference of the new image, instead of the directory's name.")
@click.pass_context
def build(ctx: click.Context, recipe: str, tags: tuple[str, ...]) -> None:
    """Build the image of a directory with a Containerfile, or of a recipe that came along (busybox, httpd, python)."""
    directory = Path(recipe)
    if not directory.is_dir():
        directory = recipes.directory() / recipe
    if recipe not in recipes.names() and not directory.is_dir():
        raise Failure(f"build: {recipe} is neither a directory nor a recipe", f"recipes: {', '.join(recipes.names())}")
    with _store(ctx) as store:
        names = [str(reference.parse(tag)) for tag in tags or (directory.resolve().name.lower(),)]
        built = recipes.build_recipe(store, directory, names)
        for name in names:
            click.echo(f"built {name} {built.id}")


@image.command("from-checkpoint")
@click.argument("archive", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-t", "--tag", "tags", multiple=True, required=True, help="Reference of the new image.")
@click.pass_context
def from_checkpoint(ctx: click.Context, archive: Path, tags: tuple[str, ...]) -> None:
    """Make an image of ARCHIVE, a checkpoint that a kubelet has made. A pod that names it goes on where the container was."""
    with _store(ctx) as store:
        names = [str(reference.parse(tag)) for tag in tags]
        made = checkpoints.take_in(store, archive, names)
        for name in names:
            click.echo(f"made {name} {made.id}")


@image.command("save")
@click.argument("references", nargs=-1, required=True)
@click.option(
    "-o", "output", type=click.Path(path_type=Path), required=True, help="File to write; - is standard output."
)
@click.option(
    "--format", "archive_format", type=click.Choice(exports.FORMATS), default=exports.FORMATS[0], show_default=True
)
@click.pass_context
def save(ctx: click.Context, references: tuple[str, ...], output: Path, archive_format: str) -> None:
    """Write images to a tar that docker, podman, skopeo and `image load` read."""
    with _store(ctx) as store:
        images = [_existing(store, text) for text in references]
        if str(output) == "-":
            exports.save(images, store.content, sys.stdout.buffer, archive_format=archive_format)
            return
        partial = output.with_name(f".{output.name}.{os.getpid()}")
        try:
            with partial.open("wb") as file:
                exports.save(images, store.content, file, archive_format=archive_format)
            partial.rename(output)
        finally:
            partial.unlink(missing_ok=True)


@image.command("tag")
@click.argument("existing")
@click.argument("new")
@click.pass_context
def tag(ctx: click.Context, existing: str, new: str) -> None:
    """Give the image EXISTING the further reference NEW."""
    with _store(ctx) as store:
        store.tag(existing, new)


@image.command("rm")
@click.argument("references", nargs=-1, required=True)
@click.pass_context
def remove(ctx: click.Context, references: tuple[str, ...]) -> None:
    """Remove references, and images that no reference names any more. An id removes all of an image's references."""
    with _store(ctx) as store:
        for text in references:
            store.remove(text)
            click.echo(f"removed {text}")


@image.command("inspect")
@click.argument("name")
@click.option("-o", "output", type=click.Choice(["json", "yaml"]), default="json", show_default=True)
@click.pass_context
def inspect(ctx: click.Context, name: str, output: str) -> None:
    """Show everything known about one image: its config as its author wrote it, its layers and where they lie."""
    with _store(ctx) as store:
        found = _existing(store, name)
        detail = {
            **_described(found),
            "config": json.loads(store.content.read(found.id)),
            "layers": [msgspec.to_builtins(layer) for layer in found.layers],
            "directories": [str(path) for path in store.layers(found)],
        }
        print_as(output, detail, lambda _: ())


@contextmanager
def _store(ctx: click.Context) -> Iterator[ImageStore]:
    """The host's store; what goes wrong with it becomes the command line's two lines."""
    need_root("the image store")
    try:
        yield ImageStore(ctx.obj.state_dir / "images")
    except InvalidReference as error:
        raise Failure(str(error), "a reference looks like busybox, busybox:1.36 or quay.io/group/name:tag") from error
    except ImageError as error:
        raise Failure(str(error), error.hint) from error
    except ContentError as error:
        raise Failure(f"image store: {error}", "load the image again") from error


def _existing(store: ImageStore, text: str) -> Image:
    found = store.resolve(text)
    if found is None:
        raise ImageNotFound(text)
    return found


def _described(item: Image) -> dict[str, Any]:
    return {
        "id": item.id,
        "digest": item.digest,
        "references": list(item.references),
        "created": item.created,
        "architecture": item.architecture,
        "size_bytes": item.size,
    }


def _tables(data: dict[str, Any]) -> list[Table]:
    rows = [
        (name, item["id"].removeprefix("sha256:")[:12], size(item["size_bytes"]), item["created"] or "-")
        for item in data["images"]
        for name in item["references"] or ["<none>"]
    ]
    return [Table(("IMAGE", "ID", "SIZE", "CREATED"), rows)]
