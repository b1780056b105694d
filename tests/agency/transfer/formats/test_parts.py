"""What leads to a delivered file: what is known of it, when it is believed, and that nothing is lost or done twice."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agency.problems import AgencyError
from agency.transfer.ends import BLOCK, UNIT, Sink
from agency.transfer.formats.opening import FORMATS, open_sink, open_source
from agency.transfer.manifest import UNKNOWN, Manifest
from tests.agency.transfer.formats.copying import copy, manifest_of, needs_qemu, qemu_img, sparse_file

MIB = 1 << 20
SIZE = 8 * MIB
KEPT = pytest.mark.parametrize("format_", ["raw", pytest.param("qcow2", marks=needs_qemu)])


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Content, outside of the directory that it is put into."""
    (tmp_path / "into").mkdir()
    return sparse_file(tmp_path / "original", SIZE)


@pytest.fixture
def into(original: Path) -> Path:
    """The directory that it is put into."""
    return original.parent / "into"


@KEPT
def test_what_was_delivered_is_known_without_reading_it(original: Path, into: Path, format_: str) -> None:
    """A second transfer is told by the manifest what is there, and hashes nothing."""
    copy(open_source(original, "raw"), open_sink(into, "image", SIZE, format_))
    sink = open_sink(into, "image", SIZE, format_, hashing=lambda *_: pytest.fail("it was read"))
    assert not sink.blank
    _knows_all(sink, original)
    sink.zero(0, UNIT)
    assert [file.name for file in into.iterdir()] == [".image.part"], "it has neither its name nor a manifest"
    sink.leave(None)


@KEPT
def test_a_transfer_that_writes_nothing_changes_nothing(original: Path, into: Path, format_: str) -> None:
    """What was delivered keeps its name and its manifest until it is written to."""
    copy(open_source(original, "raw"), open_sink(into, "image", SIZE, format_))
    open_sink(into, "image", SIZE, format_).leave(None)
    open_sink(into, "image", 2 * SIZE, format_).leave(None)
    sink = open_sink(into, "image", SIZE, format_, hashing=lambda *_: pytest.fail("it was read"))
    _knows_all(sink, original)
    sink.leave(None)
    open_sink(into, "other", SIZE, format_).leave(None)
    assert sorted(file.name for file in into.iterdir()) == [".image.manifest", "image"]


@KEPT
def test_what_was_changed_since_is_not_believed(original: Path, into: Path, format_: str) -> None:
    """A byte that somebody changed makes the manifest worthless, however the file's times were set back."""
    copy(open_source(original, "raw"), open_sink(into, "image", SIZE, format_))
    before = (into / "image").stat()
    with (into / "image").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"x")
    os.utime(into / "image", ns=(before.st_atime_ns, before.st_mtime_ns))
    sink = open_sink(into, "image", SIZE, format_)
    known = sink.known()
    assert known is None or known.get(known.blocks - 1) not in (UNKNOWN, _last_digest(original))
    sink.leave(None)


def test_what_is_not_ours_stays_until_it_is_replaced(original: Path, into: Path) -> None:
    """A file that was not delivered by a transfer is whole until the new one is, and nothing of it is believed."""
    (into / "image").write_bytes(b"precious")
    sink = open_sink(into, "image", SIZE, "raw")
    assert sink.known() is None
    assert sink.blank
    sink.write(0, b"x" * UNIT)
    sink.leave(None)
    assert (into / "image").read_bytes() == b"precious"
    copy(open_source(original, "raw"), _hashed_first(open_sink(into, "image", SIZE, "raw")))
    assert (into / "image").read_bytes() == original.read_bytes()


@pytest.mark.parametrize("format_", ["raw", *(pytest.param(each, marks=needs_qemu) for each in FORMATS[1:])])
def test_what_a_killed_transfer_wrote_is_hashed(original: Path, into: Path, format_: str) -> None:
    """After kill -9, what had been written is known again from its bytes, in every format; it can be completed."""
    if (killed := os.fork()) == 0:
        content = original.read_bytes()
        sink = open_sink(into, "image", SIZE, format_)
        sink.write(0, content[: 2 * UNIT])
        sink.write(5 * UNIT, content[5 * UNIT : 6 * UNIT])
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(killed, 0)[1]) == signal.SIGKILL
    progress: list[tuple[int, int]] = []
    sink = _patiently(into, format_, progress)
    known = sink.known()
    assert known is not None
    source = open_source(original, "raw")
    with manifest_of(source) as all_of_it:
        for unit in (0, 1, 5):
            assert known.unit(unit) == all_of_it.unit(unit)
        assert known.unit(2) != all_of_it.unit(2) or not any(source.read(2 * UNIT, UNIT))
    known.close()
    assert {size for _, size in progress} == {SIZE}
    copy(source, sink)
    if format_ != "raw":
        qemu_img("compare", "-f", "raw", "-F", format_, original, into / "image")
    else:
        assert (into / "image").read_bytes() == original.read_bytes()


@KEPT
def test_a_transfer_that_ended_in_order_is_gone_on_with_unread(original: Path, into: Path, format_: str) -> None:
    """The manifest that a sink is left with is what it knows the next time."""
    sink = open_sink(into, "image", SIZE, format_)
    source = open_source(original, "raw")
    sink.write(0, first := source.read(0, UNIT))
    with Manifest(SIZE) as manifest, manifest_of(source) as whole:
        manifest.set_unit(0, whole.unit(0))
        sink.leave(manifest)
    source.close()
    sink = open_sink(into, "image", SIZE, format_, hashing=lambda *_: pytest.fail("it was read"))
    known = sink.known()
    assert known is not None
    assert known.get(0) != UNKNOWN
    assert known.unit(1) == [UNKNOWN] * 16
    assert sink.read(0, UNIT) == first
    known.close()
    sink.leave(None)


def test_one_that_died_before_its_manifest_was_proof_is_taken_back(
    original: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that got its name, and then its transfer was killed, is ours still: it is hashed, not sent again."""
    save, saved = Manifest.save, []

    def save_once(manifest: Manifest, path: Path, identity: bytes) -> None:
        if saved:
            os.kill(os.getpid(), signal.SIGKILL)
        saved.append(path)
        save(manifest, path, identity)

    if (killed := os.fork()) == 0:
        monkeypatch.setattr(Manifest, "save", save_once)
        copy(open_source(original, "raw"), open_sink(into, "image", SIZE, "raw"))
    assert os.WTERMSIG(os.waitpid(killed, 0)[1]) == signal.SIGKILL
    assert (into / "image").exists()
    hashed: list[int] = []
    sink = open_sink(into, "image", SIZE, "raw", hashing=lambda done, _: hashed.append(done))
    _knows_all(sink, original)
    assert hashed
    sink.leave(None)


def test_hashing_can_be_given_up(original: Path, into: Path) -> None:
    """What the one who is told of the progress raises ends the hashing, and the part stays."""
    (into / ".image.part").write_bytes(original.read_bytes())

    def give_up(_done: int, _all: int) -> None:
        raise KeyboardInterrupt

    sink = open_sink(into, "image", SIZE, "raw", hashing=give_up)
    with pytest.raises(KeyboardInterrupt):
        sink.known()
    sink.leave(None)
    assert (into / ".image.part").read_bytes() == original.read_bytes()


def test_what_was_hashed_need_not_be_hashed_again(original: Path, into: Path) -> None:
    """A transfer that came no further than to hash what is there leaves what it learned."""
    (into / ".image.part").write_bytes(original.read_bytes())
    sink = open_sink(into, "image", SIZE, "raw")
    sink.leave(known := sink.known())
    assert known is not None
    known.close()
    sink = open_sink(into, "image", SIZE, "raw", hashing=lambda *_: pytest.fail("it was read"))
    _knows_all(sink, original)
    sink.leave(None)


@pytest.mark.parametrize("format_", ["raw", pytest.param("vdi", marks=needs_qemu)])
def test_what_cannot_be_delivered_is_left(
    original: Path, into: Path, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the manifest finds no room, the part stays, with all that is in it, and the next attempt has it."""
    source, sink = open_source(original, "raw"), open_sink(into, "image", SIZE, format_)
    with manifest_of(source, sink) as manifest:
        with monkeypatch.context() as patched:
            patched.setattr(Manifest, "save", _no_room)
            with pytest.raises(OSError, match="No space"):
                sink.finish(manifest)
        sink.leave(None)
    source.close()
    sink = open_sink(into, "image", SIZE, format_)
    _knows_all(sink, original)
    sink.leave(None)


def _no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@KEPT
def test_two_at_a_time_are_refused(into: Path, format_: str) -> None:
    """A name is for one transfer; once that has ended it can be had again."""
    sink = open_sink(into, "image", SIZE, format_)
    (unfinished := into / ".image.manifestabcdefgh").touch()
    with pytest.raises(AgencyError) as refused:
        open_sink(into, "image", SIZE, format_)
    assert refused.value.problem.code == "transfer-running"
    assert unfinished.exists(), "the first may be writing it"
    sink.leave(None)
    open_sink(into, "image", SIZE, format_).leave(None)
    assert not unfinished.exists()


@needs_qemu
def test_a_machines_disk_is_not_written_under_it(original: Path, into: Path) -> None:
    """What was delivered and has a machine running on it, as QEMU's locks tell, is refused and stays."""
    copy(open_source(original, "raw"), open_sink(into, "image", SIZE, "qcow2"))
    machine = subprocess.Popen(["qemu-nbd", "--format=qcow2", f"--socket={into}/socket", into / "image"])
    try:
        with socket.socket(socket.AF_UNIX) as nobody:
            _until(lambda: nobody.connect_ex(f"{into}/socket") == 0)
            assert nobody.recv(8) == b"NBDMAGIC"  # so it has opened the image
            with pytest.raises(AgencyError) as refused:
                open_sink(into, "image", SIZE, "qcow2")
            assert refused.value.problem.code == "transfer-running"
    finally:
        machine.kill()
        machine.wait(20)
    assert (into / "image").exists()


def test_content_of_another_size_is_known_as_far_as_it_goes(original: Path, into: Path) -> None:
    """A raw file that grew or shrank is updated in place; what is past its new end is gone, what is new is zeros."""
    copy(open_source(original, "raw"), open_sink(into, "image", SIZE, "raw"))
    shorter, longer = SIZE - BLOCK - 7, SIZE + 3 * UNIT
    for size in (shorter, longer):
        part = original.parent / f"part-{size}"
        part.write_bytes(original.read_bytes()[:shorter].ljust(longer, b"\0")[:size])
        sink = open_sink(into, "image", size, "raw")
        known = sink.known()
        source = open_source(part, "raw")
        with manifest_of(source) as expected:
            assert known is not None
            assert known.blocks == expected.blocks
            assert all(known.get(at) in (UNKNOWN, expected.get(at)) for at in range(known.blocks))
            assert known.unit(0) == expected.unit(0)
            assert known.get(known.blocks - 1) == (UNKNOWN if size == shorter else expected.get(expected.blocks - 1))
        known.close()
        copy(source, sink)
        assert (into / "image").read_bytes() == part.read_bytes()


@needs_qemu
def test_a_manifest_is_for_the_format_that_it_was_made_of(original: Path, into: Path) -> None:
    """What is known of a qcow2's content says nothing about the same file taken as raw."""
    copy(open_source(original, "raw"), open_sink(into, "image", SIZE, "qcow2"))
    sink = open_sink(into, "image", SIZE, "raw")
    assert sink.known() is None
    sink.leave(None)


@needs_qemu
def test_an_unfinished_image_of_no_use_is_begun_anew(original: Path, into: Path) -> None:
    """A part of another size or format, or one that is damaged, does not stand in the way."""
    open_sink(into, "image", SIZE, "qcow2").leave(None)
    open_sink(into, "image", 2 * SIZE, "qcow2").leave(None)
    open_sink(into, "image", 2 * SIZE, "vmdk").leave(None)
    (into / ".image.part").write_bytes(b"KDMV and nothing else")
    copy(open_source(original, "raw"), open_sink(into, "image", SIZE, "vmdk"))
    qemu_img("compare", "-f", "raw", "-F", "vmdk", original, into / "image")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "/etc/passwd", "a\0b", "a\nb", "x" * 201])
def test_a_name_is_one_in_the_directory(into: Path, name: str) -> None:
    """No name leads out of the directory, to what is ours in it, or to what cannot be shown."""
    with pytest.raises(AgencyError) as refused:
        open_sink(into, name, SIZE, "raw")
    assert refused.value.problem.code == "bad-name"
    assert not list(into.iterdir())


@pytest.mark.parametrize("name", ["image", ".image.part"])
def test_links_and_other_things_are_refused(into: Path, tmp_path: Path, name: str) -> None:
    """A link in the place of what is written is not followed; nor is a directory or a FIFO taken for a file."""
    (tmp_path / "outside").write_bytes(b"precious")
    makers = [
        lambda path: path.symlink_to(tmp_path / "outside"),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
    ]
    for make in makers:
        make(into / name)
        with pytest.raises(AgencyError) as refused:
            open_sink(into, "image", SIZE, "raw")
        assert refused.value.problem.code == "not-a-file"
        (into / name).rmdir() if (into / name).is_dir() else (into / name).unlink()
    assert (tmp_path / "outside").read_bytes() == b"precious"


def test_what_is_no_content_is_refused(tmp_path: Path) -> None:
    """A directory, a FIFO, a socket, what is not there, and a format that nobody knows: refused in words, at once."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, code in [
            ("", "not-a-file"),
            ("fifo", "not-a-file"),
            ("socket", "not-a-file"),
            ("no", "no-such-file"),
        ]:
            with pytest.raises(AgencyError) as refused:
                open_source(tmp_path / name, "raw")
            assert refused.value.problem.code == code
    for call in (lambda: open_source(tmp_path, "iso"), lambda: open_sink(tmp_path, "image", SIZE, "auto")):
        with pytest.raises(AgencyError) as refused:
            call()
        assert refused.value.problem.code == "unknown-format"
    with pytest.raises(AgencyError) as refused:
        open_sink(tmp_path / "nowhere", "image", SIZE, "raw")
    assert refused.value.problem.code == "no-such-directory"


def test_without_the_tools_their_formats_are_refused(
    original: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without qemu-utils, it is said what is missing; raw content needs nothing."""
    (into / "image.vdi").write_bytes(bytes(0x40) + 0xBEDA107F.to_bytes(4, "little") + bytes(1024))
    monkeypatch.setenv("PATH", "")
    for call in (
        lambda: open_source(into / "image.vdi", "vdi"),
        lambda: open_sink(into, "image", SIZE, "qcow2"),
        lambda: open_sink(into, "image", SIZE, "vmdk"),
    ):
        with pytest.raises(AgencyError) as refused:
            call()
        assert refused.value.problem.code == "tool-missing"
    assert [file.name for file in into.iterdir()] == ["image.vdi"]
    copy(open_source(original, "raw"), _hashed_first(open_sink(into, "image", SIZE, "raw")))
    assert (into / "image").read_bytes() == original.read_bytes()


@pytest.mark.parametrize("change", ["write", "grow", "replace-times"])
def test_a_source_that_was_changed_is_refused(original: Path, change: str) -> None:
    """A byte, the size, or times that were set back: whoever read the file meanwhile hears of it."""
    source = open_source(original, "raw")
    source.check_unchanged()
    before = original.stat()
    with original.open("r+b") as file:
        if change == "grow":
            file.truncate(SIZE + 1)
        else:
            file.write(b"another")
    if change == "replace-times":
        os.utime(original, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(AgencyError) as refused:
        source.check_unchanged()
    assert refused.value.problem.code == "source-changed"
    source.close()


def test_nothing_stays_open(original: Path, into: Path) -> None:
    """Whatever ends a source or a sink, in order or not, no file of this process is left open."""
    before = _open_files()
    copy(open_source(original, "raw"), open_sink(into, "image", SIZE, "raw"))
    open_sink(into, "image", SIZE, "raw").leave(None)
    sink = open_sink(into, "busy", SIZE, "raw")
    for wrong in ("busy", "a/b"):
        with pytest.raises(AgencyError):
            open_sink(into, wrong, SIZE, "raw")
    sink.leave(None)
    for format_ in ("qcow2", "vmdk"):
        with pytest.raises(AgencyError):
            open_source(original, format_)
    assert _open_files() == before


def _knows_all(sink: Sink, original: Path) -> None:
    source = open_source(original, "raw")
    known = sink.known()
    assert known is not None
    with known, manifest_of(source) as expected:
        assert known.root() == expected.root()
    source.close()


def _hashed_first(sink: Sink) -> Sink:
    """The sink, after what the engine asks of every sink."""
    known = sink.known()
    if known is not None:
        known.close()
    sink.zero(0, sink.size)
    return sink


def _last_digest(original: Path) -> bytes:
    source = open_source(original, "raw")
    with manifest_of(source) as manifest:
        source.close()
        return manifest.get(manifest.blocks - 1)


def _patiently(into: Path, format_: str, progress: list[tuple[int, int]]) -> Sink:
    """The sink of one that was killed: the tool that wrote for it needs a moment to let go of the file."""
    sinks: list[Sink] = []

    def opened() -> bool:
        try:
            sinks.append(open_sink(into, "image", SIZE, format_, hashing=lambda *each: progress.append(each)))
        except AgencyError as error:
            if error.problem.code == "transfer-running":
                return False
            raise
        return True

    _until(opened)
    return sinks[0]


def _open_files() -> set[str]:
    return {file.name for file in Path("/proc/self/fd").iterdir()}


def _until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)
