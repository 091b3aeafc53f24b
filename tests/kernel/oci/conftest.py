"""A fresh image store and an empty image layout; tests that need root are skipped without it, with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from image_archives import Layout

from minikube_raw.oci.images import ImageStore


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root: unpacking keeps owners and makes whiteouts"))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")
