"""Shows the notes that the api keeps: GET / and GET /health, both through the api."""

import os
import signal
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

API = next(line for line in Path("web.conf").read_text().splitlines() if line.startswith("api "))[4:]
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            with OPENER.open(f"{API}/notes", timeout=5) as answer:
                status, body = 200, b"The notes:\n" + answer.read()
        except OSError as error:
            status, body = 503, f"the api does not answer: {error}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.05)
