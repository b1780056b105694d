"""The guestbook, run as a cloud runs it: its program as a process, its device a file, a real object store."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from agency.servers.running import reserved_ports
from descriptors import documents
from descriptors.application import Application

EXAMPLE = Path(__file__).parents[2] / "examples" / "guestbook"
SECRET = "s3cret-of-the-bucket"
LOG_START = 4096


class Objects(ThreadingHTTPServer):
    """An object store in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ObjectHandler)
        self.held: dict[str, bytes] = {}


class ObjectHandler(BaseHTTPRequestHandler):
    """PUT and GET with HTTP Basic."""

    server: Objects

    def do_GET(self) -> None:
        """Give the object, or 404."""
        if self._allowed():
            self._reply(200 if self.path in self.server.held else 404, self.server.held.get(self.path, b""))

    def do_PUT(self) -> None:
        """Keep the object."""
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self._allowed():
            self.server.held[self.path] = data
            self._reply(201)

    def _allowed(self) -> bool:
        allowed = self.headers["Authorization"] == "Basic " + base64.b64encode(f"key:{SECRET}".encode()).decode()
        if not allowed:
            self._reply(403)
        return allowed

    def _reply(self, status: int, data: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class Running:
    """A guestbook in a folder of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.device = folder / "dev" / "vdb"
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {"PATH": os.environ["PATH"], "PORT": str(self.port)}
        with (self.folder / "console").open("ab") as console:
            self.process = subprocess.Popen(
                [sys.executable, "guestbook.py"], cwd=self.folder, env=environment, stderr=console
            )
        for _ in range(1500):
            try:
                self.client.get("/entries")
                return
            except httpx.TransportError:
                assert self.process.poll() is None, self.console()
                time.sleep(0.02)
        raise AssertionError(f"the guestbook does not answer: {self.console()}")

    def end(self, how: signal.Signals) -> int:
        """End it; returns its exit status."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(60)

    def console(self) -> str:
        """What it has printed."""
        return (self.folder / "console").read_text()

    def sign(self, text: str, name: str = "Ada") -> httpx.Response:
        """Write an entry."""
        return self.client.post("/entries", json={"name": name, "text": text})

    def texts(self) -> list[str]:
        """The texts of all entries."""
        return [entry["text"] for entry in self.client.get("/entries").json()]


@pytest.fixture
def objects() -> Iterator[Objects]:
    """A running object store."""
    with Objects() as store:
        thread = threading.Thread(target=store.serve_forever, args=(0.01,))
        thread.start()
        yield store
        store.shutdown()
        thread.join()


Made = Callable[..., Running]


@pytest.fixture
def make(tmp_path: Path, objects: Objects) -> Iterator[Made]:
    """Make a guestbook, not started, with a device of so many bytes; all of them are killed at the end."""
    made: list[Running] = []
    reserved = ExitStack()

    def one(name: str = "one", size: int = 64 * 2**20) -> Running:
        folder = tmp_path / name
        (folder / "dev").mkdir(parents=True)
        shutil.copy(EXAMPLE / "guestbook.py", folder)
        template = (EXAMPLE / "guestbook.toml").read_text()
        endpoint = f"http://127.0.0.1:{objects.server_port}/bucket"
        template = template.replace("http://127.0.0.1:9000/guestbook", endpoint)
        template = template.replace("secret key", SECRET).replace("access key", "key")
        (folder / "guestbook.toml").write_text(template)
        with (folder / "dev" / "vdb").open("wb") as device:
            device.truncate(size)
        (port,) = reserved.enter_context(reserved_ports(1))
        made.append(Running(folder, port))
        return made[-1]

    with reserved:
        yield one
        for running in made:
            running.client.close()
            if running.process is not None:
                running.process.kill()
                running.process.wait()


@pytest.fixture
def book(make: Made) -> Running:
    """A running guestbook."""
    running = make()
    running.start()
    return running


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_entries_and_pictures_survive_the_end_of_the_process(book: Running, how: signal.Signals) -> None:
    """What was acknowledged is there after the program ended, cleanly or not, and was started again."""
    assert book.sign("first").status_code == 201
    assert book.sign("zweiter Eintrag: ß, 漢, 🙂").status_code == 201
    picture = (EXAMPLE / "picture.png").read_bytes()
    assert book.client.put("/pictures/hills.png", content=picture).status_code == 201
    before = book.client.get("/content").content
    assert book.end(how) == (0 if how is signal.SIGTERM else -signal.SIGKILL)
    book.start()
    assert book.client.get("/content").content == before
    assert book.texts() == ["first", "zweiter Eintrag: ß, 漢, 🙂"]
    shown = book.client.get("/pictures/hills.png")
    assert (shown.content, shown.headers["content-type"]) == (picture, "image/png")


def test_the_device_is_written_in_place(book: Running) -> None:
    """The data is in the device itself, which keeps its size: a copy of it is a copy of the guestbook."""
    book.sign("on the device")
    raw = book.device.read_bytes()
    assert len(raw) == 64 * 2**20
    assert raw.startswith(b"cloud-guestbook\n")
    assert b"on the device" in raw


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40], ids=["cut", "overwritten"])
def test_a_torn_last_record_is_ignored(book: Running, damage: bytes) -> None:
    """A record of which only a part reached the device is no entry, and the next one takes its place."""
    book.sign("whole")
    end = _end_of_log(book.device)
    book.sign("torn " * 100)
    book.end(signal.SIGKILL)
    with book.device.open("r+b") as device:
        device.seek(end + 60)
        device.write(damage or bytes(1000))
    book.start()
    assert book.texts() == ["whole"]
    book.sign("after")
    book.end(signal.SIGTERM)
    book.start()
    assert book.texts() == ["whole", "after"]


def _end_of_log(device: Path) -> int:
    raw, offset = device.read_bytes(), LOG_START
    while length := struct.unpack_from("<I", raw, offset)[0]:
        offset += 8 + length
    return offset


def test_a_full_device_is_said_and_not_grown(make: Made) -> None:
    """An entry that does not fit is refused with 507; a smaller one and everything before are kept."""
    book = make(size=LOG_START + 700)
    book.start()
    assert book.sign("a").status_code == 201
    assert book.sign("x" * 1000).status_code == 507
    while (answer := book.sign("b")).status_code == 201:
        pass
    assert answer.status_code == 507
    assert "full" in answer.json()["error"]
    texts = book.texts()
    book.end(signal.SIGTERM)
    book.start()
    assert book.texts() == texts
    assert book.device.stat().st_size == LOG_START + 700


def test_a_device_with_something_else_on_it_is_left_alone(make: Made) -> None:
    """A device that holds foreign data is not formatted: the program ends and says so."""
    book = make()
    book.device.write_bytes(b"precious" * 1000)
    with pytest.raises(AssertionError, match="something else"):
        book.start()
    assert book.device.read_bytes() == b"precious" * 1000


def test_one_device_serves_one_guestbook_at_a_time(book: Running, make: Made) -> None:
    """A second program on the same device ends at once instead of destroying the first one's records."""
    second = make("two")
    second.device.unlink()
    second.device.symlink_to(book.device)
    with pytest.raises(AssertionError, match="BlockingIOError"):
        second.start()


def test_the_same_data_gives_the_same_content(book: Running, make: Made) -> None:
    """A copy of the device, served elsewhere, has byte for byte the same content."""
    for number in range(20):
        book.sign(f"entry {number}")
    book.client.put("/pictures/b.png", content=b"B")
    book.client.put("/pictures/a.png", content=b"A")
    content = book.client.get("/content")
    book.end(signal.SIGTERM)
    copy = make("copy")
    shutil.copy(book.device, copy.device)
    copy.start()
    assert copy.client.get("/content").content == content.content
    assert [picture["name"] for picture in content.json()["pictures"]] == ["a.png", "b.png"]
    assert content.json()["pictures"][0]["sha256"] == hashlib.sha256(b"A").hexdigest()


def test_a_lost_or_changed_picture_shows_in_the_content(book: Running, objects: Objects) -> None:
    """The content is read from the object store anew, not from what was once recorded."""
    book.client.put("/pictures/a.png", content=b"A")
    before = book.client.get("/content").content
    objects.held["/bucket/a.png"] = b"forged"
    assert book.client.get("/content").content != before
    del objects.held["/bucket/a.png"]
    assert book.client.get("/content").json()["pictures"][0]["sha256"] is None
    assert book.client.get("/pictures/a.png").status_code == 404


def test_health_needs_the_object_store_and_the_device(book: Running, objects: Objects) -> None:
    """Health is 200 only while the store answers to our key and the device can be read."""
    assert book.client.get("/health").status_code == 200
    configuration = book.folder / "guestbook.toml"
    configuration.write_text(configuration.read_text().replace(SECRET, "wrong"))
    book.end(signal.SIGTERM)
    book.start()
    assert book.client.get("/health").status_code == 503
    configuration.write_text(configuration.read_text().replace("wrong", SECRET))
    book.end(signal.SIGTERM)
    book.start()
    os.truncate(book.device, 0)
    assert book.client.get("/health").status_code == 503


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not JSON",
        b"[]",
        b"null",
        b"[" * 20_000,
        b"\xff",
        b'{"name": "A"}',
        b'{"name": "A", "text": 5}',
        b'{"name": "", "text": "t"}',
        b'{"name": "A", "text": "\\u0000"}',
        b'{"name": "A", "text": "\\ud800"}',
        b'{"name": "A", "text": "' + b"x" * 2001 + b'"}',
    ],
)
def test_bad_entries_are_refused(book: Running, body: bytes) -> None:
    """What is no entry gets 400 with words in JSON, and nothing is written."""
    answer = book.client.post("/entries", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert book.texts() == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", b"", 404),
        ("POST", "/content", b"{}", 404),
        ("PUT", "/pictures/..%2fguestbook.py", b"x", 404),
        ("PUT", "/pictures/.hidden.png", b"x", 404),
        ("PUT", "/pictures/page.html", b"x", 404),
        ("PUT", "/pictures/empty.png", b"", 400),
        ("PUT", "/pictures/large.png", b"x" * (5 * 2**20 + 1), 413),
        ("POST", "/entries", b"x" * 40_000, 413),
    ],
)
def test_bad_requests_are_refused(book: Running, method: str, path: str, body: bytes, status: int) -> None:
    """Unknown paths, unsafe names and large bodies get 4xx with words in JSON."""
    answer = book.client.request(method, path, content=body)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_the_page_escapes_what_people_write(book: Running) -> None:
    """Nothing that a visitor writes becomes markup."""
    book.sign("<script>alert(1)</script>", name='"><img src=x>')
    book.client.put("/pictures/hills.png", content=b"x")
    page = book.client.get("/").text
    assert "<script>alert" not in page
    assert "<img src=x>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert '<img src="/pictures/hills.png"' in page


def test_the_secret_is_never_printed(book: Running, objects: Objects) -> None:
    """Neither answers nor the log hold the key to the object store."""
    objects.held.clear()
    texts = [book.client.get(path).text for path in ("/", "/health", "/content", "/pictures/a.png")]
    assert not any(SECRET in text for text in [*texts, book.console()])


def test_both_forms_of_the_descriptor_say_the_same() -> None:
    """application.xml and application.yaml load to the same document, whose files exist."""
    forms = [documents.load(EXAMPLE / name, expect=Application) for name in ("application.xml", "application.yaml")]
    assert forms[0] == forms[1]
    for component in forms[0].components:
        for file in component.files:
            assert (EXAMPLE / file.source).is_file()
