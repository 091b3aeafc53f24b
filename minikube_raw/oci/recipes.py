"""The images this project brings as recipes, built on first use: `image: busybox` works at once and offline.

`ensure` is what the kubelet and the command line ask: the image from the store, or built now if its reference is one of
ours. Anything else that is missing is ImageNotFound; this module never pulls.
"""

from __future__ import annotations

from pathlib import Path

from . import reference
from .build import NAMES, BuildError, build
from .images import Image, ImageNotFound, ImageStore
from .locks import locked

_PACKAGE = Path(__file__).resolve().parent.parent


def directory() -> Path:
    """Where the recipes lie: inside an installed package, or beside it in a checkout."""
    packaged = _PACKAGE / "_images"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "images"


def names() -> list[str]:
    """All recipes."""
    return sorted(path.name for path in directory().iterdir() if any((path / name).is_file() for name in NAMES))


def recipe_for(text: str) -> Path | None:
    """The recipe that makes the image of a reference: docker.io/library/NAME:latest and nothing else."""
    wanted = reference.parse(text)
    name = wanted.path.removeprefix("library/")
    ours = wanted.domain == reference.DEFAULT_DOMAIN and wanted.tag == reference.DEFAULT_TAG and not wanted.digest
    return directory() / name if ours and "/" not in name and name in names() else None


def ensure(store: ImageStore, text: str) -> Image:
    """The image a reference or id names, built now if it is missing and one of our recipes.

    Raises ImageNotFound, InvalidReference, ImageError (BuildError when a recipe fails).
    """
    return _ensure(store, text, ())


def build_recipe(store: ImageStore, recipe: Path, references: list[str]) -> Image:
    """Build a recipe's directory anew, whatever the store has, under canonical references."""
    return _build(store, recipe, references, ())


def _ensure(store: ImageStore, text: str, building: tuple[str, ...]) -> Image:
    if (image := store.resolve(text)) is not None:
        return image
    recipe = None if reference.is_digest(text) else recipe_for(text)
    if recipe is None:
        raise ImageNotFound(
            text, "load it with `minikube-raw image load FILE`, or build it with `minikube-raw image build DIR`"
        )
    if recipe.name in building:
        raise BuildError(f"recipes need each other in a circle: {' → '.join((*building, recipe.name))}")
    with locked(store.root / "locks" / f"build-{recipe.name}"):
        image = store.resolve(text)  # another process may have built it while we waited
        return image or _build(store, recipe, [str(reference.parse(text))], (*building, recipe.name))


def _build(store: ImageStore, recipe: Path, references: list[str], building: tuple[str, ...]) -> Image:
    return build(recipe, store, references, lambda base: _ensure(store, base, building))
