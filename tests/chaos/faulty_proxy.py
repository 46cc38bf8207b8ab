"""An S3 API server's bad days: a proxy that answers 500 and 503, stalls, and cuts connections.

The cruellest fault comes after the server has done its work: the answer is lost, so the client
cannot know whether its conditional write took place.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>chaos</Message></Error>"
_HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive", "content-length")


class FaultyProxy:
    """Context manager; ``address`` is what clients talk to."""

    def __init__(self, host: str, port: int, *, share: float = 0.15, seed: int = 0) -> None:
        """``share``: part of the requests that meet a fault."""
        self._upstream = (host, port)
        self.share = share
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.bucket = ""
        """Address of the bucket to use, for the convenience of tests."""

    def __enter__(self) -> FaultyProxy:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self) -> str:
        """What happens to the next request: a fault's name, or ``none``."""
        with self._lock:
            self.requests += 1
            kinds = ("500", "503", "stall", "cut_before", "cut_after", "cut_within")
            kind = "none"
            if self._random.random() < self.share:
                kind = self._random.choice(kinds)
                self.faults[kind] += 1
            return kind

    def forward(self, method: str, path: str, headers: Any, body: bytes) -> Any:
        """Pass a request on; (status, headers, body)."""
        connection = http.client.HTTPConnection(*self._upstream, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    owner: FaultyProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Quiet."""

    def _handle(self) -> None:
        body = self._body()
        fault = self.owner.fault()
        if fault == "cut_before":
            return self._cut()
        if fault in ("500", "503"):
            code = b"InternalError" if fault == "500" else b"SlowDown"
            return self._answer(int(fault), [("Content-Type", "application/xml")], _ERROR % code)
        if fault == "stall":
            time.sleep(1.0)
        status, headers, content = self.owner.forward(self.command, self.path, self.headers, body)
        if fault == "cut_after":
            return self._cut()
        self._answer(status, headers, content, cut_within=fault == "cut_within")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        if "100-continue" in self.headers.get("Expect", "").lower():
            self.send_response_only(100)
            self.end_headers()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(
        self, status: int, headers: Any, content: bytes, *, cut_within: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        length = {n.lower(): v for n, v in headers}.get("content-length", len(content))
        self.send_header("Content-Length", str(length if self.command == "HEAD" else len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut_within and len(content) > 1:
            self.wfile.write(content[: len(content) // 2])
            return self._cut()
        self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()
