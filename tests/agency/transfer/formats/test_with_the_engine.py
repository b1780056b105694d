"""Content goes through the engine from any format to any other, and only what changed goes again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agency.problems import AgencyError
from agency.transfer.ends import UNIT
from agency.transfer.formats import nbd
from agency.transfer.formats.opening import FORMATS, open_sink, open_source
from tests.agency.transfer.ends import transfer
from tests.agency.transfer.formats.copying import needs_qemu, qemu_img, sparse_file
from tests.labs.transfer import until

SIZE = 24 * UNIT


@needs_qemu
@pytest.mark.parametrize(("before", "after"), list(zip(FORMATS, (*FORMATS[1:], "raw"), strict=True)))
def test_from_format_to_format_and_then_the_difference(tmp_path: Path, before: str, after: str) -> None:
    """What arrives is the content; after a change of a few blocks, those blocks go, and nothing is hashed."""
    original = sparse_file(tmp_path / "original", SIZE)
    image, arrived = tmp_path / "image", tmp_path / "arrived"
    for changed in (False, True):
        if changed:
            with original.open("r+b") as file:
                file.seek(7 * UNIT)
                file.write(os.urandom(100_000))
        qemu_img("convert", "-f", "raw", "-O", before, *_exact(before), original, image)
        source = open_source(image, before)
        sink = open_sink(tmp_path, "arrived", SIZE, after, hashing=lambda *_: pytest.fail("it was read"))
        sent, received = transfer(source, sink).results
        source.close()
        assert sent.data == received.data
        assert (sent.data <= 3 * (64 << 10)) if changed else (sent.data >= 1_000_000)
        qemu_img("compare", "-f", "raw", "-F", after, original, arrived)


@pytest.mark.parametrize("format_", ["raw", pytest.param("qcow2", marks=needs_qemu)])
@pytest.mark.parametrize("room", [SIZE - 5 * UNIT, SIZE, SIZE + 3 * UNIT])
def test_what_a_base_has_is_not_sent(tmp_path: Path, format_: str, room: int) -> None:
    """Of content made from an image that the destination has, longer or shorter than it, only what was changed is sent;
    the image stays what it was, and zeros stay holes."""
    base = sparse_file(tmp_path / "base", SIZE)
    (tmp_path / "original").write_bytes(base.read_bytes()[:room])
    os.truncate(tmp_path / "original", room)
    with (tmp_path / "original").open("r+b") as file:
        file.seek(7 * UNIT)
        file.write(os.urandom(100_000))
    if format_ != "raw":
        qemu_img("convert", "-f", "raw", "-O", format_, base, tmp_path / f"base.{format_}")
        base = tmp_path / f"base.{format_}"
    before = base.read_bytes()
    with closing(open_source(tmp_path / "original", "raw")) as source, closing(open_source(base, format_)) as known:
        sent, _ = transfer(source, open_sink(tmp_path, "arrived", room, format_, base=known)).results
    assert sent.data <= 3 * (64 << 10)
    assert sent.same >= 1_000_000
    assert base.read_bytes() == before
    qemu_img("compare", "-f", "raw", "-F", format_, tmp_path / "original", tmp_path / "arrived")
    assert (tmp_path / "arrived").stat().st_blocks <= base.stat().st_blocks + (1 << 20) // 512


def test_a_base_is_gone_on_with(tmp_path: Path) -> None:
    """An attempt that ended while the base was put in place costs nothing: the next one puts the rest there."""
    base = tmp_path / "base"
    base.write_bytes(os.urandom(SIZE))

    def stop(done: int, _: int) -> None:
        if done > SIZE // 2:
            raise KeyboardInterrupt

    for hashing in (stop, lambda *_: None):
        with closing(open_source(base, "raw")) as source, closing(open_source(base, "raw")) as known:
            sink = open_sink(tmp_path, "arrived", SIZE, "raw", hashing=hashing, base=known)
            if hashing is stop:
                with pytest.raises(KeyboardInterrupt):
                    sink.known()
                sink.leave(None)
            else:
                sent, _ = transfer(source, sink).results
    assert (sent.data, sent.same) == (0, SIZE)
    assert (tmp_path / "arrived").read_bytes() == base.read_bytes()


def _exact(format_: str) -> tuple[str, ...]:
    return ("-o", "force_size=on") if format_ == "vpc" else ()


@needs_qemu
@pytest.mark.parametrize("call", ["read", "write", "known", "settle"])
def test_a_cancel_is_obeyed_while_qemu_hangs(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `qemu-nbd` that does not answer, or does not end, is ended when the transfer is cancelled, at either side; the
    next transfer goes on with what is there."""
    monkeypatch.setattr(nbd, "_PATIENCE", 3600)
    original = sparse_file(tmp_path / "original", SIZE)
    qemu_img("convert", "-f", "raw", "-O", "vmdk", original, tmp_path / "image")
    if call == "known":
        open_sink(tmp_path, "arrived", SIZE, "vmdk").leave(None)
        sink = open_sink(tmp_path, "arrived", SIZE, "vmdk")
        sink.write(0, original.read_bytes()[:UNIT])
        sink.leave(None)
    source, sink = open_source(tmp_path / "image", "vmdk"), open_sink(tmp_path, "arrived", SIZE, "vmdk")
    disk: Any = (source if call == "read" else sink)._disk  # type: ignore[attr-defined]
    hangs: list[bool] = []
    really = getattr(disk, call if call != "known" else "read")

    def stop(*arguments: Any) -> Any:
        disk._server._process.send_signal(signal.SIGSTOP)
        hangs.append(True)
        return really(*arguments)

    monkeypatch.setattr(disk, call if call != "known" else "read", stop)
    cancelled = {"cancelled": lambda: bool(hangs)}
    options = {"sending": cancelled} if call == "read" else {"receiving": cancelled}
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(transfer, source, sink, **options)
        try:
            outcome = future.result(60)
        finally:
            disk._server._process.kill()
    source.close()
    error = outcome.sent if call == "read" else outcome.received
    assert isinstance(error, AgencyError)
    assert error.problem.code == "cancelled"
    source, sink = open_source(tmp_path / "image", "vmdk"), open_sink(tmp_path, "arrived", SIZE, "vmdk")
    transfer(source, sink).results  # noqa: B018 - or it raises
    source.close()
    qemu_img("compare", "-f", "raw", "-F", "vmdk", original, tmp_path / "arrived")


_DIES = """
import os, sys
from pathlib import Path
from agency.transfer.formats import nbd
from agency.transfer.formats.opening import open_source

class Server(nbd._Server):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print(self._process.pid, flush=True)
        os.kill(os.getpid(), 9)

nbd._Server = Server
os.open("/dev/null", os.O_RDONLY)
open_source(Path(sys.argv[1]), "vmdk")
"""


@needs_qemu
def test_no_qemu_outlives_who_started_it(tmp_path: Path) -> None:
    """Who is killed before it has said a word to its `qemu-nbd` takes that along."""
    qemu_img("create", "-f", "vmdk", tmp_path / "image", "1M")
    run = subprocess.run([sys.executable, "-c", _DIES, tmp_path / "image"], stdout=subprocess.PIPE, check=False)
    assert run.returncode == -signal.SIGKILL
    process = Path(f"/proc/{int(run.stdout)}")
    until(lambda: not process.exists() or "\nState:\tZ" in _status(process))


@needs_qemu
def test_an_image_may_have_any_number(tmp_path: Path) -> None:
    """Also that which the listening socket has for a `qemu-nbd`: the first that a process opens."""
    qemu_img("create", "-f", "vmdk", tmp_path / "image", "1M")
    words = (
        "import os, sys; from pathlib import Path; from agency.transfer.formats.opening import open_source\n"
        "os.closerange(3, 100); source = open_source(Path(sys.argv[1]), 'vmdk'); print(source._files, source.size)"
    )
    run = subprocess.run([sys.executable, "-c", words, tmp_path / "image"], stdout=subprocess.PIPE, check=True)
    assert run.stdout == b"[3] 1048576\n"


def _status(process: Path) -> str:
    try:
        return (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "\nState:\tZ"
