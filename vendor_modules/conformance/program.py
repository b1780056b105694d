"""What a test machine runs: answers GET with a file below its working directory (all of it, or the range of bytes that
is asked for), and PUT writes one in place.

It is sent to the machine as a file of its user data, and needs nothing but Python's own library.
"""

import http.server
import os
import pathlib
import re


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        """Answer with the file's content, or ``Range: bytes=FIRST-LAST`` of it."""
        span = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        try:
            with pathlib.Path(self.path.lstrip("/")).open("rb") as file:
                if span:
                    file.seek(int(span[1]))
                    content = file.read(int(span[2]) - int(span[1]) + 1)
                else:
                    content = file.read()
        except OSError:
            self._answer(404, b"")
        else:
            self._answer(206 if span else 200, content)

    def do_PUT(self) -> None:
        """Write at the file's beginning, without cutting off what comes after: the file may be a device."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        file = os.open(self.path.lstrip("/"), os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(file, content)
        os.fsync(file)
        os.close(file)
        self._answer(204, b"")

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    print("the test machine is up", flush=True)  # noqa: T201 - for the machine's console
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"]))
    http.server.ThreadingHTTPServer(address, Handler).serve_forever()
