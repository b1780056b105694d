"""The qcow2 reader against files that somebody made to harm us."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agency.problems import AgencyError
from agency.transfer.ends import UNIT
from agency.transfer.formats.disks import FileDisk
from agency.transfer.formats.opening import open_source
from agency.transfer.formats.qcow2 import Qcow2Layout, read_header

CLUSTER = 1 << 16
FIELDS = {
    "magic": (0, "I"),
    "version": (4, "I"),
    "backing_at": (8, "Q"),
    "backing_length": (16, "I"),
    "cluster_bits": (20, "I"),
    "size": (24, "Q"),
    "crypt": (32, "I"),
    "l1_entries": (36, "I"),
    "l1_offset": (40, "Q"),
    "features": (72, "Q"),
    "header_length": (100, "I"),
}


def image(**fields: int) -> bytearray:
    """A sound image of one MiB whose first cluster is data and whose second is zeros, with some fields changed."""
    sound = {
        "magic": 0x514649FB,
        "version": 3,
        "cluster_bits": 16,
        "size": UNIT,
        "l1_entries": 1,
        "l1_offset": CLUSTER,
        "header_length": 104,
    }
    made = bytearray(4 * CLUSTER)
    for name, value in (sound | fields).items():
        at, kind = FIELDS[name]
        struct.pack_into(f">{kind}", made, at, value)
    struct.pack_into(">Q", made, CLUSTER, 2 * CLUSTER | 1 << 63)
    struct.pack_into(">QQ", made, 2 * CLUSTER, 3 * CLUSTER | 1 << 63, 1)
    made[3 * CLUSTER :] = b"d" * CLUSTER
    return made


def test_a_sound_image_is_read(tmp_path: Path) -> None:
    """The image that the others are made from holds what it should."""
    (tmp_path / "image").write_bytes(image())
    source = open_source(tmp_path / "image", "qcow2")
    assert list(source.extents()) == [(0, CLUSTER)]
    assert source.read(0, UNIT) == b"d" * CLUSTER + bytes(UNIT - CLUSTER)
    source.close()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"magic": 1}, "image-format-wrong"),
        ({"version": 1}, "image-unsupported"),
        ({"version": 4}, "image-unsupported"),
        ({"crypt": 2}, "image-unsupported"),
        ({"features": 1}, "image-damaged"),  # dirty
        ({"features": 2}, "image-damaged"),  # corrupt
        ({"features": 4}, "image-unsupported"),  # an external data file
        ({"features": 1 << 40}, "image-unsupported"),
        ({"cluster_bits": 8}, "image-damaged"),
        ({"cluster_bits": 1 << 31}, "image-damaged"),
        ({"size": 1 << 63}, "image-damaged"),
        ({"size": 1 << 62}, "image-damaged"),
        ({"size": UNIT + 1}, "image-damaged"),
        ({"l1_entries": 0}, "image-damaged"),
        ({"l1_entries": (1 << 32) - 1}, "image-damaged"),
        ({"l1_entries": 1 << 16}, "image-damaged"),  # past the end of the file
        ({"l1_offset": 0}, "image-damaged"),
        ({"l1_offset": 17}, "image-damaged"),
        ({"l1_offset": 1 << 50}, "image-damaged"),
        ({"header_length": 3}, "image-damaged"),
        ({"header_length": 1 << 31}, "image-damaged"),
        ({"backing_at": 1 << 40, "backing_length": 9}, "image-damaged"),
        ({"backing_at": 200, "backing_length": 1 << 30}, "image-damaged"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, fields: dict[str, int], code: str) -> None:
    """Each thing that a header may not say is refused when the image is opened, and said."""
    (tmp_path / "image").write_bytes(image(**fields))
    with pytest.raises(AgencyError) as refused:
        open_source(tmp_path / "image", "qcow2")
    assert refused.value.problem.code == code


@pytest.mark.parametrize(
    ("place", "entry"),
    [
        (CLUSTER, 1 << 40),  # a second table past the end
        (CLUSTER, 2 * CLUSTER + 512),
        (CLUSTER, 2 * CLUSTER | 1),
        (2 * CLUSTER, 1 << 40),
        (2 * CLUSTER, 3 * CLUSTER + 512),
        (2 * CLUSTER, 3 * CLUSTER | 2),
    ],
)
def test_a_table_that_cannot_be_is_refused(tmp_path: Path, place: int, entry: int) -> None:
    """Entries that lead out of the file, or that are none, are refused before anything is read there."""
    made = image()
    struct.pack_into(">Q", made, place, entry)
    (tmp_path / "image").write_bytes(made)
    with pytest.raises(AgencyError) as refused:
        open_source(tmp_path / "image", "qcow2").read(0, UNIT)
    assert refused.value.problem.code == "image-damaged"


def test_tables_that_are_one_another_are_refused(tmp_path: Path) -> None:
    """A small file whose first table says the same second one 8192 times is no image of 4 TiB."""
    made = image(l1_entries=8192, size=8192 << 29)
    struct.pack_into(">8192Q", made, CLUSTER, *[2 * CLUSTER] * 8192)
    struct.pack_into(">Q", made, 2 * CLUSTER, 2 * CLUSTER)
    (tmp_path / "image").write_bytes(made)
    with pytest.raises(AgencyError) as refused:
        open_source(tmp_path / "image", "qcow2")
    assert refused.value.problem.code == "image-damaged"


VALUES = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.builds(lambda bit, off: ((1 << bit) + off) % (1 << 64), st.integers(0, 63), st.integers(-2, 2)),
    st.integers(0, 5).map(lambda cluster: cluster * CLUSTER),
)
CHANGES = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([at for at, _ in FIELDS.values()]),
            st.integers(0, 13).map(lambda at: at * 8),
            st.sampled_from([CLUSTER, CLUSTER + 8, 2 * CLUSTER, 2 * CLUSTER + 8, 2 * CLUSTER + 120]),
        ),
        VALUES,
    ),
    max_size=4,
)


@given(changes=CHANGES, cut=st.one_of(st.none(), st.integers(0, 4 * CLUSTER)))
def test_whatever_a_file_says_is_bounded_or_refused(changes: list[tuple[int, int]], cut: int | None) -> None:
    """Any image either gives what was asked for, in little memory, or is refused as damaged or not supported."""
    made = image()
    for at, value in changes:
        struct.pack_into(">Q", made, at, value)
    file = os.memfd_create("image")
    os.write(file, made[:cut])
    with _little_memory():
        try:
            disk = FileDisk(file, layout := Qcow2Layout(file, read_header(file)))
            if layout.is_plain():
                assert len(disk.read(0, min(UNIT, disk.size))) == min(UNIT, disk.size)
                for _, (offset, length) in zip(range(1000), disk.extents(), strict=False):
                    assert 0 <= offset < offset + length <= disk.size
        except AgencyError as error:
            assert error.problem.code in ("image-damaged", "image-unsupported", "image-format-wrong")  # noqa: PT017
        finally:
            os.close(file)


@contextmanager
def _little_memory() -> Iterator[None]:
    """A MemoryError for whoever takes more than 64 MiB."""
    with open("/proc/self/statm") as now:  # noqa: PTH123
        used = int(now.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
