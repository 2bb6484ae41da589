"""The webhook: what a receiver gets, in which order, and how it can tell that it is ours.

What belongs here: `infra/webhook.py` and the relay's posts, against a real HTTP server. What does not: the stream.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from jivs_pipeline.core.errors import ConfigError, TransientError
from jivs_pipeline.core.events import Event
from jivs_pipeline.engine.relay import Relay
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.event_stream import EventStream
from jivs_pipeline.infra.webhook import HttpWebhook
from jivs_pipeline_tests.event_rows import add_events

_SECRET = "s3cret-of-the-webhook"
_DOCUMENT = Path(__file__).parents[2] / "docs" / "events.md"
_EVENT = Event("k", 1, "migration.phase", "2026-01-01T00:00:00+00:00", '{"phase": "lädt"}')


class Receiver:
    """An HTTP server that keeps what it gets, and answers as it is told."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.delay = 0.0
        self.begun = 0
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.begun += 1
                time.sleep(receiver.delay)
                status = receiver.answers.pop(0) if receiver.answers else 204
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"{receiver.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook?token=t0ken"

    def webhook(self) -> HttpWebhook:
        return HttpWebhook(SecretStr(self.url), SecretStr(_SECRET))

    @property
    def ids(self) -> list[str]:
        return [json.loads(body)["id"] for _, body in self.got]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def control(control: Control) -> Control:
    control.outbox.webhook_begins()
    return control


@pytest.fixture
def make_relay(control: Control, receiver: Receiver) -> Iterator[Callable[[], Relay]]:
    stream = EventStream("redis://127.0.0.1:1/0", control.control_id())
    yield lambda: Relay(control.outbox, stream, receiver.webhook())
    stream.close()


def _verify() -> Callable[..., bool]:
    """The function of the consumers' documentation."""
    (code,) = re.findall(r"```python\n(def verified.*?)```", _DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(f"import hashlib, hmac, time\n{code}", names)
    return names["verified"]


def test_a_receiver_can_verify_what_it_gets(receiver: Receiver) -> None:
    """The documented check accepts ours and refuses another body, another time, another secret and an old one."""
    receiver.webhook().post(_EVENT)
    ((headers, body),) = receiver.got
    assert json.loads(body) == {
        "id": "k:1", "key": "k", "seq": 1, "type": "migration.phase", "at": "2026-01-01T00:00:00+00:00",
        "data": {"phase": "lädt"},
    }  # fmt: skip
    assert headers["jivs-event-id"] == "k:1"
    assert headers["content-type"] == "application/json"
    verified, stamp, signed = _verify(), headers["jivs-timestamp"], headers["jivs-signature"]
    assert abs(int(stamp) - time.time()) < 60
    assert verified(_SECRET, stamp, signed, body)
    assert not verified(_SECRET, stamp, signed, body.replace(b"k:1", b"k:2"))
    assert not verified(_SECRET, str(int(stamp) + 1), signed, body)
    assert not verified("another", stamp, signed, body)
    assert not verified(_SECRET, stamp, signed, body, now=time.time() + 600)


@pytest.mark.parametrize("status", [301, 307, 400, 410, 500])
def test_only_2xx_is_an_acknowledgement(receiver: Receiver, status: int) -> None:
    """A redirect is not followed: the body is for one receiver."""
    receiver.answers = [status]
    with pytest.raises(TransientError, match=f"answered {status}"):
        receiver.webhook().post(_EVENT)
    assert len(receiver.got) == 1


def test_a_silent_receiver_is_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jivs_pipeline.infra.webhook._ANSWER_SECONDS", 0.3)
    receiver.delay = 2
    began = time.monotonic()
    with pytest.raises(TransientError, match="does not answer"):
        receiver.webhook().post(_EVENT)
    assert time.monotonic() - began < 1.5


def test_a_receiver_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the answer does not."""
    monkeypatch.setattr("jivs_pipeline.infra.webhook._WHOLE_SECONDS", 0.6)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            link, _ = server.accept()
            with link, contextlib.suppress(OSError):
                for _ in range(60):
                    link.sendall(b"H")
                    time.sleep(0.1)

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        began = time.monotonic()
        with pytest.raises(TransientError):
            HttpWebhook(SecretStr(url), SecretStr(_SECRET)).post(_EVENT)
        assert time.monotonic() - began < 3
        thread.join(10)


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "https:///x?t0ken", "https://me:pw@h/x", "https://h:nope/", "h/x"]
)
def test_what_is_no_webhook_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ConfigError, match="JIVS_WEBHOOK_URL is not usable") as caught:
        HttpWebhook(SecretStr(url), SecretStr(_SECRET))
    assert url not in str(caught.value)
    with pytest.raises(ConfigError, match="without JIVS_WEBHOOK_SECRET"):
        HttpWebhook(SecretStr("https://h/x"), None)


def test_posts_are_in_order_and_each_is_marked(
    make_relay: Callable[[], Relay], receiver: Receiver, db: psycopg.Connection[Any]
) -> None:
    """Whatever the stream does: the webhook has marks of its own."""
    add_events(db, "a", 5)
    add_events(db, "b", 3)
    swept = make_relay().sweep()
    assert (swept.posted, swept.sent) == (2, 0)
    assert receiver.ids == [*(f"a:{n}" for n in range(1, 6)), *(f"b:{n}" for n in range(1, 4))]
    assert make_relay().sweep().posted == 0
    marks = db.execute("SELECT count(webhook_at), count(delivered_at) FROM jivs.migration_events").fetchone()
    assert marks == (8, 0)


def test_what_happened_before_there_was_a_webhook_is_not_for_it(
    make_relay: Callable[[], Relay], receiver: Receiver, db: psycopg.Connection[Any]
) -> None:
    add_events(db, "k", 3)
    db.execute("UPDATE jivs.migration_events SET at = at - interval '1 day'")
    add_events(db, "k", 1)
    make_relay().sweep()
    assert receiver.ids == ["k:4"]


def test_while_one_posts_nobody_else_does(
    make_relay: Callable[[], Relay], receiver: Receiver, db: psycopg.Connection[Any]
) -> None:
    add_events(db, "k", 2)
    receiver.delay, relays, deadline = 0.7, (make_relay(), make_relay()), time.monotonic() + 10
    first = threading.Thread(target=relays[0].send, args=("k",), kwargs={"attempts": 1})
    first.start()
    while not receiver.begun:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    relays[1].send("k", attempts=1)
    first.join(10)
    assert receiver.ids == ["k:1", "k:2"]


def test_posters_at_once_keep_the_order(
    make_relay: Callable[[], Relay], receiver: Receiver, db: psycopg.Connection[Any]
) -> None:
    """Six of them, some answers refused: the first that is acknowledged of each event comes in order."""
    receiver.delay, receiver.answers = 0.002, [204, 500, 204, 204, 503] * 3
    done, errors = threading.Event(), list[BaseException]()

    def work() -> None:
        relay = make_relay()
        try:
            while not done.is_set():
                relay.send("a")
                relay.send("b")
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        add_events(db, "a", 4)
        add_events(db, "b", 4)
    waiting, deadline = (
        "SELECT count(*) FROM jivs.migration_events WHERE webhook_at IS NULL",
        time.monotonic() + 60,
    )
    while db.execute(waiting).fetchone() != (0,):
        assert time.monotonic() < deadline
        db.execute("UPDATE jivs.webhook_claims SET until = now() WHERE holder IS NULL")
        time.sleep(0.02)
    done.set()
    for thread in threads:
        thread.join(30)
    assert not errors
    for key in "ab":
        got = [name for name in receiver.ids if name.startswith(key)]
        assert [name for name, _ in groupby(got)] == [f"{key}:{n}" for n in range(1, 21)]


def test_a_failure_is_recorded_and_the_receiver_left_alone_for_longer_each_time(
    make_relay: Callable[[], Relay],
    receiver: Receiver,
    db: psycopg.Connection[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing that follows is posted before it; neither the URL nor the secret is anywhere."""
    add_events(db, "k", 2)
    receiver.answers = [500] * 5
    pauses: list[float] = []
    with caplog.at_level(logging.DEBUG):
        for number in (1, 2, 3):
            assert make_relay().sweep().failed == 2, "the stream and the webhook"
            assert make_relay().sweep().failed == 1, "the webhook is left alone"
            assert receiver.ids == ["k:1"] * number
            row = db.execute(
                "SELECT extract(epoch FROM until - now())::float8 FROM jivs.webhook_claims"
            ).fetchone()
            assert row is not None
            pauses.append(row[0])
            db.execute("UPDATE jivs.webhook_claims SET until = now()")
    assert pauses[0] < pauses[1] < pauses[2] <= 20
    found = db.execute(
        "SELECT seq, attempt, error FROM jivs.migration_event_failures WHERE receiver = 'webhook' ORDER BY id"
    ).fetchall()
    assert found == [(1, n, "The webhook answered 500") for n in (1, 2, 3)]
    assert "t0ken" not in caplog.text
    assert _SECRET not in caplog.text
    receiver.answers = []
    make_relay().sweep()
    assert receiver.ids[3:] == ["k:1", "k:2"]
    assert db.execute("SELECT failures, holder FROM jivs.webhook_claims").fetchone() == (0, None)
