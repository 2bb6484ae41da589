"""Source databases for tests and benchmarks, generated and not copied from anywhere.

What belongs here: builders that fill a database. What does not: fixtures (`fix_*.py`), the demo's sample
(`infra/sample.py`, part of the product) and databases of awkward values, which sit beside their tests.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sysconfig
import tempfile
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import LiteralString, TypeAlias

import psycopg
from psycopg import sql

__all__ = ["CHINOOK_ROWS", "TPCH_TABLES", "build_chinook_like", "load_tpch", "write_tpch_csv"]

# ── Chinook's shape ──────────────────────────────────────────────────────────────────────────────────────

# Tables in an order in which parents come first, with their rows: as many as in the original.
CHINOOK_ROWS = {
    "Artist": 275,
    "Genre": 25,
    "MediaType": 5,
    "Album": 347,
    "Track": 3503,
    "Playlist": 18,
    "PlaylistTrack": 8715,
    "Employee": 8,
    "Customer": 59,
    "Invoice": 412,
    "InvoiceLine": 2240,
}

# Structure as in the well-known database: bracketed names, named primary keys, unnamed foreign keys. A key
# of one INTEGER column is SQLite's rowid, although it is declared as a table constraint.
_CHINOOK_TABLES = """
CREATE TABLE [Artist] (
    [ArtistId] INTEGER NOT NULL,
    [Name] NVARCHAR(120),
    CONSTRAINT [PK_Artist] PRIMARY KEY ([ArtistId])
);
CREATE TABLE [Genre] (
    [GenreId] INTEGER NOT NULL,
    [Name] NVARCHAR(120),
    CONSTRAINT [PK_Genre] PRIMARY KEY ([GenreId])
);
CREATE TABLE [MediaType] (
    [MediaTypeId] INTEGER NOT NULL,
    [Name] NVARCHAR(120),
    CONSTRAINT [PK_MediaType] PRIMARY KEY ([MediaTypeId])
);
CREATE TABLE [Album] (
    [AlbumId] INTEGER NOT NULL,
    [Title] NVARCHAR(160) NOT NULL,
    [ArtistId] INTEGER NOT NULL,
    CONSTRAINT [PK_Album] PRIMARY KEY ([AlbumId]),
    FOREIGN KEY ([ArtistId]) REFERENCES [Artist] ([ArtistId]) ON DELETE NO ACTION ON UPDATE NO ACTION
);
CREATE TABLE [Track] (
    [TrackId] INTEGER NOT NULL,
    [Name] NVARCHAR(200) NOT NULL,
    [AlbumId] INTEGER,
    [MediaTypeId] INTEGER NOT NULL,
    [GenreId] INTEGER,
    [Composer] NVARCHAR(220),
    [Milliseconds] INTEGER NOT NULL,
    [Bytes] INTEGER,
    [UnitPrice] NUMERIC(10,2) NOT NULL,
    CONSTRAINT [PK_Track] PRIMARY KEY ([TrackId]),
    FOREIGN KEY ([AlbumId]) REFERENCES [Album] ([AlbumId]) ON DELETE NO ACTION ON UPDATE NO ACTION,
    FOREIGN KEY ([GenreId]) REFERENCES [Genre] ([GenreId]) ON DELETE NO ACTION ON UPDATE NO ACTION,
    FOREIGN KEY ([MediaTypeId]) REFERENCES [MediaType] ([MediaTypeId]) ON DELETE NO ACTION ON UPDATE NO ACTION
);
CREATE TABLE [Playlist] (
    [PlaylistId] INTEGER NOT NULL,
    [Name] NVARCHAR(120),
    CONSTRAINT [PK_Playlist] PRIMARY KEY ([PlaylistId])
);
CREATE TABLE [PlaylistTrack] (
    [PlaylistId] INTEGER NOT NULL,
    [TrackId] INTEGER NOT NULL,
    CONSTRAINT [PK_PlaylistTrack] PRIMARY KEY ([PlaylistId], [TrackId]),
    FOREIGN KEY ([PlaylistId]) REFERENCES [Playlist] ([PlaylistId]) ON DELETE NO ACTION ON UPDATE NO ACTION,
    FOREIGN KEY ([TrackId]) REFERENCES [Track] ([TrackId]) ON DELETE NO ACTION ON UPDATE NO ACTION
);
CREATE TABLE [Employee] (
    [EmployeeId] INTEGER NOT NULL,
    [LastName] NVARCHAR(20) NOT NULL,
    [FirstName] NVARCHAR(20) NOT NULL,
    [Title] NVARCHAR(30),
    [ReportsTo] INTEGER,
    [BirthDate] DATETIME,
    [HireDate] DATETIME,
    [Address] NVARCHAR(70),
    [City] NVARCHAR(40),
    [State] NVARCHAR(40),
    [Country] NVARCHAR(40),
    [PostalCode] NVARCHAR(10),
    [Phone] NVARCHAR(24),
    [Fax] NVARCHAR(24),
    [Email] NVARCHAR(60),
    CONSTRAINT [PK_Employee] PRIMARY KEY ([EmployeeId]),
    FOREIGN KEY ([ReportsTo]) REFERENCES [Employee] ([EmployeeId]) ON DELETE NO ACTION ON UPDATE NO ACTION
);
CREATE TABLE [Customer] (
    [CustomerId] INTEGER NOT NULL,
    [FirstName] NVARCHAR(40) NOT NULL,
    [LastName] NVARCHAR(20) NOT NULL,
    [Company] NVARCHAR(80),
    [Address] NVARCHAR(70),
    [City] NVARCHAR(40),
    [State] NVARCHAR(40),
    [Country] NVARCHAR(40),
    [PostalCode] NVARCHAR(10),
    [Phone] NVARCHAR(24),
    [Fax] NVARCHAR(24),
    [Email] NVARCHAR(60) NOT NULL,
    [SupportRepId] INTEGER,
    CONSTRAINT [PK_Customer] PRIMARY KEY ([CustomerId]),
    FOREIGN KEY ([SupportRepId]) REFERENCES [Employee] ([EmployeeId]) ON DELETE NO ACTION ON UPDATE NO ACTION
);
CREATE TABLE [Invoice] (
    [InvoiceId] INTEGER NOT NULL,
    [CustomerId] INTEGER NOT NULL,
    [InvoiceDate] DATETIME NOT NULL,
    [BillingAddress] NVARCHAR(70),
    [BillingCity] NVARCHAR(40),
    [BillingState] NVARCHAR(40),
    [BillingCountry] NVARCHAR(40),
    [BillingPostalCode] NVARCHAR(10),
    [Total] NUMERIC(10,2) NOT NULL,
    CONSTRAINT [PK_Invoice] PRIMARY KEY ([InvoiceId]),
    FOREIGN KEY ([CustomerId]) REFERENCES [Customer] ([CustomerId]) ON DELETE NO ACTION ON UPDATE NO ACTION
);
CREATE TABLE [InvoiceLine] (
    [InvoiceLineId] INTEGER NOT NULL,
    [InvoiceId] INTEGER NOT NULL,
    [TrackId] INTEGER NOT NULL,
    [UnitPrice] NUMERIC(10,2) NOT NULL,
    [Quantity] INTEGER NOT NULL,
    CONSTRAINT [PK_InvoiceLine] PRIMARY KEY ([InvoiceLineId]),
    FOREIGN KEY ([InvoiceId]) REFERENCES [Invoice] ([InvoiceId]) ON DELETE NO ACTION ON UPDATE NO ACTION,
    FOREIGN KEY ([TrackId]) REFERENCES [Track] ([TrackId]) ON DELETE NO ACTION ON UPDATE NO ACTION
);
"""

_CHINOOK_INDEXES = """
CREATE INDEX [IFK_AlbumArtistId] ON [Album] ([ArtistId]);
CREATE INDEX [IFK_CustomerSupportRepId] ON [Customer] ([SupportRepId]);
CREATE INDEX [IFK_EmployeeReportsTo] ON [Employee] ([ReportsTo]);
CREATE INDEX [IFK_InvoiceCustomerId] ON [Invoice] ([CustomerId]);
CREATE INDEX [IFK_InvoiceLineInvoiceId] ON [InvoiceLine] ([InvoiceId]);
CREATE INDEX [IFK_InvoiceLineTrackId] ON [InvoiceLine] ([TrackId]);
CREATE INDEX [IFK_PlaylistTrackPlaylistId] ON [PlaylistTrack] ([PlaylistId]);
CREATE INDEX [IFK_PlaylistTrackTrackId] ON [PlaylistTrack] ([TrackId]);
CREATE INDEX [IFK_TrackAlbumId] ON [Track] ([AlbumId]);
CREATE INDEX [IFK_TrackGenreId] ON [Track] ([GenreId]);
CREATE INDEX [IFK_TrackMediaTypeId] ON [Track] ([MediaTypeId]);
"""

# A word a line would be a page.
# fmt: off
_ADJECTIVES = (
    "Quiet", "Crooked", "Électric", "Paper", "Müde", "Слепой", "Velvet", "Northern", "Šedý", "Last", "Salt",
    "青い", "Hollow",
)
_NOUNS = (
    "Harbour", "Lanterns", "Świt", "Foxes", "Übergang", "Рельсы", "Orchard", "Señal", "Machine", "川",
    "Ångström", "Kites", "Dust",
)
_FIRST_NAMES = (
    "Ada", "Jörg", "Zoë", "Łukasz", "Noémie", "Søren", "Дарья", "Iñigo", "Mei", "Ömer", "Ruth", "Vít",
    "Aoife", "Tomás",
)
_LAST_NAMES = (
    "Okafor", "Müller", "O'Shea", "Çelik", "Nováková", "Лебедев", "Ibáñez", "Ng", "Sjöberg", "D'Amato",
    "Árnason",
)
_GENRES = (
    "Polka", "Drone", "Fado", "Chiptune", "Baião", "Ska", "Sea-Shanty", "Krautpop", "Lullaby", "Rebetiko",
)
# fmt: on
_STREETS = ("Long Lane", "Rue de l'Étang", "Große Straße", "Ulica Żabia", "Calle Ñandú", "Хвойная ул.")
# City, state, country, postal code: places without one or the other exist, hence the NULLs.
_PLACES = (
    ("Ålesund", None, "Norway", "6003"),
    ("Köln", "NRW", "Germany", "50667"),
    ("São Luís", "MA", "Brazil", "65000-000"),
    ("Galway", None, "Ireland", None),
    ("Łódź", None, "Poland", "90-001"),
    ("Springfield", "OR", "USA", "97477"),
    ("香港", None, "Hong Kong", None),
)
_MEDIA_TYPES = ("Wax cylinder", "Shellac", "Cassette, chrome", "MiniDisc", "Lossless file ♫")
# Their sum is the rows of PlaylistTrack; one holds every track, one none.
_PLAYLIST_SIZES = (3503, 2200, 1200, 600, 400, 300, 200, 120, 80, 50, 30, 15, 8, 5, 2, 1, 1, 0)


_Row: TypeAlias = tuple[str | int | float | None, ...]


def build_chinook_like(path: Path, seed: int = 1) -> None:
    """Write a SQLite database of Chinook's shape, 15,607 rows, to the new file `path`.

    The values are ours: random.Random(seed) over small word lists. Equal rows for an equal seed; invoice
    totals equal the sum of their lines to the cent.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        # A test that loses power starts again.
        db.executescript(f"PRAGMA synchronous = OFF; {_CHINOOK_TABLES}")
        db.execute("BEGIN")
        for table, rows in _chinook_rows(random.Random(seed)).items():
            marks = ", ".join("?" * len(rows[0]))
            db.executemany(f"INSERT INTO [{table}] VALUES ({marks})", rows)
        db.execute("COMMIT")
        db.executescript(_CHINOOK_INDEXES)


def _chinook_rows(rng: random.Random) -> dict[str, list[_Row]]:
    """All rows by table, parents first."""
    count = CHINOOK_ROWS
    price_cents = [rng.choice((99, 99, 99, 129, 199)) for _ in range(count["Track"])]
    employees = [_employee(rng, i) for i in range(1, count["Employee"] + 1)]
    customers = [_customer(rng, i) for i in range(1, count["Customer"] + 1)]
    invoices, lines = _invoices(rng, customers, price_cents)
    return {
        "Artist": [(i, _title(rng)) for i in range(1, count["Artist"] + 1)],
        "Genre": [(i, _GENRES[i % 10] + (f" {i // 10}" if i > 9 else "")) for i in range(count["Genre"])],
        "MediaType": list(enumerate(_MEDIA_TYPES, start=1)),
        "Album": [(i, _title(rng), rng.randint(1, count["Artist"])) for i in range(1, count["Album"] + 1)],
        "Track": [_track(rng, i, cents) for i, cents in enumerate(price_cents, start=1)],
        "Playlist": [(i, _title(rng)) for i in range(1, count["Playlist"] + 1)],
        "PlaylistTrack": [
            (playlist, track)
            for playlist, size in enumerate(_PLAYLIST_SIZES, start=1)
            for track in sorted(rng.sample(range(1, count["Track"] + 1), size))
        ],
        "Employee": employees,
        "Customer": customers,
        "Invoice": invoices,
        "InvoiceLine": lines,
    }


def _title(rng: random.Random) -> str:
    ending = rng.choice(("", " II", " (live)", " & Co.", "…"))
    return f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}{ending}"


def _track(rng: random.Random, track_id: int, cents: int) -> _Row:
    milliseconds = rng.randint(1_071, 5_286_953)
    composer = f"{rng.choice(_FIRST_NAMES)} {rng.choice(_LAST_NAMES)}" if rng.random() < 0.7 else None
    return (
        track_id,
        _title(rng),
        rng.randint(1, CHINOOK_ROWS["Album"]),
        rng.randint(1, CHINOOK_ROWS["MediaType"]),
        # Genres count from 0: a key of 0 is a value like any other.
        rng.randrange(CHINOOK_ROWS["Genre"]),
        composer,
        milliseconds,
        milliseconds * rng.randint(16, 320) // 8 if rng.random() < 0.98 else None,
        cents / 100,
    )


def _contact(rng: random.Random) -> _Row:
    """Address to Fax, as Employee and Customer have them."""
    phone = f"+1 (555) {rng.randint(100, 999)}-{rng.randint(0, 9999):04d}"
    fax = phone[:-1] + "9" if rng.random() < 0.2 else None
    return f"{rng.randint(1, 999)} {rng.choice(_STREETS)}", *rng.choice(_PLACES), phone, fax


def _employee(rng: random.Random, employee_id: int) -> _Row:
    return (
        employee_id,
        rng.choice(_LAST_NAMES),
        rng.choice(_FIRST_NAMES),
        ("General Manager", "Manager", "Clerk")[min(employee_id - 1, 2)],
        # A tree: the first reports to nobody.
        employee_id // 2 or None,
        f"{_moment(rng, 1947, 30):%Y-%m-%d} 00:00:00",
        f"{_moment(rng, 2002, 3):%Y-%m-%d} 00:00:00",
        *_contact(rng),
        f"staff{employee_id}@example.org",
    )


def _customer(rng: random.Random, customer_id: int) -> _Row:
    return (
        customer_id,
        rng.choice(_FIRST_NAMES),
        rng.choice(_LAST_NAMES),
        f"{rng.choice(_NOUNS)} Ltd." if rng.random() < 0.2 else None,
        *_contact(rng),
        f"customer{customer_id}@example.org",
        rng.randint(1, CHINOOK_ROWS["Employee"]),
    )


def _invoices(
    rng: random.Random, customers: list[_Row], price_cents: list[int]
) -> tuple[list[_Row], list[_Row]]:
    """Invoices and their lines: at least one line each, the others dealt at random."""
    count = CHINOOK_ROWS["Invoice"]
    extra = rng.choices(range(1, count + 1), k=CHINOOK_ROWS["InvoiceLine"] - count)
    totals = [0] * count
    lines: list[_Row] = []
    for line_id, invoice_id in enumerate(sorted([*range(1, count + 1), *extra]), start=1):
        track_id = rng.randint(1, len(price_cents))
        cents, quantity = price_cents[track_id - 1], rng.choice((1, 1, 1, 2))
        totals[invoice_id - 1] += cents * quantity
        lines.append((line_id, invoice_id, track_id, cents / 100, quantity))
    invoices: list[_Row] = []
    for invoice_id, total in enumerate(totals, start=1):
        customer = rng.choice(customers)
        day = f"{_moment(rng, 2021, 5):%Y-%m-%d} 00:00:00"
        # The customer's Address to PostalCode, as billed.
        invoices.append((invoice_id, customer[0], day, *customer[4:9], total / 100))
    return invoices, lines


def _moment(rng: random.Random, first_year: int, years: int) -> datetime:
    return datetime(first_year, 1, 1) + timedelta(days=rng.randrange(365 * years))  # noqa: DTZ001 - SQLite has no zones


# ── TPC-H ────────────────────────────────────────────────────────────────────────────────────────────────

# Columns and types of the specification; keys and indexes follow when the rows are there.
TPCH_TABLES: dict[str, LiteralString] = {
    "region": """
        r_regionkey integer NOT NULL, r_name char(25) NOT NULL, r_comment varchar(152)""",
    "nation": """
        n_nationkey integer NOT NULL, n_name char(25) NOT NULL, n_regionkey integer NOT NULL,
        n_comment varchar(152)""",
    "supplier": """
        s_suppkey bigint NOT NULL, s_name char(25) NOT NULL, s_address varchar(40) NOT NULL,
        s_nationkey integer NOT NULL, s_phone char(15) NOT NULL, s_acctbal numeric(15,2) NOT NULL,
        s_comment varchar(101) NOT NULL""",
    "customer": """
        c_custkey bigint NOT NULL, c_name varchar(25) NOT NULL, c_address varchar(40) NOT NULL,
        c_nationkey integer NOT NULL, c_phone char(15) NOT NULL, c_acctbal numeric(15,2) NOT NULL,
        c_mktsegment char(10) NOT NULL, c_comment varchar(117) NOT NULL""",
    "part": """
        p_partkey bigint NOT NULL, p_name varchar(55) NOT NULL, p_mfgr char(25) NOT NULL,
        p_brand char(10) NOT NULL, p_type varchar(25) NOT NULL, p_size integer NOT NULL,
        p_container char(10) NOT NULL, p_retailprice numeric(15,2) NOT NULL,
        p_comment varchar(23) NOT NULL""",
    "partsupp": """
        ps_partkey bigint NOT NULL, ps_suppkey bigint NOT NULL, ps_availqty integer NOT NULL,
        ps_supplycost numeric(15,2) NOT NULL, ps_comment varchar(199) NOT NULL""",
    "orders": """
        o_orderkey bigint NOT NULL, o_custkey bigint NOT NULL, o_orderstatus char(1) NOT NULL,
        o_totalprice numeric(15,2) NOT NULL, o_orderdate date NOT NULL, o_orderpriority char(15) NOT NULL,
        o_clerk char(15) NOT NULL, o_shippriority integer NOT NULL, o_comment varchar(79) NOT NULL""",
    "lineitem": """
        l_orderkey bigint NOT NULL, l_partkey bigint NOT NULL, l_suppkey bigint NOT NULL,
        l_linenumber integer NOT NULL, l_quantity numeric(15,2) NOT NULL,
        l_extendedprice numeric(15,2) NOT NULL, l_discount numeric(15,2) NOT NULL,
        l_tax numeric(15,2) NOT NULL, l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL,
        l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL,
        l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL, l_comment varchar(44) NOT NULL""",
}

_TPCH_KEYS = """
ALTER TABLE region ADD PRIMARY KEY (r_regionkey);
ALTER TABLE nation ADD PRIMARY KEY (n_nationkey);
ALTER TABLE supplier ADD PRIMARY KEY (s_suppkey);
ALTER TABLE customer ADD PRIMARY KEY (c_custkey);
ALTER TABLE part ADD PRIMARY KEY (p_partkey);
ALTER TABLE partsupp ADD PRIMARY KEY (ps_partkey, ps_suppkey);
ALTER TABLE orders ADD PRIMARY KEY (o_orderkey);
ALTER TABLE lineitem ADD PRIMARY KEY (l_orderkey, l_linenumber);
ALTER TABLE nation ADD FOREIGN KEY (n_regionkey) REFERENCES region;
ALTER TABLE supplier ADD FOREIGN KEY (s_nationkey) REFERENCES nation;
ALTER TABLE customer ADD FOREIGN KEY (c_nationkey) REFERENCES nation;
ALTER TABLE partsupp ADD FOREIGN KEY (ps_partkey) REFERENCES part;
ALTER TABLE partsupp ADD FOREIGN KEY (ps_suppkey) REFERENCES supplier;
ALTER TABLE orders ADD FOREIGN KEY (o_custkey) REFERENCES customer;
ALTER TABLE lineitem ADD FOREIGN KEY (l_orderkey) REFERENCES orders;
ALTER TABLE lineitem ADD FOREIGN KEY (l_partkey, l_suppkey) REFERENCES partsupp;
CREATE INDEX orders_custkey ON orders (o_custkey);
CREATE INDEX orders_orderdate ON orders (o_orderdate DESC, o_orderkey);
CREATE INDEX lineitem_part_supp ON lineitem (l_partkey, l_suppkey);
CREATE INDEX lineitem_shipdate ON lineitem (l_shipdate);
"""


def load_tpch(url: str, scale: float, schema: str = "public") -> dict[str, int]:
    """Make the TPC-H database of that scale in PostgreSQL 15 or newer; 1 is 8.66 million rows.

    The schema is created if missing and must not hold the tables yet. All in one transaction: there are
    all eight tables with rows, keys and indexes, analyzed, or none. Keys come after the rows, which is
    several times faster. Needs 1.1 GB of temporary disk per scale.

    Returns:
        Rows by table.
    """
    rows: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory(prefix="tpch-") as directory,
        psycopg.connect(url) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        cursor.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(schema)))
        cursor.execute("SET LOCAL maintenance_work_mem = '256MB'")
        for table, columns in TPCH_TABLES.items():
            cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(table), sql.SQL(columns)))
        for table, file in write_tpch_csv(Path(directory), scale).items():
            # MATCH: the server compares the header with the table's columns.
            copy_in = sql.SQL("COPY {} FROM STDIN (FORMAT csv, HEADER match, FREEZE)")
            with file.open("rb") as raw, cursor.copy(copy_in.format(sql.Identifier(table))) as copy:
                while chunk := raw.read(1 << 20):
                    copy.write(chunk)
            rows[table] = cursor.rowcount
            file.unlink()
        cursor.execute(_TPCH_KEYS)
        names = sql.SQL(", ").join(map(sql.Identifier, TPCH_TABLES))
        cursor.execute(sql.SQL("ANALYZE {}").format(names))
    return rows


def write_tpch_csv(directory: Path, scale: float) -> dict[str, Path]:
    """Write the eight TPC-H tables as CSV with a header, and return the files by table.

    Files, not one pipe per table: each start of the generator costs a second, for its pool of text.
    """
    # The venv's own, which need not be on PATH.
    program = Path(sysconfig.get_path("scripts")) / "tpchgen-cli"
    command = [program, "csv", "--scale-factor", str(scale), "--output-dir", directory, "--quiet"]
    subprocess.run(command, check=True)
    return {table: directory / f"{table}.csv" for table in TPCH_TABLES}
