"""Files of this host's installed Debian packages, as a source to build images from without any download.

`COPY --from=apt:busybox-static` takes only what dpkg says that package brought, so a recipe cannot pick up a stray file
of the host, and an error can name the package to install. Reads dpkg's database directly: no process is started.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

DPKG = Path("/var/lib/dpkg")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


class PackageMissing(ValueError):
    """The package is not installed on this host."""

    def __init__(self, package: str) -> None:
        super().__init__(f"package {package} is not installed on this host")
        self.hint = f"apt-get install {package}"


def files(package: str) -> list[str]:
    """Absolute paths a package brought, directories included, as dpkg lists them. Raises PackageMissing."""
    info = DPKG / "info"
    candidates = [info / f"{package}.list", *sorted(info.glob(f"{package}:*.list"))] if _NAME.fullmatch(package) else []
    for candidate in candidates:
        if candidate.exists():
            return [line for line in candidate.read_text().splitlines() if line not in ("/.", "")]
    raise PackageMissing(package)


def with_dependencies(package: str, *, without: Iterable[str] = ()) -> list[str]:
    """The package and all it depends on (Depends, Pre-Depends) among what is installed, sorted, except `without`.

    Raises PackageMissing for the package itself.
    """
    depends, provides = _database()
    if package not in depends:
        raise PackageMissing(package)
    found, todo, left_out = set[str](), [package], set(without)
    while todo:
        name = todo.pop()
        name = name if name in depends else provides.get(name, "")
        if name and name not in found and name not in left_out:
            found.add(name)
            todo += depends[name]
    return sorted(found)


def canonical(path: str) -> str:
    """A host path with the links of its parents followed: /bin/x and /usr/bin/x are one file on a merged-usr host."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


@cache
def _database() -> tuple[dict[str, list[str]], dict[str, str]]:
    """({installed package: names it depends on}, {virtual package: an installed provider})."""
    depends: dict[str, list[str]] = {}
    provides: dict[str, str] = {}
    for stanza in (DPKG / "status").read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name = fields["Package"]
        depends[name] = list(_names(f"{fields.get('Depends', '')},{fields.get('Pre-Depends', '')}"))
        provides.update(dict.fromkeys(_names(fields.get("Provides", "")), name))
    return depends, provides


def _names(relations: str) -> Iterator[str]:
    """Package names of a dependency field; of alternatives all, since only installed ones count."""
    for relation in re.split(r"[,|]", relations):
        if match := _NAME.match(relation.strip()):
            yield match[0]
