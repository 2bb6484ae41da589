"""Connections: a name and a URL. Only the name ever leaves this process.

What belongs here: parsing and checking URLs, finding the URL of a name, fingerprints.
What does not: opening anything (`infra/`), reading files or the environment (`runtime.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from jivs_pipeline.core.errors import ConfigError
from jivs_pipeline.core.names import did_you_mean, is_connection_name, name_from_text, short_hash
from jivs_pipeline.core.odbc_strings import ODBC_PARAMETERS, odbc_problem

__all__ = ["MYSQL_SSL_MODES", "Connection", "ConnectionBook", "holds_password", "parse_url", "redact"]

_SCHEMES = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
    "csv": "csv",
    "parquet": "parquet",
    "mssql": "mssql",
    "oracle": "oracle",
    "odbc": "odbc",
}
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433, "oracle": 1521}
_FILE_DIALECTS = frozenset({"sqlite", "csv", "parquet"})

# libpq also knows service, passfile and options: they make the client read files or set server
# parameters that somebody else chose, so a URL may not carry them.
_POSTGRESQL_PARAMETERS = frozenset(
    {
        "application_name",
        "channel_binding",
        "connect_timeout",
        "dbname",
        "gssencmode",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "password",
        "port",
        "require_auth",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    }
)
# The names of MySQL's own clients. Text is always read as utf8mb4, and files are never read for the server.
_MYSQL_PARAMETERS = frozenset({"connect_timeout", "ssl-ca", "ssl-cert", "ssl-key", "ssl-mode"})
MYSQL_SSL_MODES = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
"""Values of `ssl-mode`, weakest first; `preferred` unless a URL says otherwise."""
_REFUSED_PARAMETERS = frozenset(
    {"service", "passfile", "options", "charset", "local_infile", "local-infile", "allowloadlocalinfile"}
)
_ALLOWED = {
    "postgresql": _POSTGRESQL_PARAMETERS,
    "mysql": _MYSQL_PARAMETERS,
    "odbc": ODBC_PARAMETERS,
    "oracle": frozenset({"protocol"}),
    "mssql": frozenset(
        {"applicationintent", "driver", "encrypt", "hostnameincertificate", "trustservercertificate"}
    ),
}
_ODBC_DIALECTS = frozenset({"odbc", "mssql"})
"""Spoken through drivers, which read their keywords in any case."""
_TRUSTED_ROOTS = (
    "/etc/ssl/",
    "/etc/pki/",
    "/usr/share/ca-certificates/",
    "/usr/local/share/ca-certificates/",
)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Greedy: a password with an @ or a / in it goes whole, even if text behind it goes, too.
_PASSWORD = re.compile(r"(?i)(?P<scheme>[a-z][a-z0-9+.-]*://[^\s/:]*):\S+@")
_URL_PARAMETER = re.compile(r"(?i)[a-z]://\S*[?&;](?:password|passwd|pwd)=")
_PASSWORD_PARAMETER = re.compile(
    r"""(?xi)
    (?P<name> (?:password|passwd|pwd) (?: \s*=\s* | ["']\s*:\s* ))
    (?:
        (?: '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | \{[^}]*\} ) (?= [\s,;&)\]}] | $ )
        # A quote that ends a JSON string stays, so that a document remains one.
        | (?: [^\s&"] | "(?![,}\]:\s]|$) )*
    )
    """
)


def holds_password(text: str) -> bool:
    """Whether there is a URL with a password in `text`, before its host or among its parameters."""
    return _PASSWORD.search(text) is not None or _URL_PARAMETER.search(text) is not None


def redact(text: str) -> str:
    """`text` without the passwords of URLs and of key=value connection strings in it."""
    return _PASSWORD_PARAMETER.sub(r"\g<name>***", _PASSWORD.sub(r"\g<scheme>:***@", text))


@dataclass(frozen=True, slots=True)
class Connection:
    """One end of a migration. `url` is a secret: it is kept out of `repr`, logs and documents."""

    name: str
    dialect: str
    url: str = field(repr=False)
    path: Path | None = None
    database: str = ""
    host: str = ""
    port: int | None = None

    @property
    def fingerprint(self) -> str:
        """Identifies the place, not the way in: same server and database, same fingerprint."""
        if self.path is not None:
            return short_hash(self.dialect, str(self.path))
        return short_hash(
            self.dialect, self.host, str(self.port or _PORTS.get(self.dialect, "")), self.database
        )

    @property
    def place(self) -> str:
        """For error sentences: where this is, without user or password."""
        if self.path is not None:
            return str(self.path)
        if self.dialect == "odbc" and not self.host:
            return self.database or "its data source"
        return f"{self.host or 'local socket'}{f':{self.port}' if self.port else ''}/{self.database}"


def _refuse(name: str | None, problem: str, hint: str) -> ConfigError:
    which = f"The URL of connection {name!r}" if name else "A URL on the command line"
    return ConfigError(f"{which} {problem}", hint=hint)


def _check_parameters(name: str | None, dialect: str, query: str, home: Path | None) -> dict[str, str]:
    # libpq takes a + as it is; only forms of web pages mean a space by it.
    pairs = parse_qsl(query.replace("+", "%2B") if dialect == "postgresql" else query, keep_blank_values=True)
    parameters = dict(pairs)
    if len({key.lower() for key in parameters} if dialect in _ODBC_DIALECTS else parameters) < len(pairs):
        raise _refuse(name, "has the same parameter twice", "Keep one of the two")
    allowed = _ALLOWED.get(dialect, frozenset[str]())
    for key, value in parameters.items():
        if key.lower() in _REFUSED_PARAMETERS:
            raise _refuse(
                name, f"carries the parameter {key!r}, which is refused", f"Remove {key} from the URL"
            )
        if (key.lower() if dialect in _ODBC_DIALECTS else key) not in allowed:
            raise _refuse(
                name, f"has the unknown parameter {key!r}", did_you_mean(key, allowed, "parameters")
            )
        if key == "ssl-mode" and value.lower() not in MYSQL_SSL_MODES:
            raise _refuse(name, "has an unknown ssl-mode", f"Use one of {', '.join(MYSQL_SSL_MODES)}")
        if (key == "sslrootcert" and value != "system") or key == "ssl-ca":
            trusted = (*_TRUSTED_ROOTS, *([f"{home}/certs/"] if home else []))
            path = str(Path(value).absolute())
            if ".." in value or not path.startswith(trusted):
                raise _refuse(
                    name,
                    f"has an {key} outside the allowed directories",
                    f"{'Use sslrootcert=system, a file' if key == 'sslrootcert' else 'Use a file'} under /etc/ssl, "
                    "or put it into $JIVS_HOME/certs",
                )
    return parameters


def _problem_of(rest: str) -> tuple[str, str] | None:
    """What our reading of a URL and the driver's might differ in, and what to do; `rest` follows the scheme's colon.

    Where they differ, a part of the password can end up in a host or database name, and those are printed.
    """
    if not rest.startswith("//"):
        return "lacks the // after its scheme", "Write SCHEME://user@host:port/database"
    if any(c.isspace() or not c.isprintable() for c in rest):
        return "holds a space or control character", "Write it percent-encoded, a space as %20"
    # libpq looks for the @ up to the first slash, even behind a question mark.
    server, _, path = rest[2:].partition("/")
    if server.count("@") > 1 or "@" in server.partition("?")[2] or "@" in path.partition("?")[0]:
        return (
            "holds an @ that does not stand before the host",
            "Write an @ in a user, password or database as %40",
        )
    if "#" in rest:
        return "holds a #", "Write it as %23"
    return None


def _file_connection(name: str | None, dialect: str, rest: str) -> Connection:
    # As in SQLAlchemy: sqlite:///rel.db is relative, sqlite:////abs.db absolute.
    text = unquote(rest.removeprefix("//"))
    if not text.startswith("/") or text in {"", "/"} or "\0" in text:
        raise _refuse(name, "has no file path", f"Write {dialect}:///relative or {dialect}:////absolute/path")
    path = Path(text[1:]).absolute()
    return Connection(
        name or name_from_text(path.stem, dialect),
        dialect,
        f"{dialect}:///{path}",
        path=path,
        database=path.stem,
    )


def _odbc_connection(name: str | None, url: str, parameters: Mapping[str, str]) -> Connection:
    dsn, port = parameters.get("dsn", ""), parameters.get("port", "")
    database = parameters.get("database", "") or parameters.get("databasename", "")
    return Connection(
        name or name_from_text(Path(database).stem, "odbc"),
        "odbc",
        url,
        # What a data source's name stands for is the machine's business, and its name nobody else's.
        database=database or (f"dsn-{short_hash(dsn)[:8]}" if dsn else ""),
        host=parameters.get("server") or parameters.get("hostname") or parameters.get("servernode") or "",
        port=int(port) if port.isdigit() else None,
    )


def parse_url(url: str, name: str | None = None, *, home: Path | None = None) -> Connection:
    """The connection that `url` describes; without a name, one is derived from the database or file.

    Raises:
        ConfigError: the URL has no known scheme, an unknown or a refused parameter, or no database.
    """
    scheme, separator, rest = url.strip().partition(":")
    dialect = _SCHEMES.get(scheme.lower().split("+")[0])
    if not separator or dialect is None:
        raise _refuse(
            name, "does not start with a known scheme", "Use " + ", ".join(f"{s}://" for s in _SCHEMES)
        )
    if dialect in _FILE_DIALECTS:
        path_part, _, query = rest.partition("?")
        _check_parameters(name, dialect, query, home)
        return _file_connection(name, dialect, path_part)
    if problem := _problem_of(rest):
        raise _refuse(name, *problem)
    try:
        parts = urlsplit(f"{dialect}:{rest}")
        port = parts.port
    except ValueError:
        raise _refuse(name, "cannot be read", "Check the host and the port in it") from None
    parameters = _check_parameters(name, dialect, parts.query, home)
    if dialect in _ODBC_DIALECTS:
        parameters = {key.lower(): value for key, value in parameters.items()}
        if problem := odbc_problem(parameters, has_server=dialect == "mssql", netloc=parts.netloc):
            raise _refuse(name, *problem)
    if dialect == "odbc":
        return _odbc_connection(name, f"odbc:{rest}", parameters)
    database = parameters.get("dbname") or unquote(parts.path.lstrip("/"))
    if (not database and dialect != "odbc") or "\0" in database:
        raise _refuse(name, "names no database", f"Write {dialect}://user@host:port/database")
    return Connection(
        name or name_from_text(database, dialect),
        dialect,
        urlunsplit(parts) if parts.netloc else f"{dialect}:{rest}",
        database=database,
        host=parameters.get("host") or (parts.hostname or ""),
        port=int(parameters["port"]) if parameters.get("port", "").isdigit() else port,
    )


def _variable_of(name: str) -> str:
    return f"JIVS_CONNECTION_{name.upper().replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class ConnectionBook:
    """Finds connections by name: those given by URL first, then the environment, then connections.yaml.

    Args:
        environment: where `JIVS_CONNECTION_<NAME>` and `${VARIABLE}` are looked up.
        file: the parsed content of connections.yaml, or empty.
        given: connections that a command line named by URL; never stored anywhere.
    """

    environment: Mapping[str, str] = field(repr=False)
    file: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)
    given: Mapping[str, Connection] = field(default_factory=dict[str, Connection])
    home: Path | None = None

    def names(self) -> list[str]:
        """All names known here, sorted."""
        prefix = "JIVS_CONNECTION_"
        from_environment = {n.removeprefix(prefix).lower() for n in self.environment if n.startswith(prefix)}
        return sorted({*self.given, *self.file, *from_environment})

    def resolve(self, name: str) -> Connection:
        """The connection called `name`.

        Raises:
            ConfigError: no such name, or its URL is unusable.
        """
        if name in self.given:
            return self.given[name]
        if not is_connection_name(name):
            raise ConfigError(
                f"{redact(name)!r} is not a connection name",
                hint="Use a-z, 0-9, _ and -; URLs go with --source and --target",
            )
        if url := self.environment.get(_variable_of(name)):
            return parse_url(url, name, home=self.home)
        if name in self.file:
            return parse_url(self._url_in_file(name), name, home=self.home)
        raise ConfigError(
            f"There is no connection called {name!r}",
            hint=f"Set {_variable_of(name)} or add it to connections.yaml. "
            f"{did_you_mean(name, self.names(), 'known connections')}",
        )

    def with_given(self, *connections: Connection) -> ConnectionBook:
        """A copy that also knows these connections."""
        given = {**self.given, **{c.name: c for c in connections}}
        return ConnectionBook(self.environment, self.file, given, self.home)

    def _url_in_file(self, name: str) -> str:
        entry = self.file[name]
        url: object = entry.get("url") if isinstance(entry, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if not isinstance(url, str) or len(entry) != 1:  # pyright: ignore[reportArgumentType]
            raise ConfigError(
                f"connections.yaml: {name!r} must be a mapping with just a url",
                hint=f"Write {name}: {{url: …}}",
            )

        def substitute(match: re.Match[str]) -> str:
            if (value := self.environment.get(match[1])) is None:
                raise ConfigError(
                    f"connections.yaml: {name!r} uses ${{{match[1]}}}, which is not set",
                    hint=f"Set {match[1]}",
                )
            return value

        return _VARIABLE.sub(substitute, url)
