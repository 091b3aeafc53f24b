"""Printing one description as a table for people or as JSON or YAML for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click
import yaml

from minikube_raw.api.plain_text import one_line


class Table(NamedTuple):
    """Rows under upper-case headings, as kubectl prints them."""

    headings: Sequence[str]
    rows: Sequence[Sequence[object]]


def print_as(output: str, data: Any, tables: Callable[[Any], Sequence[Table]]) -> None:
    """Print `data` as json or yaml, or the tables made of it. Columns are as wide as their widest cell, three blanks apart."""
    if output == "json":
        click.echo(json.dumps(data, indent=2))
    elif output == "yaml":
        click.echo(yaml.dump(data, Dumper=yaml.CSafeDumper, sort_keys=False), nl=False)
    else:
        click.echo("\n\n".join(render(table) for table in tables(data)))


def render(table: Table) -> str:
    """One table as text, without blanks at the ends of lines; no cell can write anywhere else."""
    lines = [list(table.headings), *[[one_line(str(cell)) for cell in row] for row in table.rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.headings))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def size(count: int) -> str:
    """Bytes for people, in binary units as kubectl uses them."""
    for unit in ("", "Ki", "Mi"):
        if count < 1024:
            return f"{count:.0f}{unit}"
        count //= 1024
    return f"{count}Gi"
