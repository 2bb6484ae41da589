"""The exporter's HTTP server: `/metrics`, `/health/live`, `/health/ready`.

What belongs here: paths, status codes, and bounds on who asks. What does not: what is answered.
"""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

from jivs_pipeline.core.errors import ConflictError
from jivs_pipeline.infra.exporter.collect import Exporter

__all__ = ["serve"]

_MOST_AT_ONCE = 16
_JSON = "application/json"


class _Handler(BaseHTTPRequestHandler):
    server_version = "jivs"
    sys_version = ""
    timeout = 10.0
    """Seconds that somebody may take to say what they want; also of silence while they read the answer."""
    exporter: ClassVar[Exporter]
    places: ClassVar[threading.BoundedSemaphore]

    def do_GET(self) -> None:
        if not self.places.acquire(blocking=False):
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, _JSON, _json({"status": "busy"}))
            return
        try:
            self._answer(*self._found())
        finally:
            self.places.release()

    do_HEAD = do_GET  # noqa: N815 - the base class names it so

    def _found(self) -> tuple[HTTPStatus, str, bytes]:
        match urlsplit(self.path).path.rstrip("/"):
            case "/metrics":
                body, content_type = self.exporter.metrics(self.headers.get("accept", ""))
                return HTTPStatus.OK, content_type, body
            case "/health/live":
                return HTTPStatus.OK, _JSON, _json({"status": "ok"})
            case "/health/ready":
                health = self.exporter.health()
                status = HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE
                return status, _JSON, _json(health.document())
            case _:
                there = ["/metrics", "/health/live", "/health/ready"]
                return HTTPStatus.NOT_FOUND, _JSON, _json({"status": "not found", "there": there})

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.send_header("cache-control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except OSError:
            self.close_connection = True  # whoever asked has gone

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Nothing: a line every few seconds tells nobody anything."""


def _json(document: Any) -> bytes:
    return (json.dumps(document, ensure_ascii=False) + "\n").encode()


def serve(exporter: Exporter, host: str, port: int) -> ThreadingHTTPServer:
    """A server that listens already; run it with `serve_forever`.

    Raises:
        ConflictError: the port is taken, or the address is not ours.
    """
    handler = type(
        "Handler", (_Handler,), {"exporter": exporter, "places": threading.BoundedSemaphore(_MOST_AT_ONCE)}
    )
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        raise ConflictError(
            f"Port {port} of {host} cannot be used: {error.strerror}",
            hint="Stop what listens there, or choose another with --port or JIVS_METRICS_PORT",
        ) from None
    server.daemon_threads = True
    return server
