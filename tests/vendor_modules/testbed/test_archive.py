"""Bundles are unpacked whatever they hold, or refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descriptors.machine import BUNDLE_MANIFEST, MachineManifest
from vendor_modules.testbed.runtimes.archive import BadBundle, pack, parent_of, unpack

BIG = 10**9


def tar(path: Path, *members: tuple[str, dict[str, object], bytes]) -> Path:
    """A tar archive with these members: name, fields of the header, content."""
    with tarfile.open(path, "w") as archive:
        for name, fields, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return path


SYMLINK, HARDLINK = tarfile.SYMTYPE, tarfile.LNKTYPE
ATTACKS = {
    "absolute path": [("/tmp/evil", {}, b"x")],
    "path that climbs": [("a/../../evil", {}, b"x")],
    "absolute link": [("a", {"type": SYMLINK, "linkname": "/etc/passwd"}, b"")],
    "link that climbs": [("a", {"type": SYMLINK, "linkname": "../../evil"}, b"")],
    "hard link that climbs": [("a", {"type": HARDLINK, "linkname": "../evil"}, b"")],
    "hard link to the absolute": [("a", {"type": HARDLINK, "linkname": "/etc/passwd"}, b"")],
    "device": [("a", {"type": tarfile.CHRTYPE}, b"")],
    "pipe": [("a", {"type": tarfile.FIFOTYPE}, b"")],
    "file as folder": [("a", {}, b"x"), ("a/b", {}, b"x")],
    "manifest that is a link": [(BUNDLE_MANIFEST, {"type": SYMLINK, "linkname": "x"}, b"")],
    "manifest that is none": [(BUNDLE_MANIFEST, {}, b"[]")],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused(tmp_path: Path, attack: str) -> None:
    """No bundle writes outside its directory, makes devices, or has what no machine needs."""
    root = tmp_path / "inner" / "root"
    root.mkdir(parents=True)
    with pytest.raises(BadBundle):
        unpack(tar(tmp_path / "t.tar", *ATTACKS[attack]), root, BIG)
    assert {path.name for path in tmp_path.rglob("*")} <= {"inner", "root", "t.tar", "a"}


def test_nothing_is_unpacked_through_a_link(tmp_path: Path) -> None:
    """A bundle with a member below the name of one of its links is refused, and the link leads nothing anywhere."""
    root = tmp_path / "root"
    root.mkdir()
    link = ("a", {"type": SYMLINK, "linkname": "b"}, b"")
    with pytest.raises(BadBundle):
        unpack(tar(tmp_path / "t.tar", ("b/keep", {}, b""), link, ("a/x", {}, b"x")), root, BIG)
    assert not (root / "b" / "x").exists()


def test_a_path_through_a_link_of_the_machine_is_not_followed(tmp_path: Path) -> None:
    """What a machine links to elsewhere does not lead the cloud there."""
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "dev").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="dev"), parent_of(tmp_path / "root", "dev/vdb"):
        pass


def test_size_is_limited(tmp_path: Path) -> None:
    """A bundle that holds more than the machine's disk is refused before it is unpacked."""
    (tmp_path / "root").mkdir()
    with pytest.raises(BadBundle, match="more than"):
        unpack(tar(tmp_path / "t.tar", ("a", {}, b"12345")), tmp_path / "root", 4)


def test_not_an_archive(tmp_path: Path) -> None:
    """Bytes that are no tar archive are refused in words."""
    (tmp_path / "root").mkdir()
    (tmp_path / "t.tar").write_bytes(b"no archive at all" * 100)
    with pytest.raises(BadBundle, match="cannot be unpacked"):
        unpack(tmp_path / "t.tar", tmp_path / "root", BIG)


def test_members_named_with_a_dot_are_fine(tmp_path: Path) -> None:
    """What ``tar -C folder -c .`` writes is understood."""
    root = tmp_path / "root"
    root.mkdir()
    manifest = MachineManifest(start="x").model_dump_json().encode()
    members = [("./", {"type": tarfile.DIRTYPE}, b""), ("./a/f", {}, b"1"), (f"./{BUNDLE_MANIFEST}", {}, manifest)]
    assert unpack(tar(tmp_path / "t.tar", *members), root, BIG) == MachineManifest(start="x")
    assert [path.name for path in root.rglob("*")] == ["a", "f"]


def test_pack_leaves_out_what_leads_outside(tmp_path: Path) -> None:
    """Device links, links to elsewhere and what is named are not packed; links inside, modes and times are."""
    root, again = tmp_path / "root", tmp_path / "again"
    for folder in root / "dev", root / "tmp", again:
        folder.mkdir(parents=True)
    (root / "tmp" / "scratch").write_text("x")
    (root / "dev" / "vdb").symlink_to("/somewhere/volume")
    (root / "run.sh").write_text("x")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("run.sh")
    (root / "out").symlink_to("../../etc")
    pack(root, tmp_path / "b.tar", MachineManifest(start="./run.sh"), frozenset({"tmp"}))
    assert unpack(tmp_path / "b.tar", again, BIG) == MachineManifest(start="./run.sh")
    assert sorted(path.name for path in again.rglob("*")) == ["dev", "link", "run.sh"]
    assert (again / "run.sh").stat().st_mode & 0o777 == 0o755
    assert int((again / "run.sh").stat().st_mtime) == int((root / "run.sh").stat().st_mtime)


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(files=st.dictionaries(names.filter(lambda name: name not in (".", "..")), st.binary(max_size=5000)))
def test_bundles_are_deterministic(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    """Packed, unpacked and packed again, a machine gives the same bytes."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    for name, content in files.items():
        if len(name.encode()) < 250 and name != BUNDLE_MANIFEST:
            (folder / "one" / name).write_bytes(content)
    pack(folder / "one", folder / "1.tar", MachineManifest(), frozenset())
    unpack(folder / "1.tar", folder / "two", BIG)
    pack(folder / "two", folder / "2.tar", MachineManifest(), frozenset())
    assert (folder / "1.tar").read_bytes() == (folder / "2.tar").read_bytes()
