"""Transfers between proxies: who may, what happens when something breaks, and that nothing is lost when it does."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from agency.problems import AgencyError
from agency.servers.running import reserved_ports
from agency.transfer import identity, proxy
from agency.transfer.ledger import State
from agency.transfer.manifest import digests
from agency.transfer.pace import Bandwidth
from agency.transfer.proxy import Limits
from agency.transfer.work import End, Terms, receive_content
from agency.trust.keys import TrustedKeys
from agency.trust.signing import Verifier
from descriptors.base import MIB
from descriptors.transfer import TransferManifest
from tests.labs.transfer import (
    Cuttable,
    Killable,
    Site,
    calling,
    make_site,
    push,
    push_slowly,
    running,
    serve,
    two_sites,
    until,
)


@pytest.fixture
def port() -> Iterator[int]:
    """Where one proxy after the other listens."""
    with reserved_ports(1) as (port,):
        yield port


@pytest.fixture
def sites(tmp_path: Path) -> tuple[Site, Site]:
    """Two that believe each other."""
    return two_sites(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Content: 4 MiB of which the half is zeros."""
    file = tmp_path / "disk.img"
    file.write_bytes(os.urandom(2 * MIB))
    os.truncate(file, 4 * MIB)
    return file


@contextmanager
def refused(code: str) -> Iterator[None]:
    """What is inside must be refused for that."""
    with pytest.raises(AgencyError) as caught:
        yield
    assert caught.value.problem.code == code


def test_pushed_and_signed(sites: tuple[Site, Site], disk: Path) -> None:
    """What is pushed arrives byte for byte, and both sides have the destination's signed word for it, which whoever
    trusts its site can check."""
    here, there = sites
    token = there.token("write", "disk.img", here.proxy)
    with running(there) as (_, port):
        result, statement = push(here, port, token, disk)
    assert (there.root / "disk.img").read_bytes() == disk.read_bytes()
    known = there.transfer(token)
    assert (known.state, known.statement, known.size) == (State.COMPLETE, statement, 4 * MIB)
    verifier = Verifier(TrustedKeys([(there.name, there.witness.key.public)]))
    said = verifier.read(statement, TransferManifest).document
    assert (said.size, said.root) == (4 * MIB, f"blake3:{result.root.hex()}")
    assert (said.sender, said.receiver) == (here.proxy, there.proxy)
    assert 2 * MIB < said.wire <= result.wire


def test_pulled(sites: tuple[Site, Site], disk: Path, tmp_path: Path) -> None:
    """What a token lets read arrives where it is wanted."""
    here, there = sites
    disk.rename(there.root / "disk.img")
    token = there.token("read", "disk.img", here.proxy)
    with running(there) as (_, port), closing(calling(here, port, token)) as meeting:
        end = End("write", tmp_path, "copy.img", "raw")
        receive_content("transfer-1", end, meeting, here.witness, Terms(scratch=tmp_path))
        until(lambda: there.transfer(token).state is State.COMPLETE)
    assert (tmp_path / "copy.img").read_bytes() == (there.root / "disk.img").read_bytes()


def test_two_proxies_by_themselves(sites: tuple[Site, Site], disk: Path) -> None:
    """A proxy that is given another's token sends to it on its own; the token is good once, at either."""
    here, there = sites
    disk.rename(here.root / "disk.img")
    ours, theirs = here.token("read", "disk.img", there.proxy), there.token("write", "new.img", here.proxy)
    with running(here) as (proxy, _), running(there) as (other, port):
        id_ = proxy.start(ours, ("127.0.0.1", port), theirs, 3).id
        until(lambda: proxy.get(id_).state is not State.RUNNING)
        assert proxy.get(id_).state is State.COMPLETE, proxy.get(id_)
        seen = other.verification(there.transfer(theirs).id)
        assert seen["same"]
        assert seen["root"] == proxy.get(id_).root
        with (there.root / "new.img").open("r+b") as file:
            file.write(b"x")
        assert not other.verification(there.transfer(theirs).id)["same"]
        with refused("token-used"):
            proxy.start(ours, ("127.0.0.1", port), theirs, 1)
    assert (there.root / "new.img").stat().st_size == 4 * MIB


def test_a_proxy_that_stops_reads_nothing_more(
    sites: tuple[Site, Site], disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being verified when a proxy is stopped is not read to its end."""
    here, there = sites
    token = there.token("write", "disk.img", here.proxy)
    read: list[int] = []
    with running(there) as (proxy, port), ThreadPoolExecutor(1) as pool:
        push(here, port, token, disk)
        until(lambda: there.transfer(token).state is State.COMPLETE)

        def slowly(data: bytes) -> list[bytes]:
            read.append(len(data))
            until(lambda: proxy._stopping)
            return digests(data)

        monkeypatch.setattr("agency.transfer.work.digests", slowly)
        verifying = pool.submit(proxy.verification, there.transfer(token).id)
        until(lambda: read)
        proxy.stop()
        with refused("cancelled"):
            verifying.result()
    assert read == [MIB]


def test_a_token_is_for_its_peer_only(sites: tuple[Site, Site], disk: Path, tmp_path: Path) -> None:
    """A token in the hands of another proxy, of the same site even, is refused, and stays good for its own; it may be
    bound by the certificate's fingerprint as well."""
    here, there = sites
    token = there.token("write", "disk.img", identity.itself(here.state).fingerprint)
    here_too = make_site(tmp_path / "too", "c.example")
    identity.initialize(here_too.state, "a.example", ["other.a.example"], here.state / "transfer")
    here_too.believe(there)
    with running(there) as (_, port):
        with refused("wrong-peer"):
            push(here_too, port, token, disk)
        assert not (there.root / "disk.img").exists()
        push(here, port, token, disk)
    assert there.transfer(token).state is State.COMPLETE


def test_only_believed_authorities(sites: tuple[Site, Site], disk: Path, tmp_path: Path) -> None:
    """Who has a certificate of an authority that the proxy does not believe gets no further, whatever name is in it;
    and a proxy with such a certificate is sent nothing, not even the token."""
    here, there = sites
    token = there.token("write", "disk.img", here.proxy)
    stranger = make_site(tmp_path / "elsewhere", "a.example")
    stranger.believe(there)
    with running(there) as (_, port), refused("bad-peer"):
        push(stranger, port, token, disk)
    assert there.transfer(token).state is State.WAITING
    with running(stranger) as (_, port), refused("bad-peer"):
        push(here, port, token, disk)


def test_a_token_is_for_its_direction_only(sites: tuple[Site, Site], disk: Path) -> None:
    """With a token to read nobody writes: both ends would send, and the file stays as it is."""
    here, there = sites
    (there.root / "disk.img").write_bytes(b"precious" * 10_000)
    token = there.token("read", "disk.img", here.proxy)
    with running(there) as (_, port), pytest.raises(AgencyError):
        push(here, port, token, disk)
    assert (there.root / "disk.img").read_bytes() == b"precious" * 10_000


def test_no_more_than_the_token_is_for(sites: tuple[Site, Site], disk: Path) -> None:
    """Content that is larger than the token says is refused before anything is written."""
    here, there = sites
    token = there.token("write", "disk.img", here.proxy, most=4 * MIB - 1)
    with running(there) as (_, port), refused("too-large"):
        push(here, port, token, disk)
    assert list(there.root.iterdir()) == []


def test_links_that_appear_later(sites: tuple[Site, Site], disk: Path, tmp_path: Path) -> None:
    """A name that has become a link since its token was issued leads nowhere; the other side is told so, and not where
    our files are."""
    here, there = sites
    token = there.token("write", "disk.img", here.proxy)
    (there.root / "disk.img").symlink_to(tmp_path / "elsewhere")
    with running(there) as (_, port), pytest.raises(AgencyError) as caught:
        push(here, port, token, disk)
    assert caught.value.problem.code == "bad-name"
    assert str(there.root) not in caught.value.problem.message
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_proxy_says_so(sites: tuple[Site, Site], disk: Path) -> None:
    """Beyond the transfers that a proxy takes on, who comes is refused, and told that it may try again; its token is
    good still."""
    here, there = sites
    first, second = there.token("write", "1.img", here.proxy), there.token("write", "2.img", here.proxy)
    with running(there, Limits(transfers=1)) as (other, port):
        slowly = threading.Thread(
            target=lambda: push(here, port, first, disk, compress=False, bandwidth=Bandwidth(2 * MIB))
        )
        slowly.start()
        until(lambda: there.transfer(first).state is State.RUNNING)
        with pytest.raises(AgencyError) as caught:
            push(here, port, second, disk)
        assert (caught.value.problem.code, caught.value.problem.retryable) == ("busy", True)
        slowly.join()
        until(lambda: other.get(there.transfer(first).id).state is State.COMPLETE)
        until(lambda: push_succeeds(here, port, second, disk))
    assert (there.root / "2.img").read_bytes() == disk.read_bytes()


def push_succeeds(site: Site, port: int, token: bytes, file: Path) -> bool:
    """Whether it does; a proxy that was busy is free a moment after its transfer is complete."""
    try:
        push(site, port, token, file)
    except AgencyError as error:
        if error.problem.code == "busy":
            return False
        raise
    return True


def test_cancelled(sites: tuple[Site, Site], disk: Path) -> None:
    """Who cancels ends the transfer at both ends at once, and its token with it."""
    here, there = sites
    token = there.token("write", "disk.img", here.proxy)
    codes: list[str] = []

    def slowly() -> None:
        try:
            push(here, port, token, disk, bandwidth=Bandwidth(100_000))
        except AgencyError as error:
            codes.append(error.problem.code)

    with running(there) as (other, port):
        thread = threading.Thread(target=slowly)
        thread.start()
        until(lambda: other.progress(there.transfer(token).id))
        other.cancel(there.transfer(token).id)
        thread.join(timeout=5)
        assert not thread.is_alive()
        assert len(codes) == 1
        until(lambda: other.get(there.transfer(token).id).finished)
        assert there.transfer(token).state is State.CANCELLED
        with refused("token-used"):
            push(here, port, token, disk)


def test_a_cut_link(sites: tuple[Site, Site], tmp_path: Path) -> None:
    """When the link is cut both ends notice; with the same token the transfer goes on, and sends again next to nothing
    of what has arrived."""
    here, there = sites
    disk = tmp_path / "big.img"
    disk.write_bytes(os.urandom(16 * MIB))
    token = there.token("write", "disk.img", here.proxy)
    with running(there) as (other, port), closing(Cuttable(port, most=9 * MIB)) as link:
        id_ = there.transfer(token).id

        def cut() -> None:
            until(lambda: (now := other.progress(id_)) and now.done >= 6 * MIB)
            link.cut()

        threading.Thread(target=cut, daemon=True).start()
        with pytest.raises(AgencyError) as caught:
            push(here, link.port, token, disk, compress=False)
        assert caught.value.problem.retryable
        until(lambda: there.transfer(token).state is State.BROKEN)
        result, _ = push(here, port, token, disk)
    assert (there.root / "disk.img").read_bytes() == disk.read_bytes()
    assert result.same >= 6 * MIB
    assert result.same + result.data == 16 * MIB


def test_killed_twenty_times(sites: tuple[Site, Site], port: int, tmp_path: Path) -> None:
    """Whichever side is killed, and when, the next attempt goes on with what has arrived, with the same token: after 20
    kills the content is the same, and little was sent twice."""
    here, there = sites
    disk = tmp_path / "big.img"
    size, rate = 32 * MIB, 24 * MIB
    disk.write_bytes(os.urandom(size))
    token = there.token("write", "disk.img", here.proxy)
    receiver = Killable(serve, there, port)
    for number in range(20):
        until(lambda: answers(port))
        sender = Killable(push_slowly, here, port, token, disk, rate)
        until(lambda s=sender: there.transfer(token).state is not State.WAITING or not s.process.is_alive())
        time.sleep(random.uniform(0, 0.15))  # noqa: S311
        if number % 2:
            receiver.kill()
            sender.kill()
            receiver = Killable(serve, there, port)
        else:
            sender.kill()
            until(lambda: there.transfer(token).state is not State.RUNNING)
    with receiver:
        until(lambda: answers(port))
        result, _ = push(here, port, token, disk)
    assert (there.root / "disk.img").read_bytes() == disk.read_bytes()
    assert result.data + result.same == size


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_who_comes_again_takes_over(sites: tuple[Site, Site], disk: Path) -> None:
    """A peer whose link went away without a word comes again before the proxy has noticed: it goes on at once."""
    here, there = sites
    disk.write_bytes(os.urandom(16 * MIB))
    token = there.token("write", "disk.img", here.proxy)
    with running(there) as (other, port), Killable(push_slowly, here, port, token, disk, 4 * MIB) as lost:
        until(lambda: (now := other.progress(there.transfer(token).id)) and now.done)
        assert lost.process.pid
        os.kill(lost.process.pid, signal.SIGSTOP)
        result, _ = push(here, port, token, disk)
        assert result.same > 0
    assert (there.root / "disk.img").read_bytes() == disk.read_bytes()


def test_no_more_streams_than_there_is_memory_for(sites: tuple[Site, Site], disk: Path) -> None:
    """A transfer whose streams would be too many, with those of the others, is refused for the moment."""
    here, there = sites
    first, second = there.token("write", "1.img", here.proxy), there.token("write", "2.img", here.proxy)
    with running(there) as (_, port), Killable(push_slowly, here, port, first, disk, 1 * MIB, 8):
        until(lambda: there.transfer(first).state is State.RUNNING)
        with refused("busy"), closing(calling(here, port, second, 8)) as meeting:
            meeting.open(1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk(sites: tuple[Site, Site], disk: Path, tmp_path: Path) -> None:
    """Where the disk is full the transfer breaks off and says so; when there is room it goes on."""
    here, there = sites
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(there.root)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        token = there.token("write", "disk.img", here.proxy)
        with running(there) as (_, port):
            with pytest.raises(AgencyError, match="disk there is full"):
                push(here, port, token, disk)
            until(lambda: there.transfer(token).state is State.BROKEN)
            assert "disk-full" in str(there.transfer(token).problem)
            subprocess.run(["mount", "-o", "remount,size=16m", str(there.root)], check=True)
            push(here, port, token, disk)
        assert (there.root / "disk.img").read_bytes() == disk.read_bytes()
    finally:
        subprocess.run(["umount", "-l", str(there.root)], check=True)


def test_who_says_nothing_is_hung_up_on(sites: tuple[Site, Site], disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections on which nothing is said take no place for ever, and only so many are taken: others come through
    when they are gone."""
    here, there = sites
    monkeypatch.setattr(proxy, "MAX_UNKNOWN", 2)
    monkeypatch.setattr("agency.transfer.meeting.PATIENCE", 0.3)
    token = there.token("write", "disk.img", here.proxy)
    with running(there) as (_, port):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        for each in silent:
            with closing(each):
                each.settimeout(20)
                try:
                    assert each.recv(1) == b""
                except ConnectionResetError:
                    continue
        monkeypatch.setattr("agency.transfer.meeting.PATIENCE", 10)
        push(here, port, token, disk)
    assert (there.root / "disk.img").read_bytes() == disk.read_bytes()


def test_streams_that_do_not_fit(sites: tuple[Site, Site], disk: Path) -> None:
    """Streams of one token that contradict each other are refused."""
    here, there = sites
    token = there.token("write", "disk.img", here.proxy)
    with running(there) as (other, port):
        one, two = calling(here, port, token), calling(here, port, token)
        with closing(one), closing(two):
            one._connect(0, 1 * MIB)
            until(lambda: other._gatherings)
            with refused("bad-peer"):
                two.open(2 * MIB)
    assert there.transfer(token).state is State.WAITING
