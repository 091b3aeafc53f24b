"""The tar reader agrees with the archives others write, and survives any bytes with TarError at worst."""

from __future__ import annotations

import contextlib
import io
import tarfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minikube_raw.oci.tarstream import Entry, TarError, TarReader

NAMES = ["f", "d/f", "x" * 100, "long/" * 30 + "f", "ünïcode", "y" * 255, "a b\n"]


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(data))
    return [(entry, b"".join(chunk for _, chunk in reader.content())) for entry in reader]


def written(tar_format: int, **fields: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name in NAMES:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(name.encode()), 1234
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(name.encode()))
    return buffer.getvalue()


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_names_sizes_and_large_owners_are_read_as_written(tar_format: int) -> None:
    found = read(written(tar_format, uid=3_000_000, gid=4_000_000))

    assert [(entry.name.decode(), data.decode()) for entry, data in found] == [(name, name) for name in NAMES]
    assert {(entry.uid, entry.gid, entry.mtime) for entry, _ in found} == {(3_000_000, 4_000_000, 1234)}


def test_data_nobody_asked_for_is_skipped() -> None:
    assert [entry.name.decode() for entry in TarReader(io.BytesIO(written(tarfile.PAX_FORMAT)))] == NAMES


@pytest.mark.parametrize("cut", [100, 700, 1100, -10300])
def test_a_cut_archive_is_an_error(cut: int) -> None:
    with pytest.raises(TarError):
        read(written(tarfile.PAX_FORMAT)[:cut])


@given(st.binary(max_size=2048))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(TarError):
        read(data)


@settings(max_examples=300)
@given(st.integers(0, 511), st.binary(min_size=1, max_size=12), st.booleans())
def test_a_header_changed_anywhere_is_read_or_refused(position: int, change: bytes, sparse: bool) -> None:
    header = bytearray(written(tarfile.GNU_FORMAT)[:512])
    if sparse:
        header[156:157] = b"S"
    header[position : position + len(change)] = change
    header = header[:512]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with contextlib.suppress(TarError):
        read(bytes(header) + b"\0" * 2048)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=4).map(b"".join))
def test_any_pax_header_is_read_or_refused(records: bytes) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = b"x", len(records)
    extended = info.tobuf(tarfile.USTAR_FORMAT) + records + b"\0" * (-len(records) % 512)
    with contextlib.suppress(TarError):
        read(extended + tarfile.TarInfo("f").tobuf(tarfile.USTAR_FORMAT) + b"\0" * 1024)
