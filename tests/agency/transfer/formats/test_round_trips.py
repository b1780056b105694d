"""Content goes into each format and comes out of it as it was, held against QEMU's own reading."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from agency.problems import AgencyError
from agency.transfer.ends import UNIT
from agency.transfer.formats.opening import FORMATS, open_sink, open_source
from tests.agency.transfer.formats.copying import copy, needs_qemu, qemu_img, room_taken, sparse_file, units

MIB = 1 << 20
CHECKED = ("qcow2", "vmdk", "vdi", "vhdx")
"""The formats that ``qemu-img check`` knows."""


@needs_qemu
@pytest.mark.parametrize("format_", FORMATS)
def test_content_goes_into_a_format_and_comes_out_of_it(tmp_path: Path, format_: str) -> None:
    """An image that we write is sound, holds what the raw file holds, stays sparse, and is read back byte for byte."""
    original = sparse_file(tmp_path / "original", 40 * MIB + 512 * 7)
    copy(open_source(original, "raw"), open_sink(tmp_path, "image", original.stat().st_size, format_))
    image = tmp_path / "image"
    qemu_img("compare", "-f", "raw", "-F", format_, original, image)
    if format_ in CHECKED:
        qemu_img("check", "-f", format_, image)
    assert room_taken(image) < 20 * MIB, "8 units have data, and some formats have tables"
    copy(open_source(image, format_), open_sink(tmp_path, "back", original.stat().st_size, "raw"))
    assert _hash(tmp_path / "back") == _hash(original)


@needs_qemu
@pytest.mark.parametrize(
    "options",
    [
        ("-c",),
        ("-o", "compat=0.10"),
        ("-o", "cluster_size=512"),
        ("-o", "cluster_size=2M"),
        ("-o", "extended_l2=on"),
        ("-o", "preallocation=metadata"),
        ("-c", "-o", "compression_type=zstd"),
    ],
    ids=lambda options: "_".join(options).replace("-", ""),
)
def test_a_qcow2_of_any_kind_is_read(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Whatever QEMU makes of a file, we read the file from it, and do not read where there is nothing."""
    original = sparse_file(tmp_path / "original", 24 * MIB)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, original, tmp_path / "image")
    source = open_source(tmp_path / "image", "qcow2")
    assert len(units(source)) <= len(units(open_source(original, "raw"))) + 4
    copy(source, open_sink(tmp_path, "back", source.size, "raw"))
    assert _hash(tmp_path / "back") == _hash(original)


@needs_qemu
def test_a_qcow2_with_internal_snapshots_is_read_as_it_is_now(tmp_path: Path) -> None:
    """What a snapshot keeps is not what the image holds."""
    image, original = tmp_path / "image", sparse_file(tmp_path / "original", 8 * MIB)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", sparse_file(tmp_path / "before", 8 * MIB, seed=1), image)
    qemu_img("snapshot", "-c", "before", image)
    copy(open_source(original, "raw"), sink := open_sink(tmp_path, "now", 8 * MIB, "qcow2"))
    assert sink.size == 8 * MIB
    qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", original, image)
    copy(open_source(image, "qcow2"), open_sink(tmp_path, "back", 8 * MIB, "raw"))
    assert _hash(tmp_path / "back") == _hash(original)


@needs_qemu
def test_a_difference_is_read_with_what_it_differs_from(tmp_path: Path) -> None:
    """An image whose backing file lies beside it is read as one content, through as many as there are."""
    base = sparse_file(tmp_path / "base", 8 * MIB)
    qemu_img("create", "-f", "qcow2", "-b", "base", "-F", "raw", tmp_path / "middle")
    qemu_img("create", "-f", "qcow2", "-b", "middle", "-F", "qcow2", tmp_path / "top")
    source = open_source(tmp_path / "top", "qcow2")
    assert source.read(0, UNIT) == base.read_bytes()[:UNIT]
    base.write_bytes(base.read_bytes())
    with pytest.raises(AgencyError) as refused:
        source.check_unchanged()
    assert refused.value.problem.code == "source-changed"
    source.close()


@needs_qemu
@pytest.mark.parametrize("where", ["../secret", "/etc/hostname", "nbd://127.0.0.1:9/x", "link"])
def test_a_difference_to_a_file_elsewhere_is_refused(tmp_path: Path, where: str) -> None:
    """An image cannot have files read that are none of its directory's, whatever name it says."""
    directory = tmp_path / "images"
    directory.mkdir()
    (tmp_path / "secret").write_bytes(bytes(MIB))
    (directory / "link").symlink_to(tmp_path / "secret")
    qemu_img("create", "-f", "qcow2", "-u", "-b", where, "-F", "raw", directory / "image", "1M")
    with pytest.raises(AgencyError) as refused:
        open_source(directory / "image", "qcow2")
    assert refused.value.problem.code in ("image-unsupported", "no-such-file")


@needs_qemu
def test_a_difference_that_came_by_a_transfer_is_refused(tmp_path: Path) -> None:
    """Who sent us a file that is a qcow2 within cannot have another's image read from the directory that it is in."""
    sparse_file(tmp_path / "secret", MIB)
    qemu_img("create", "-f", "qcow2", "-b", "secret", "-F", "raw", tmp_path / "theirs")
    size = (tmp_path / "theirs").stat().st_size
    copy(open_source(tmp_path / "theirs", "raw"), open_sink(tmp_path, "arrived", size, "raw"))
    for format_ in ("qcow2", "auto"):
        with pytest.raises(AgencyError) as refused:
            open_source(tmp_path / "arrived", format_)
        assert refused.value.problem.code == "image-unsupported"


@needs_qemu
@pytest.mark.parametrize("format_", [each for each in FORMATS if each != "raw"])
def test_a_format_is_seen_by_its_content_and_only_if_asked(tmp_path: Path, format_: str) -> None:
    """``auto`` knows an image by its first bytes; said to be raw, it is bytes like any other."""
    image = tmp_path / "disk.img"
    qemu_img("create", "-q", "-f", format_, *(("-o", "force_size=on") if format_ == "vpc" else ()), image, "3M")
    source = open_source(image, "auto")
    assert source.size == 3 * MIB
    source.close()
    plain = open_source(image, "raw")
    assert plain.size == image.stat().st_size
    assert plain.read(0, 512) == image.read_bytes()[:512]
    plain.close()


@needs_qemu
@pytest.mark.parametrize("format_", [each for each in FORMATS if each != "raw"])
def test_what_is_not_of_the_format_is_refused(tmp_path: Path, format_: str) -> None:
    """Zeros are no image in any format."""
    (tmp_path / "zeros").write_bytes(bytes(MIB))
    with pytest.raises(AgencyError) as refused:
        open_source(tmp_path / "zeros", format_)
    assert refused.value.problem.code == "image-format-wrong"


@needs_qemu
def test_a_vmdk_with_its_content_elsewhere_is_refused(tmp_path: Path) -> None:
    """A descriptor could name any file as the place of its content, and a difference needs its parent."""
    qemu_img("create", "-f", "vmdk", "-o", "subformat=monolithicFlat", tmp_path / "flat.vmdk", "1M")
    qemu_img("create", "-f", "vmdk", tmp_path / "base.vmdk", "1M")
    qemu_img("create", "-f", "vmdk", "-b", tmp_path / "base.vmdk", "-F", "vmdk", tmp_path / "top.vmdk")
    for name in ("flat.vmdk", "top.vmdk"):
        with pytest.raises(AgencyError) as refused:
            open_source(tmp_path / name, "vmdk")
        assert refused.value.problem.code == "image-unsupported"


@needs_qemu
@pytest.mark.parametrize(
    ("format_", "place", "value"),
    [
        ("vhdx", (3 << 20) + (64 << 10) + 4, b"\2"),  # HasParent, in the file parameters
        ("vpc", -512 + 63, b"\4"),  # the type, in the footer
    ],
)
def test_a_difference_in_another_format_is_refused(tmp_path: Path, format_: str, place: int, value: bytes) -> None:
    """What QEMU would read as an image with holes, not knowing the parent, is refused."""
    qemu_img("create", "-q", "-f", format_, tmp_path / "image", "8M")
    made = bytearray((tmp_path / "image").read_bytes())
    assert made[place] in (0, 3)
    made[place : place + 1] = value
    (tmp_path / "image").write_bytes(made)
    with pytest.raises(AgencyError) as refused:
        open_source(tmp_path / "image", format_)
    assert refused.value.problem.code == "image-unsupported"


@needs_qemu
@pytest.mark.parametrize("format_", ["vmdk", "vdi", "vhdx"])
def test_a_cut_off_image_is_refused_in_words(tmp_path: Path, format_: str) -> None:
    """What QEMU says about an image that is not whole is passed on, with the image's name."""
    image = tmp_path / "half"
    qemu_img("create", "-q", "-f", format_, image, "3M")
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(AgencyError) as refused:
        open_source(image, format_)
    assert refused.value.problem.code in ("image-unreadable", "image-unsupported")
    assert "/proc/" not in refused.value.problem.message


@needs_qemu
def test_an_image_has_the_size_that_its_format_allows(tmp_path: Path) -> None:
    """Content that is no whole number of sectors goes into a raw file, and into nothing else."""
    for format_ in FORMATS[1:]:
        with pytest.raises(AgencyError) as refused:
            open_sink(tmp_path, "image", 1000, format_)
        assert refused.value.problem.code == "bad-size"
    original = sparse_file(tmp_path / "original", 3 * MIB + 1000)
    copy(open_source(original, "raw"), open_sink(tmp_path, "image", 3 * MIB + 1000, "raw"))
    assert (tmp_path / "image").read_bytes() == original.read_bytes()


@needs_qemu
def test_zeros_are_put_back_in_every_format(tmp_path: Path) -> None:
    """What is zeroed after it was written reads as zeros, and the rest stays; where a hole can be, there is one."""
    for format_ in FORMATS:
        sink = open_sink(tmp_path, format_, 4 * MIB, format_)
        sink.write(0, b"x" * 4 * MIB)
        sink.zero(MIB, 2 * MIB)
        assert sink.read(0, 4 * MIB) == b"x" * MIB + bytes(2 * MIB) + b"x" * MIB
        sink.leave(None)
    assert room_taken(tmp_path / ".raw.part") == 2 * MIB
    assert room_taken(tmp_path / ".qcow2.part") < 3 * MIB


@needs_qemu
def test_a_qcow2_that_we_wrote_grows_with_its_guest(tmp_path: Path) -> None:
    """An image of ours can be snapshotted, resized and written by QEMU, and is sound after that."""
    original = sparse_file(tmp_path / "original", 8 * MIB)
    copy(open_source(original, "raw"), open_sink(tmp_path, "image", 8 * MIB, "qcow2"))
    image = tmp_path / "image"
    qemu_img("snapshot", "-c", "one", image)
    qemu_img("resize", "-f", "qcow2", image, "16M")
    qemu_img("convert", "-n", "-f", "raw", "-O", "qcow2", sparse_file(tmp_path / "more", 16 * MIB, seed=2), image)
    qemu_img("check", image)
    assert json.loads(qemu_img("info", "--output=json", image))["virtual-size"] == 16 * MIB


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
