"""The composition root: settings become opened objects here, and nowhere else is the environment read.

What belongs here: choosing implementations, reading `os.environ` and connections.yaml, embedded servers.
What does not: work. Nothing is opened before it is asked for.
"""

from __future__ import annotations

import logging
import os
import platform
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg
import yaml

from jivs_pipeline import __version__
from jivs_pipeline.core.claims import Claim, Ends
from jivs_pipeline.core.connections import Connection, ConnectionBook, parse_url
from jivs_pipeline.core.errors import ConfigError, JivsError
from jivs_pipeline.core.estimates import PastRun
from jivs_pipeline.core.permits import FREE, Permits
from jivs_pipeline.core.plan import Plan
from jivs_pipeline.core.ports import Source
from jivs_pipeline.core.requests import RequestRef
from jivs_pipeline.core.settings import LogLevel, Settings
from jivs_pipeline.core.signature import ReportKey
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Status
from jivs_pipeline.engine.migrate import Migration
from jivs_pipeline.engine.pace import Reserve
from jivs_pipeline.engine.progress import Progress
from jivs_pipeline.engine.relay import Relay, RelayThread
from jivs_pipeline.engine.services import Services
from jivs_pipeline.infra import ddl
from jivs_pipeline.infra.breaker_events import BreakerEvents
from jivs_pipeline.infra.breakers import Breakers, endpoint_name
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.embedded import Embedded, EmbeddedUrls, open_embedded, was_started
from jivs_pipeline.infra.event_stream import EventStream
from jivs_pipeline.infra.exporter import Exporter, Places
from jivs_pipeline.infra.failpoints import arm
from jivs_pipeline.infra.leases import Leases
from jivs_pipeline.infra.logs import write_logs
from jivs_pipeline.infra.past_runs import read_past_runs, read_since
from jivs_pipeline.infra.permits import EndpointPermits, PermitBook
from jivs_pipeline.infra.postgresql import connect
from jivs_pipeline.infra.rates import Rates
from jivs_pipeline.infra.redaction import redact_logs
from jivs_pipeline.infra.report_key import made_key, read_key
from jivs_pipeline.infra.request_cache import RequestCache
from jivs_pipeline.infra.requests import Requests
from jivs_pipeline.infra.rules.book import RuleBook
from jivs_pipeline.infra.rules.python_rule import PythonRules
from jivs_pipeline.infra.staging import Staging
from jivs_pipeline.infra.taking import Taking
from jivs_pipeline.infra.target import PostgresqlTarget
from jivs_pipeline.infra.watchdog import Watchdog, start_watchdog
from jivs_pipeline.infra.webhook import HttpWebhook
from jivs_pipeline.starting import give_back_large_blocks, leave_pandas_out

__all__ = ["DEMO_SOURCE", "DEMO_TARGET", "Runtime", "versions"]

_T = TypeVar("_T")

DEMO_SOURCE, DEMO_TARGET = "demo-flights", "demo-warehouse"
"""Connections that every home has: the bundled sample and the embedded PostgreSQL."""


class Runtime:
    """Opened objects of one process; close it when done.

    Args:
        settings: of this process.
        connections: finds URLs by name.
    """

    def __init__(self, settings: Settings, connections: ConnectionBook) -> None:
        self.settings = settings
        self.connections = connections
        self._embedded: Embedded | None = None
        url, secret = settings.webhook_url, settings.webhook_secret
        self._webhook = HttpWebhook(url, secret) if url else None
        self._events = RelayThread(lambda: self.relay)
        arm(settings.failpoint)

    @classmethod
    def from_environment(
        cls,
        *given: Connection,
        environment: Mapping[str, str] | None = None,
        defaults: Mapping[str, str] | None = None,
    ) -> Self:
        """Settings and connections of this process.

        Args:
            given: connections that the command line named by URL.
            environment: instead of `os.environ`, for tests.
            defaults: for variables that the environment does not set, where the caller's differ from the usual.
        """
        redact_logs(logging.getLogger())
        environment = {**(defaults or {}), **(os.environ if environment is None else environment)}
        settings = Settings.from_environment(environment)
        # At a terminal the progress tells how far it is; nobody looks at Dagster's processes while they work.
        in_dagster = bool(environment.get("DAGSTER_HOME"))
        usual: LogLevel = "info" if in_dagster else "warning"
        write_logs(settings.log_format, settings.log_level or usual, follow=in_dagster)
        file = _read_connections(settings.connections)
        book = ConnectionBook(dict(environment), file, home=settings.home).with_given(*given)
        return cls(settings, book)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release what was opened; embedded servers stop when their last user is gone."""
        self._events.stop()
        if "relay" in self.__dict__:
            self._stream.close()
        if "breakers" in self.__dict__:
            self.breakers.close()
        if "permits" in self.__dict__:
            self.permits.close()
        if "control" in self.__dict__:
            self.control.close()
        if "taking" in self.__dict__:
            self.taking.leases.close()
        if "_answers" in self.__dict__:
            self._answers.close()
        if "rates" in self.__dict__:
            self.rates.close()
        if self._embedded is not None:
            self._embedded.close()
            self._embedded = None

    @property
    def embedded(self) -> EmbeddedUrls:
        """The embedded servers, started where they do not run."""
        if self._embedded is None:
            self._embedded = open_embedded(self.settings.home)
        return self._embedded.urls

    @property
    def control_url(self) -> str:
        """URL of the control database."""
        return given.get_secret_value() if (given := self.settings.control_url) else self.embedded.control

    @property
    def dagster_url(self) -> str:
        """URL of Dagster's own storage."""
        return given.get_secret_value() if (given := self.settings.dagster_url) else self.embedded.dagster

    @property
    def redis_url(self) -> str:
        """URL of Redis or Valkey."""
        return given.get_secret_value() if (given := self.settings.redis_url) else self.embedded.redis

    @cached_property
    def control(self) -> Control:
        """The control database, opened and upgraded."""
        control = Control(
            self.control_url, timeout_seconds=self.settings.io_timeout_seconds, told=self._events.tell
        )
        control.open()
        if self._webhook is not None:
            control.outbox.webhook_begins()
        return control

    @cached_property
    def relay(self) -> Relay:
        """Sends events to the stream, and to the webhook where there is one."""
        settings = self.settings
        webhook = HttpWebhook(settings.webhook_url, settings.webhook_secret) if settings.webhook_url else None
        return Relay(self.control.outbox, self._stream, webhook)

    @cached_property
    def _stream(self) -> EventStream:
        return EventStream(self.redis_url, self.control.outbox.control_id())

    @cached_property
    def requests(self) -> Requests:
        """The queue of requests, with its cache."""
        return self.control.requests(self._answers)

    @cached_property
    def _answers(self) -> RequestCache:
        return RequestCache(self.redis_url)

    @cached_property
    def taking(self) -> Taking:
        """How this process takes migrations."""
        leases = Leases(self.redis_url, self.settings.lease_seconds)
        return Taking(leases, self.settings.lock_wait_seconds, self.control.refused)

    @cached_property
    def breakers(self) -> Breakers:
        """The circuit breakers of endpoints."""
        # Not worth starting servers for, as `jivs plan` would: whoever runs something has them already.
        alone = self.settings.redis_url is None and self._embedded is None
        events = BreakerEvents(
            self._running_control_url, io_timeout_seconds=min(5.0, self.settings.io_timeout_seconds)
        )
        return Breakers(
            None if alone else self.redis_url,
            events.write,
            patience_seconds=self.settings.io_timeout_seconds,
        )

    @cached_property
    def permits(self) -> PermitBook:
        """Leave for connections, counted over all processes."""
        return self.control.permits(
            lease_seconds=self.settings.lease_seconds, patience_seconds=self.settings.load_timeout_seconds
        )

    @cached_property
    def rates(self) -> Rates:
        """The time of sources whose rate is limited."""
        return Rates(self.redis_url)

    @property
    def shared_breakers(self) -> Breakers:
        """The breakers that all processes share, for whoever wants to see or change them."""
        if self.settings.redis_url is None:
            _ = self.embedded
        return self.breakers

    def _running_control_url(self) -> str:
        """URL of the control database, for threads: servers are started by the main thread only."""
        if self.settings.control_url is None and self._embedded is None:
            raise ConfigError("The control database was not opened", hint="Set JIVS_CONTROL_URL")
        return self.control_url

    @contextmanager
    def control_connection(self) -> Iterator[psycopg.Connection[Any]]:
        """The control database as it is, not upgraded."""
        connection = parse_url(self.control_url, "control")
        session = connect(
            connection, application_name="jivs db", io_timeout_seconds=self.settings.io_timeout_seconds
        )
        try:
            yield session
        finally:
            session.close()

    def past_runs(self) -> Sequence[PastRun]:
        """What migrations took before; nothing where no control database can be asked at once, which is not changed."""
        return self._glance(read_past_runs, ())

    def since(self, spec: Spec) -> int:
        """The epoch before which all that the migration has made in its target would be there before its next run."""
        return self._glance(lambda db: read_since(db, spec.key), 0) if spec.type == "incremental" else 0

    def _glance(self, read: Callable[[psycopg.Connection[Any]], _T], otherwise: _T) -> _T:
        if self.settings.control_url is None and not was_started(self.settings.home):
            return otherwise
        try:
            with self.control_connection() as db:
                return read(db)
        except (JivsError, psycopg.Error):
            return otherwise

    @property
    def sample_path(self) -> Path:
        """Where the demo's source is made."""
        return self.settings.home / "sample" / "flights.sqlite"

    def changes_since(self, plan: Plan) -> list[dict[str, Any]] | None:
        """What is otherwise in a plan than in that of its migration's last run; None where there was none."""
        from jivs_pipeline.engine.plan_changes import changes_between

        row = self.control.find(plan.key)
        if row is None or row["plan"] is None:
            return None
        return changes_between(Plan.model_validate(row["plan"]), plan)

    def resolve(self, name: str) -> Connection:
        """The connection called `name`: given, from the environment or a file, or one of the demo's."""
        if name in {DEMO_SOURCE, DEMO_TARGET} and name not in self.connections.names():
            url = f"sqlite:///{self.sample_path}" if name == DEMO_SOURCE else self.embedded.target
            return parse_url(url, name)
        return self.connections.resolve(name)

    def ends(self, spec: Spec) -> Ends:
        """Both connections of a spec, checked to be of a kind that this version moves."""
        ends = Ends(self.resolve(spec.source), self.resolve(spec.target))
        if ends.target.dialect != "postgresql":
            raise ConfigError(
                f"The target {spec.target!r} is {ends.target.dialect}, and only PostgreSQL can be a target",
                hint="Give a postgresql:// URL",
            )
        if (
            ends.source.fingerprint == ends.target.fingerprint
            and (spec.source_schema or "public") == spec.target_schema
        ):
            raise ConfigError(
                "Source and target are the same schema of the same database",
                hint="Choose another target_schema",
            )
        return ends

    @contextmanager
    def opened(self, spec: Spec, *, counted: bool = True) -> Iterator[tuple[Source, PostgresqlTarget]]:
        """Both ends of a spec, connected for as long as the block runs.

        Args:
            counted: whether connections count, which takes a control database.
        """
        ends = self.ends(spec)
        with (
            closing(self.open_source(ends.source, self._of_source(spec) if counted else FREE)) as source,
            closing(self.open_target(ends.target, self._of_target(spec) if counted else FREE)) as target,
        ):
            yield source, target

    @contextmanager
    def opened_target(self, spec: Spec) -> Iterator[PostgresqlTarget]:
        """The target of a spec, connected for as long as the block runs."""
        connection = self.resolve(spec.target)
        with closing(self.open_target(connection, self._of_target(spec))) as target:
            yield target

    def _of_source(self, spec: Spec) -> Permits:
        limit = spec.limits.source_connections
        return self._permits(spec, spec.source, "source", limit, "raise limits.source_connections")

    def _of_target(self, spec: Spec) -> Permits:
        # How many those are is the server's to say.
        return self._permits(spec, spec.target, "target", 0, "raise max_connections there")

    def _permits(self, spec: Spec, name: str, end: str, limit: int, limited_by: str) -> Permits:
        endpoint = f"{end} {endpoint_name(self.resolve(name))}"
        return EndpointPermits(self.permits, endpoint, f"{end} {name!r}", spec.key, limit, limited_by)

    def open_source(self, connection: Connection, permits: Permits = FREE) -> Source:
        """A source of the connection's dialect, connected."""
        calling = self.breakers.endpoint(connection).call
        served: dict[str, Any] = {
            "io_timeout_seconds": self.settings.io_timeout_seconds,
            "calling": calling,
            "permits": permits,
        }
        if connection.dialect == "sqlite":
            from jivs_pipeline.infra.sources.sqlite import SqliteSource

            return SqliteSource(connection, calling=calling)
        if connection.dialect == "postgresql":
            from jivs_pipeline.infra.sources.postgresql import PostgresqlSource

            return PostgresqlSource(connection, **served)
        if connection.dialect == "mysql":
            from jivs_pipeline.infra.sources.mysql import MysqlSource

            return MysqlSource(connection, **served)
        if connection.dialect in {"odbc", "mssql"}:
            from jivs_pipeline.infra.sources.odbc import OdbcSource

            return OdbcSource(connection, **served)
        if connection.dialect == "oracle":
            from jivs_pipeline.infra.sources.oracle import open_oracle

            return open_oracle(connection, **served)
        if connection.dialect == "csv":
            from jivs_pipeline.infra.sources.csv_files import CsvSource

            return CsvSource(connection, calling=calling)
        if connection.dialect == "parquet":
            from jivs_pipeline.infra.sources.parquet_files import ParquetSource

            return ParquetSource(connection, calling=calling)
        raise ConfigError(
            f"Connection {connection.name!r} is {connection.dialect}, which this version cannot read",
            hint="It reads postgresql, mysql, sqlite, odbc, mssql, oracle, csv and parquet",
        )

    def open_target(self, connection: Connection, permits: Permits = FREE) -> PostgresqlTarget:
        """The target, connected."""
        return PostgresqlTarget(
            connection,
            io_timeout_seconds=self.settings.io_timeout_seconds,
            load_timeout_seconds=self.settings.load_timeout_seconds,
            watch=self._watch,
            calling=self.breakers.endpoint(connection).call,
            permits=permits,
        )

    def _watch(self, connection: Connection, key: str, epoch: int) -> Watchdog:
        return start_watchdog(
            connection,
            key,
            epoch,
            io_timeout_seconds=self.settings.io_timeout_seconds,
            load_timeout_seconds=self.settings.load_timeout_seconds,
        )

    def report_key(self, *, make: bool = True) -> ReportKey:
        """The key that reports are signed with: the setting's, or the home's own.

        Args:
            make: whether a home without one gets one.

        Raises:
            JivsError: there is none.
        """
        if self.settings.report_key is not None:
            return ReportKey(os.fsencode(self.settings.report_key.get_secret_value()))
        path = self.settings.home / "report.key"
        key = made_key(path) if make else read_key(path)
        if key is None:
            raise ConfigError(
                f"There is no key to check with: no {path}, and JIVS_REPORT_KEY is not set",
                hint="Set JIVS_REPORT_KEY or JIVS_HOME to those of the process that wrote the report",
            )
        return key

    @property
    def rules(self) -> RuleBook:
        """The rules of specs, with what they need of the environment."""
        key = self.settings.mask_key
        python = PythonRules(self.settings.python_rules, self.settings.io_timeout_seconds)
        return RuleBook(python, key.get_secret_value().encode() if key else None)

    def services(self, request: RequestRef | None = None) -> Services:
        """What the engine needs; `request` is what it works for, if that is known."""
        return Services(
            control=self.control,
            staging=Staging(self.settings.staging_directory),
            builder=ddl,
            rules=self.rules,
            leases=self.taking.leases,
            ends=self.ends,
            opened=self.opened,
            opened_target=self.opened_target,
            take=partial(self._take, request=request),
            take_over=self._take_over,
            reports=self.settings.home / "reports",
            report_key=self.report_key,
            new_id=lambda: uuid.uuid4().hex[:12],
            versions=versions(),
            now=lambda: datetime.now(UTC),
            rate=self._rate,
            pulse_seconds=min(1.0, self.settings.lease_seconds / 3),
            patience_seconds=self.settings.io_timeout_seconds,
        )

    def migration(
        self, spec: Spec, run_id: str, progress: Progress | None = None, request: RequestRef | None = None
    ) -> Migration:
        """A run of `spec`, not yet begun."""
        give_back_large_blocks()
        leave_pandas_out()
        return Migration(self.services(request), spec, run_id, progress)

    def _rate(self, spec: Spec) -> Reserve:
        return partial(self.rates.reserve, endpoint_name(self.resolve(spec.source)))

    def _take(self, spec: Spec, run_id: str, floor: int, *, request: RequestRef | None) -> Claim | None:
        ends, lease = self.ends(spec), self.settings.lease_seconds
        return self.taking.take(
            spec.key,
            run_id,
            lambda owner: self.control.claim(
                spec, ends, owner, run_id, lease_seconds=lease, floor=floor, request=request
            ),
        )

    def _take_over(self, key: str, run_id: str, floor: int) -> Claim:
        lease = self.settings.lease_seconds
        return self.taking.take(
            key,
            run_id,
            lambda owner: self.control.take_over(
                key, owner, run_id, Status.ROLLED_BACK, lease_seconds=lease, floor=floor
            ),
        )

    def exporter(self) -> Exporter:
        """Looks at everything for metrics and health. Changes nothing, except that embedded servers get their schema."""
        if self.settings.control_url is None:
            _ = self.control
        return Exporter(
            Places(
                control_url=self.control_url,
                dagster_url=self.dagster_url,
                redis_url=self.redis_url,
                target_url=lambda name: self.resolve(name).url,
                ui_port=self.settings.ui_port,
                staging=self.settings.staging_directory,
            )
        )

    def dagster_environment(self) -> dict[str, str]:
        """What a process that runs Dagster must have in its environment; makes DAGSTER_HOME."""
        home = self.settings.home / "dagster"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_if_changed(home / "dagster.yaml", _bundled("dagster.yaml"))
        return {
            "DAGSTER_HOME": str(home),
            "JIVS_HOME": str(self.settings.home),
            "JIVS_CONTROL_URL": self.control_url,
            "JIVS_DAGSTER_URL": self.dagster_url,
            "JIVS_REDIS_URL": self.redis_url,
            "DAGSTER_DISABLE_TELEMETRY": "1",
        }


def write_if_changed(path: Path, text: str) -> None:
    """Write a small file atomically, and not at all when it already says so."""
    if path.exists() and path.read_text() == text:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def _bundled(name: str) -> str:
    """A file that is beside the package in a checkout and inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return (inside if inside.is_file() else package.parent / name).read_text()


def _read_connections(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"JIVS_CONNECTIONS: {path} cannot be read: {error.strerror}", hint="Correct the path"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"JIVS_CONNECTIONS: {path} is not YAML", hint="Write name: {url: …}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"JIVS_CONNECTIONS: {path} is not a mapping of names", hint="Write name: {url: …}")
    return content  # pyright: ignore[reportUnknownVariableType]


def versions() -> dict[str, str]:
    """What the report says it was made with."""
    from importlib.metadata import version

    return {"jivs_pipeline": __version__, "dagster": version("dagster"), "python": platform.python_version()}
