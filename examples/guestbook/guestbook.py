"""A guestbook: the small web application that Cloud Agency's demo deploys and relocates.

Entries live on a block device, pictures in object storage; ``guestbook.toml`` in the working directory names both.
It listens on $PORT of $HOST and ends on SIGTERM, after the requests in hand. Python's standard library is enough.

    GET  /               the page               GET  /content        all of the data, in one deterministic form
    GET  /entries        the entries            POST /entries        {"name": ..., "text": ...}
    GET  /pictures/NAME  a picture              PUT  /pictures/NAME  its bytes
    GET  /health         200 when the device can be read and the object store answers
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import html
import http.client
import json
import os
import re
import signal
import struct
import sys
import threading
import tomllib
import urllib.error
import urllib.request
import zlib
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SECONDS = 5  # that a client or the object store may keep us waiting
FIELDS = {"name": 80, "text": 2000}
MAX_RECORD = 64 * 1024
MAX_PICTURE = 5 * 1024 * 1024
PICTURE = re.compile(r"/pictures/([A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(png|jpg|jpeg|gif|webp))")
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Guestbook</title>
<style>body{max-width:40em;margin:2em auto;font:1em/1.5 sans-serif}img{max-width:100%}</style>
<h1>Guestbook</h1>CONTENT
<form id="entry"><p><input name="name" placeholder="Your name" required maxlength="80">
<p><textarea name="text" placeholder="Your words" required maxlength="2000"></textarea><p><button>Sign</button></form>
<form id="picture"><p><input type="file" name="file" required> <button>Add the picture</button></form>
<script>
const done = async answer => answer.ok ? location.reload() : alert((await answer.json()).error);
const send = (path, method, body) => (fetch(path, {method, body}).then(done), false);
entry.onsubmit = () => send("/entries", "POST", JSON.stringify(Object.fromEntries(new FormData(entry))));
picture.onsubmit = () => send("/pictures/" + picture.file.files[0].name, "PUT", picture.file.files[0]);
</script></html>"""


class Refused(Exception):
    """A request to answer with this HTTP status and sentence."""


class Log:
    """An append-only log, written straight on a block device or a file of fixed size, which is never resized.

    Block 0 (4096 bytes): magic, format version, random volume id. Then records: length and CRC-32 of the payload (two
    little-endian 32-bit numbers), the payload (JSON). A length of zero, or the end of the device, ends the log.
    """

    MAGIC, VERSION, FIRST = b"cloud-guestbook\n", 1, 4096
    BLOCK0, RECORD = struct.Struct("<16sI16s"), struct.Struct("<II")

    def __init__(self, device: str) -> None:
        self.lock = threading.Lock()
        self.fd = os.open(device, os.O_RDWR)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two writers would destroy each other's records
        self.size = os.lseek(self.fd, 0, os.SEEK_END)
        if not any(os.pread(self.fd, self.FIRST, 0)):
            self._write(0, self.BLOCK0.pack(self.MAGIC, self.VERSION, os.urandom(16)))
        self.check()
        self.end = self.FIRST
        while (payload := self._read(self.end)) is not None:
            self.end += self.RECORD.size + len(payload)

    def check(self) -> None:
        """Read block 0; ``OSError`` when that fails or it is not a guestbook's."""
        block = os.pread(self.fd, self.BLOCK0.size, 0)
        if len(block) < self.BLOCK0.size or self.BLOCK0.unpack(block)[:2] != (self.MAGIC, self.VERSION):
            raise OSError("the device holds something else than a guestbook of format 1: it is left alone")

    def records(self) -> list[dict[str, Any]]:
        """All records in order, read from the device now."""
        found, offset, end = [], self.FIRST, self.end
        while offset < end:
            if (payload := self._read(offset)) is None:
                raise OSError(f"the device has lost the record at byte {offset}")
            found.append(json.loads(payload))
            offset += self.RECORD.size + len(payload)
        return found

    def append(self, record: dict[str, Any]) -> None:
        """Write a record; when this returns, it is on stable storage."""
        payload = json.dumps(record, sort_keys=True).encode()
        data = self.RECORD.pack(len(payload), zlib.crc32(payload)) + payload
        with self.lock:
            if self.end + len(data) > self.size:
                raise Refused(507, "the device is full")
            # The log's new end goes with the record: what a torn record left behind can never be taken for one.
            self._write(self.end, (data + bytes(self.RECORD.size))[: self.size - self.end])
            self.end += len(data)

    def _read(self, offset: int) -> bytes | None:
        """The payload at the offset, None at the end of the log; a torn last record is the end."""
        head = os.pread(self.fd, self.RECORD.size, offset)
        length, crc = self.RECORD.unpack(head.ljust(self.RECORD.size, b"\0"))
        payload = os.pread(self.fd, length, offset + self.RECORD.size) if 0 < length <= MAX_RECORD else b""
        return payload if payload and len(payload) == length and zlib.crc32(payload) == crc else None

    def _write(self, offset: int, data: bytes) -> None:
        if os.pwrite(self.fd, data, offset) != len(data):
            raise OSError("the device took only a part of the record")
        os.fsync(self.fd)


class Store:
    """An object store that is spoken to with PUT and GET ``endpoint/KEY`` and HTTP Basic."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError("the endpoint must be an http or https URL")
        self.endpoint = endpoint.rstrip("/")
        self.headers = {"Authorization": "Basic " + base64.b64encode(f"{access_key}:{secret_key}".encode()).decode()}
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method: str, key: str, data: bytes | None = None) -> bytes | None:
        """GET or PUT an object: its bytes, None when there is none; ``OSError`` when the store cannot be asked."""
        url = f"{self.endpoint}/{key}"
        request = urllib.request.Request(url, data, self.headers, method=method)  # noqa: S310 the scheme is checked
        try:
            with self.opener.open(request, timeout=SECONDS) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if (method, error.code) == ("GET", 404):
                return None
            raise


class Server(ThreadingHTTPServer):
    """The guestbook. Closing it waits for the requests in hand."""

    daemon_threads = False

    def __init__(self, host: str, port: int, log: Log, store: Store) -> None:
        super().__init__((host, port), Handler)
        self.log, self.store, self.storing = log, store, threading.Lock()

    def entries(self) -> list[dict[str, Any]]:
        """The entries in the order in which they were written."""
        return [record["entry"] for record in self.log.records() if "entry" in record]

    def pictures(self) -> list[dict[str, Any]]:
        """The pictures as they were recorded last, by name."""
        latest = {record["picture"]["name"]: record["picture"] for record in self.log.records() if "picture" in record}
        return [latest[name] for name in sorted(latest)]

    def content(self) -> dict[str, Any]:
        """Everything; ``sha256`` is of what the object store holds now, None for a picture that it has lost."""
        pictures = [{**p, "sha256": sha256(self.store.call("GET", p["name"]))} for p in self.pictures()]
        return {"entries": self.entries(), "pictures": pictures}

    def sign(self, body: bytes) -> dict[str, Any]:
        """Add an entry, given as JSON."""
        try:
            signed = {field: json.loads(body)[field].strip() for field in FIELDS}
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            raise Refused(400, 'expected {"name": "...", "text": "..."}') from None
        if not all(re.fullmatch(rf"[^\0\ud800-\udfff]{{1,{most}}}", signed[field]) for field, most in FIELDS.items()):
            raise Refused(400, f"too short, too long, or not text; at most {FIELDS} characters")
        signed["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.log.append({"entry": signed})
        return signed

    def add_picture(self, name: str, data: bytes) -> dict[str, Any]:
        """Store a picture, then record it."""
        picture = {"name": name, "size": len(data), "sha256": sha256(data)}
        with self.storing:  # or two pictures of one name could be stored in one order and recorded in the other
            self.store.call("PUT", name, data)
            self.log.append({"picture": picture})
        return picture

    def health(self) -> dict[str, str]:
        """``OSError`` unless the device can be read and the object store answers to our key."""
        self.log.check()
        self.store.call("GET", "health")
        return {"status": "well"}

    def page(self) -> str:
        """The page, newest entry first."""
        entries = [{key: html.escape(value) for key, value in entry.items()} for entry in reversed(self.entries())]
        parts = ["<p><b>{name}</b> <small>{at}</small><br>{text}</p>".format(**entry) for entry in entries]
        parts += ['<p><img src="/pictures/{0}" alt="{0}"></p>'.format(html.escape(p["name"])) for p in self.pictures()]
        return PAGE.replace("CONTENT", "\n".join(parts))


class Handler(BaseHTTPRequestHandler):
    """One HTTP request."""

    server: Server
    timeout = SECONDS
    server_version, sys_version = "guestbook/1", ""

    def do_GET(self) -> None:
        """Answer any request; what goes wrong becomes a status and a sentence."""
        try:
            status, kind, data = self._route()
        except Refused as error:
            status, (kind, data) = error.args[0], as_json({"error": error.args[1]})
        except (OSError, http.client.HTTPException) as error:
            status, (kind, data) = 503, as_json({"error": str(error)})
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_PUT = do_GET  # noqa: N815

    def _route(self) -> tuple[int, str, bytes]:
        book, picture = self.server, PICTURE.fullmatch(self.path)
        reads = {"/health": book.health, "/entries": book.entries, "/content": book.content}
        match self.command, self.path:
            case "GET", "/":
                return 200, "text/html; charset=utf-8", book.page().encode()
            case "GET", path if path in reads:
                return 200, *as_json(reads[path]())
            case "POST", "/entries":
                return 201, *as_json(book.sign(self._body(MAX_RECORD // 2)))
            case "PUT", _ if picture:
                return 201, *as_json(book.add_picture(picture[1], self._body(MAX_PICTURE)))
            case "GET", _ if picture and (data := book.store.call("GET", picture[1])) is not None:
                return 200, f"image/{picture[2].replace('jpg', 'jpeg')}", data
        raise Refused(404, "no such thing here; a picture's name is letters, digits, '.', '_', '-' and its suffix")

    def _body(self, most: int) -> bytes:
        digits = (self.headers["Content-Length"] or "")[:18]
        length = int(digits) if digits.isdecimal() else 0
        data = self.rfile.read(min(length, 2 * MAX_PICTURE))  # whole, or the client may never see the answer
        if not 0 < len(data) == length <= most:
            raise Refused(413 if length > most else 400, f"expected a Content-Length and a body of 1 to {most} bytes")
        return data


def sha256(data: bytes | None) -> str | None:
    """SHA-256 in hexadecimal; None of None."""
    return None if data is None else hashlib.sha256(data).hexdigest()


def as_json(value: object) -> tuple[str, bytes]:
    """The content type and the bytes: the same value, the same bytes."""
    return "application/json", json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main() -> None:
    """Serve until SIGTERM; exit status 1 with a sentence when that cannot begin."""
    try:
        config = tomllib.loads(Path("guestbook.toml").read_text(encoding="utf-8"))
        log, store = Log(config["entries"]["device"]), Store(**config["pictures"])
        server = Server(os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080")), log, store)
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"guestbook: {type(error).__name__}: {error}")
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    with server:
        server.serve_forever(poll_interval=0.05)  # the longest that ending takes to be noticed


if __name__ == "__main__":
    main()
