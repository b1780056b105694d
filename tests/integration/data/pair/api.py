"""Keeps notes on a block device of fixed size: GET /notes, POST /notes (a note as the body), GET /health."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DEVICE = Path(next(line for line in Path("api.conf").read_text().splitlines() if line.startswith("device "))[7:])
LOCK = threading.Lock()


def notes() -> bytes:
    return DEVICE.read_bytes().partition(b"\0")[0]


def add(note: bytes) -> None:
    with LOCK, DEVICE.open("r+b") as device:
        device.seek(len(notes()))
        device.write(note.strip() + b"\n")
        os.fsync(device.fileno())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(notes() if self.path in ("/notes", "/health") else None)

    def do_POST(self) -> None:
        add(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(notes())

    def answer(self, body: bytes | None) -> None:
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")


server = ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.05)
