"""The webhook: one HTTP POST per event, signed, to one endpoint.

What belongs here: the request and its signature. What does not: order, attempts and marks (`engine/relay.py`).

Redirects are refused, for the body is signed for one receiver, and so are proxies of the environment. Neither URL nor
secret appear in an error: the URL of a webhook often is a secret itself.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
import threading
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from jivs_pipeline.core.errors import ConfigError, TransientError
from jivs_pipeline.core.events import Event

__all__ = ["HttpWebhook", "signature"]

_ANSWER_SECONDS, _WHOLE_SECONDS = 5.0, 10.0


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`v1=` and the hex HMAC-SHA256 of `<timestamp>.<body>`."""
    signed = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1={signed.hexdigest()}"


class HttpWebhook:
    """An endpoint that events are posted to. Thread-safe.

    Args:
        url: http or https.
        secret: signs what is posted.

    Raises:
        ConfigError: the URL is none, or there is no secret.
    """

    def __init__(self, url: SecretStr, secret: SecretStr | None) -> None:
        try:
            parts = urlsplit(url.get_secret_value())
            port = parts.port
        except ValueError:
            raise _unusable() from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
            raise _unusable()
        if secret is None:
            raise ConfigError(
                "JIVS_WEBHOOK_URL is set without JIVS_WEBHOOK_SECRET",
                hint="Set a secret that the receiver verifies the signature with",
            )
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._secret = secret

    def post(self, event: Event) -> None:
        """Post an event; 2xx acknowledges it.

        Raises:
            TransientError: any other answer, or none in time.
        """
        body, timestamp = event.document().encode(), str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "Jivs-Event-Id": event.id,
            "Jivs-Timestamp": timestamp,
            "Jivs-Signature": signature(self._secret.get_secret_value(), timestamp, body),
        }
        link = self._link()
        # The timeout is of one read; a receiver that sends a byte now and then must not hold us for ever.
        alarm = threading.Timer(_WHOLE_SECONDS, _end, (link,))
        alarm.daemon = True
        alarm.start()
        try:
            link.request("POST", self._path, body, headers)
            status = link.getresponse().status
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransientError(f"The webhook does not answer ({type(error).__name__})") from None
        finally:
            alarm.cancel()
            link.close()
        if not 200 <= status < 300:
            raise TransientError(f"The webhook answered {status}", hint="It has to answer 2xx itself")

    def _link(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=_ANSWER_SECONDS)
        return http.client.HTTPSConnection(self._host, self._port, timeout=_ANSWER_SECONDS, context=self._tls)


def _end(link: http.client.HTTPConnection) -> None:
    socket: Any = link.sock
    if socket is not None:
        with suppress(OSError):
            socket.shutdown(2)


def _unusable() -> ConfigError:
    return ConfigError(
        "JIVS_WEBHOOK_URL is not usable", hint="Use https://host/path, without a user or password in it"
    )
