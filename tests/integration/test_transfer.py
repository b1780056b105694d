"""`agency transfer`: two proxies as processes of their own, and who holds their tokens."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from agency.cli import app
from descriptors.base import MIB
from tests.labs.agency import AGENCY
from tests.labs.transfer import Site, two_sites

pytestmark = pytest.mark.integration

SLOW = ("pydantic_xml", "lxml", "yaml", "cryptography", "joserfc", "httpx", "loguru", "descriptors.base")
"""Modules that take long to import, and that a transfer in which nothing goes wrong does not need here."""
MEMORY = 128 * 1024
"""KiB that a proxy may take, whatever goes through it."""


@dataclass
class Running:
    """A proxy that runs."""

    site: Site
    process: subprocess.Popen[str]
    address: str

    def run(self, *words: str, status: int = 0, environment: dict[str, str] | None = None) -> Any:
        """`agency transfer …` in its state directory; what it answers as JSON."""
        command = ["transfer", *words, "--state", str(self.site.state), "--json"]
        done = CliRunner().invoke(app, command, env=environment)
        assert done.exit_code == status, done.output
        return json.loads(done.stdout)

    def token(self, direction: str, file: str, peer: Running, base: str | None = None) -> Path:
        """A token of its, in a file."""
        path = self.site.state.parent / f"{direction}-{file}.token"
        words = ("token", direction, file, "--peer", peer.site.proxy, "--output", str(path))
        words += ("--base", base) if base else ()
        assert "token" not in self.run(*words)
        return path


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Site]:
    """Two that believe each other."""
    return two_sites(tmp_path_factory.mktemp("transfer"))


@pytest.fixture(scope="module")
def proxies(sites: tuple[Site, Site]) -> Iterator[tuple[Running, Running]]:
    """Both, running."""
    with ExitStack() as stack:
        processes = []
        for site in sites:
            command = [AGENCY, "transfer", "serve", "--root", site.root, "--listen", "127.0.0.1:0", "--data", "0"]
            environment = {**os.environ, "AGENCY_DOMAIN": site.name}
            process = subprocess.Popen(
                [*command, "--state", site.state], stdout=subprocess.PIPE, text=True, env=environment
            )
            stack.callback(stop, process)
            processes.append(process)
        found = []
        for process in processes:
            assert process.stdout
            where = re.search(r" is at (\S+), content at port ", process.stdout.readline())
            assert where, "the proxy does not come up"
            found.append(where[1])
        yield (Running(sites[0], processes[0], found[0]), Running(sites[1], processes[1], found[1]))


def stop(process: subprocess.Popen[str]) -> None:
    """In order."""
    process.terminate()
    assert process.wait(30) == 0
    assert process.stdout
    process.stdout.close()


@pytest.fixture(scope="module")
def authorities(sites: tuple[Site, Site], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a third party verifies both proxies by."""
    file = tmp_path_factory.mktemp("third") / "ca.pem"
    file.write_bytes(b"".join((site.state / "transfer" / "authority.pem").read_bytes() for site in sites))
    return file


def test_a_third_party(proxies: tuple[Running, Running], authorities: Path, tmp_path: Path) -> None:
    """Who holds the addresses and a token of each proxy, and nothing else, has one send to the other, sees how it went,
    has the destination prove what it has, and holds a manifest that whoever trusts the site can check. The tokens are
    nowhere but in their holder's files, and neither proxy takes more memory than it may."""
    here, there = proxies
    content = os.urandom(24 * MIB) + bytes(24 * MIB)
    (here.site.root / "disk.img").write_bytes(content)
    ours, theirs = here.token("read", "disk.img", there), there.token("write", "disk.img", here)
    nobody = tmp_path / "nobody"
    third = ["--ca", str(authorities), "--state", str(nobody), "--json"]

    def ask(*words: str) -> Any:
        done = CliRunner().invoke(app, ["transfer", *words, *third])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    tokens = ["--token-file", str(ours), "--to-token-file", str(theirs)]
    done = ask("between", here.address, there.address, *tokens)
    assert (done["state"], done["done"]) == ("complete", len(content))
    assert (there.site.root / "disk.img").read_bytes() == content
    assert "file" not in done
    seen = ask("status", there.address, "--token-file", str(theirs))
    assert seen["root"] == done["root"]
    assert ask("verify", there.address, "--token-file", str(theirs)) == {
        "same": True, "size": len(content), "root": done["root"]
    }  # fmt: skip
    (tmp_path / "manifest").write_text(seen["manifest"])
    believed = CliRunner().invoke(app, ["verify", str(tmp_path / "manifest"), "--state", str(there.site.state)])
    assert believed.exit_code == 0, believed.output
    unknown = CliRunner().invoke(app, ["verify", str(tmp_path / "manifest"), "--state", str(here.site.state)])
    assert unknown.exit_code == 1
    for proxy in proxies:
        text = Path(f"/proc/{proxy.process.pid}/status").read_text()
        assert int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) <= MEMORY
        kept = b"".join(each.read_bytes() for each in proxy.site.state.rglob("*") if each.is_file())
        kept += Path(f"/proc/{proxy.process.pid}/cmdline").read_bytes()
        assert not any(token.read_bytes().strip() in kept for token in (ours, theirs))


def test_a_push_waits_for_nothing_slow(proxies: tuple[Running, Running], tmp_path: Path) -> None:
    """A push imports neither documents nor certificates' tools nor another HTTP: they would be half of its time."""
    here, there = proxies
    (tmp_path / "small.img").write_bytes(os.urandom(MIB))
    token = there.token("write", "small.img", here)
    program = "import sys; from agency.cli import app; app(sys.argv[1:], standalone_mode=False); " + (
        f"print([name for name in {SLOW!r} if name in sys.modules], file=sys.stderr)"
    )
    words = ["transfer", "push", tmp_path / "small.img", there.address, "--token-file", token, "--json"]
    command = [sys.executable, "-c", program, *words, "--state", here.site.state]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
    assert json.loads(done.stdout)["data"] == MIB


def test_push_is_broken_off_and_goes_on(proxies: tuple[Running, Running], tmp_path: Path) -> None:
    """Ctrl-C ends a push in order; run again, it goes on; then the token is used up."""
    here, there = proxies
    (tmp_path / "volume.img").write_bytes(os.urandom(8 * MIB))
    token = there.token("write", "volume.img", here).read_text().strip()
    words = ["push", str(tmp_path / "volume.img"), there.address]
    slow = [AGENCY, "transfer", *words, "--limit", "4M", "--no-compress", "--state", here.site.state]
    environment = {**os.environ, "AGENCY_TRANSFER_TOKEN": token}
    with subprocess.Popen(slow, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not any(each["file"] == "volume.img" and each["done"] for each in there.run("list")["transfers"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "run it again" in said
    assert token not in said
    secret = {"AGENCY_TRANSFER_TOKEN": token}
    deadline = time.monotonic() + 30
    while there.run("list")["transfers"][-1]["state"] == "running":
        assert time.monotonic() < deadline
    pushed = here.run(*words, environment=secret)
    assert pushed["same"] > 0
    assert pushed["same"] + pushed["data"] == 8 * MIB
    assert (there.site.root / "volume.img").read_bytes() == (tmp_path / "volume.img").read_bytes()
    assert here.run(*words, status=1, environment=secret)["problem"]["code"] == "token-used"


def test_pull_into_another_format(proxies: tuple[Running, Running], tmp_path: Path) -> None:
    """What a proxy has raw is fetched into a qcow2 image of the same content."""
    here, there = proxies
    (there.site.root / "raw.img").write_bytes(os.urandom(2 * MIB) + bytes(6 * MIB))
    token = there.token("read", "raw.img", here)
    copy = tmp_path / "copy.qcow2"
    here.run("pull", there.address, str(copy), "--to-format", "qcow2", "--token-file", str(token))
    compared = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(there.site.root / "raw.img"), str(copy)]
    assert subprocess.run(compared, capture_output=True, check=False).returncode == 0


def test_from_a_base_image(proxies: tuple[Running, Running], tmp_path: Path) -> None:
    """Of content made from an image that the destination has, what was changed is sent; to whoever pushes and to
    whoever pulls. What would be a base of nothing, or is not there, is refused."""
    here, there = proxies
    image = os.urandom(4 * MIB)
    for site in (here.site, there.site):
        (site.root / "base.img").write_bytes(image)
    (tmp_path / "made.img").write_bytes(image[: 2 * MIB] + os.urandom(65536) + image[2 * MIB + 65536 :])
    token = there.token("write", "made.img", here, base="base.img")
    pushed = here.run("push", str(tmp_path / "made.img"), there.address, "--token-file", str(token))
    assert (pushed["data"], pushed["same"]) == (65536, 4 * MIB - 65536)
    assert (there.site.root / "made.img").read_bytes() == (tmp_path / "made.img").read_bytes()
    token = there.token("read", "made.img", here)
    base = ("--base", str(here.site.root / "base.img"))
    pulled = here.run("pull", there.address, str(tmp_path / "pulled.img"), *base, "--token-file", str(token))
    assert pulled["data"] == 65536
    assert (tmp_path / "pulled.img").read_bytes() == (tmp_path / "made.img").read_bytes()
    peer = ("--peer", "transfer.a.example", "--base")
    assert there.run("token", "write", "x", *peer, "nothing", status=1)["problem"]["code"] == "no-such-file"
    assert there.run("token", "write", "x", *peer, "../x", status=1)["problem"]["code"] == "bad-name"
    assert there.run("token", "read", "base.img", *peer, "base.img", status=1)["problem"]["code"] == "no-base"


def test_cancelled_before_it_begins(proxies: tuple[Running, Running], tmp_path: Path) -> None:
    """A token that was issued by mistake is worth nothing once its transfer is cancelled."""
    here, there = proxies
    (tmp_path / "x.img").write_bytes(b"x")
    token = there.token("write", "x.img", here)
    id_ = there.run("list")["transfers"][-1]["id"]
    assert there.run("cancel", id_)["state"] == "cancelled"
    words = ("push", str(tmp_path / "x.img"), there.address, "--token-file", str(token))
    assert here.run(*words, status=1)["problem"]["code"] == "token-used"
    assert there.run("status", id_)["state"] == "cancelled"


def test_what_is_refused(proxies: tuple[Running, Running], tmp_path: Path) -> None:
    """Names that lead out, files that are not there, and handles that mean nothing are refused with the reason."""
    _, there = proxies
    peer = ("--peer", "transfer.a.example")
    for name in ("../x", "/etc/passwd", ".hidden", "a/b"):
        assert there.run("token", "write", name, *peer, status=1)["problem"]["code"] == "bad-name"
    assert there.run("token", "read", "nothing", *peer, status=1)["problem"]["code"] == "no-such-file"
    assert there.run("token", "write", "x", *peer, "--max", "much", status=1)["problem"]["code"] == "bad-value"
    assert there.run("token", "write", "x", *peer, "--format", "doc", status=1)["problem"]["code"] == "unknown-format"
    assert there.run("status", "transfer-0", status=1)["problem"]["code"] == "not-found"
    (tmp_path / "token").write_text("A" * 43)
    words = ("status", there.address, "--token-file", str(tmp_path / "token"))
    assert there.run(*words, status=1)["problem"]["code"] == "unknown-token"
    (tmp_path / "token").write_text("A" * 40)
    assert there.run(*words, status=1)["problem"]["code"] == "bad-token"


def test_who_has_no_token(proxies: tuple[Running, Running], authorities: Path) -> None:
    """Over the network a proxy tells nobody anything without a token, issues none, reads no endless messages, and
    speaks no older TLS."""
    _, there = proxies
    context = ssl.create_default_context(cafile=authorities)
    with httpx.Client(base_url=f"https://{there.address}", verify=context, trust_env=False) as client:
        for method, path in (("GET", "/transfer"), ("DELETE", "/transfer"), ("POST", "/transfer/verification")):
            assert client.request(method, path).json()["problem"]["code"] == "bad-token"
        for path in ("/transfers", "/tokens", "/transfers/transfer-0", "/docs"):
            assert client.get(path).status_code == 404
        answer = client.post("/transfer", content=b"x" * 100_000, headers={"authorization": "Bearer " + "A" * 43})
        assert answer.json()["problem"]["code"] == "too-large"
        assert client.post("/transfer", content=b'{"to": 1}').json()["problem"]["code"] == "bad-value"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host, port = there.address.split(":")
    with (
        socket.create_connection((host, int(port))) as connection,
        pytest.raises(ssl.SSLError),
        context.wrap_socket(connection, server_hostname=host),
    ):
        pass


def test_one_proxy_for_a_state_directory(proxies: tuple[Running, Running]) -> None:
    """A second proxy in the same state directory is refused; so is a proxy that has no certificate."""
    here, _ = proxies
    root, state = str(here.site.root), str(here.site.state)
    for where, code in ((state, "already-running"), (root, "no-certificate")):
        done = CliRunner().invoke(app, ["transfer", "serve", "--root", root, "--state", where])
        assert done.exit_code == 1
        assert code in done.stderr
