"""URLs of connections: what is read from them, what is refused, and where their names are looked up."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.connections import Connection, ConnectionBook, parse_url
from jivs_pipeline.core.errors import ConfigError, ExitCode

HOME = Path("/home/u/.jivs")


def refusal(url: str, **kwargs: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_url(url, "legacy", **kwargs)  # type: ignore
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "dialect", "host", "port", "database"),
    [
        ("postgresql://u:p@db.example:6000/sakila", "postgresql", "db.example", 6000, "sakila"),
        ("postgres://u@h/d", "postgresql", "h", None, "d"),
        ("postgresql+psycopg://u@h/d", "postgresql", "h", None, "d"),
        ("POSTGRESQL://h/Sakila", "postgresql", "h", None, "Sakila"),
        ("postgresql:///d", "postgresql", "", None, "d"),
        ("postgresql:///?host=/run/pg&dbname=d&port=7000", "postgresql", "/run/pg", 7000, "d"),
        ("postgresql://h/a?dbname=b", "postgresql", "h", None, "b"),
        ("postgresql://h/a%20b%2Fc", "postgresql", "h", None, "a b/c"),
        ("postgresql://h/d?dbname=a+b", "postgresql", "h", None, "a+b"),
        ("postgresql://[::1]:5432/d", "postgresql", "::1", 5432, "d"),
        ("mysql://u@h:3307/d", "mysql", "h", 3307, "d"),
        ("mariadb://u@h/d", "mysql", "h", None, "d"),
        ("mssql://h/d", "mssql", "h", None, "d"),
        ("oracle://h/d", "oracle", "h", None, "d"),
        ("odbc://?dsn=x", "odbc", "", None, "dsn-2d711642"),
    ],
)
def test_a_url_says_where_a_server_is(url, dialect, host, port, database):
    found = parse_url(url, "legacy")
    assert (found.name, found.dialect, found.host, found.port, found.database) == (
        "legacy",
        dialect,
        host,
        port,
        database,
    )
    assert found.url.startswith(f"{dialect}://")


@pytest.mark.parametrize("dialect", ["sqlite", "csv", "parquet"])
def test_three_slashes_are_relative_and_four_absolute(dialect, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = parse_url(f"{dialect}:///data/rel.db", "x")
    assert relative.path == tmp_path / "data" / "rel.db"
    absolute = parse_url(f"{dialect}:////abs.db", "x")
    assert absolute.path == Path("/abs.db")
    assert absolute.url == f"{dialect}:////abs.db"
    assert parse_url(relative.url, "x") == relative


def test_a_directory_may_end_with_a_slash():
    assert parse_url("csv:////data/dump/", "x").path == Path("/data/dump")


def test_a_path_may_be_percent_encoded():
    assert parse_url("sqlite:////a%20b%3Fc.db", "x").path == Path("/a b?c.db")


@pytest.mark.parametrize(
    "url", ["sqlite:", "sqlite://", "sqlite:///", "sqlite://rel.db", "sqlite:rel.db", "sqlite:///a%00b"]
)
def test_a_file_url_without_a_usable_path_is_refused(url):
    assert "has no file path" in refusal(url)


@pytest.mark.parametrize("url", ["", "legacy", "ftp://h/d", "http://h", "/tmp/x.db", "C:\\x.db", "://h/d"])
def test_an_unknown_scheme_is_refused_and_the_known_ones_named(url):
    text = refusal(url)
    assert "known scheme" in text
    assert "postgresql://" in text


@pytest.mark.parametrize("url", ["postgresql://h", "postgresql://h/", "mysql://u@h:3306/"])
def test_a_server_without_a_database_is_refused(url):
    assert "names no database" in refusal(url)


@pytest.mark.parametrize("url", ["postgresql://h:abc/d", "postgresql://h:99999/d", "postgresql://[::1/d"])
def test_a_url_that_cannot_be_read_is_refused(url):
    assert "cannot be read" in refusal(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:u:secret@h/d",  # libpq would take it for a connection string
        "postgresql:/u:secret@h/d",
        "postgresql:///u:secret@h/d",
        "postgresql://u:p@secret@h/d",  # libpq's host would be secret@h
        "postgresql://u:p/secret@h/d",
        "postgresql://u:p?secret@h/d",
        "postgresql://h?user=secret@x/d",  # libpq's user would be h?user=secret
        "postgresql://u:p#secret@h/d",
        "postgresql://h/d#secret",
        "postgresql://u:p secret@h/d",
        "postgresql://u:p\tsecret@h/d",
        "postgresql://u:p\nsecret@h/d",
        "postgresql://h/secret%00",
    ],
)
def test_a_url_that_the_driver_would_read_otherwise_is_refused_without_a_word_of_it(url):
    assert "secret" not in refusal(url)


@given(
    st.text(min_size=1),
    st.text(min_size=1),
    st.text(min_size=1).filter(lambda t: "\0" not in t and not t.startswith("/")),
)
def test_percent_encoding_carries_any_user_password_and_database(user, password, database):
    try:
        url = f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@h:1/{quote(database, safe='')}"
    except UnicodeEncodeError:
        return
    found = parse_url(url, "x")
    assert (found.host, found.port, found.database, found.url) == ("h", 1, database, url)


@pytest.mark.parametrize("parameter", ["service", "passfile", "options"])
@pytest.mark.parametrize("dialect", ["postgresql", "mysql", "sqlite", "odbc", "mssql"])
def test_parameters_that_hand_control_to_others_are_refused(parameter, dialect):
    assert parameter in refusal(f"{dialect}:////x/d?{parameter}=x")
    assert parameter in refusal(f"{dialect}:////x/d?%{ord(parameter[0]):x}{parameter[1:]}=x")
    assert parameter in refusal(f"{dialect}:////x/d?{parameter}")


def test_an_unknown_parameter_gets_the_nearest_known_one():
    text = refusal("postgresql://h/d?sslmod=require")
    assert "'sslmod'" in text
    assert "'sslmode'" in text
    assert "'ssl'" in refusal("mysql://h/d?ssl=1")
    assert "'mode'" in refusal("sqlite:////x?mode=rw")
    assert "'Service'" in refusal("postgresql://h/d?Service=x")


@pytest.mark.parametrize(
    "parameter",
    [
        "sslmode=verify-full",
        "connect_timeout=3",
        "application_name=x",
        "target_session_attrs=any",
        "user=u",
        "keepalives=1",
    ],
)
def test_ordinary_parameters_are_kept_for_the_driver(parameter):
    assert parse_url(f"postgresql://h/d?{parameter}", "x").url == f"postgresql://h/d?{parameter}"


@pytest.mark.parametrize(
    "parameter",
    ["ssl-mode=VERIFY_CA", "ssl-ca=/etc/ssl/ca.pem", "ssl-cert=c", "ssl-key=k", "connect_timeout=3"],
)
def test_mysqls_own_parameters_are_kept_for_the_driver(parameter):
    assert parse_url(f"mysql://h/d?{parameter}", "x").url == f"mysql://h/d?{parameter}"


def test_mysqls_parameters_that_change_what_is_read_are_refused():
    assert "'charset', which is refused" in refusal("mysql://h/d?charset=latin1")
    assert "'local_infile', which is refused" in refusal("mysql://h/d?local_infile=1")
    assert "unknown ssl-mode" in refusal("mysql://h/d?ssl-mode=maybe")
    assert "ssl-ca outside" in refusal("mysql://h/d?ssl-ca=/tmp/ca.pem")
    assert "'sslmode'" in refusal("mysql://h/d?sslmode=require")


def test_a_parameter_twice_is_refused():
    assert "twice" in refusal("postgresql://h/d?sslmode=verify-full&sslmode=disable")


@pytest.mark.parametrize(
    "value",
    ["system", "/etc/ssl/certs/ca.pem", "/etc/pki/ca.pem", "/home/u/.jivs/certs/ca.pem", "%2Fetc/ssl/x"],
)
def test_root_certificates_of_the_system_and_of_jivs_home_are_taken(value):
    assert parse_url(f"postgresql://h/d?sslrootcert={value}", "x", home=HOME).host == "h"


@pytest.mark.parametrize(
    "value",
    [
        "/tmp/ca.pem",
        "/etc/ssl/../../tmp/ca.pem",
        "/etc/sslx/ca.pem",
        "etc/ssl/ca.pem",
        "",
        "/etc/ssl",
        "//etc/ssl/x",
        "/home/u/.jivs/ca.pem",
    ],
)
def test_root_certificates_elsewhere_are_refused(value):
    assert "sslrootcert" in refusal(f"postgresql://h/d?sslrootcert={value}", home=HOME)


def test_without_a_home_only_the_systems_root_certificates_are_taken():
    assert "sslrootcert" in refusal("postgresql://h/d?sslrootcert=/home/u/.jivs/certs/ca.pem")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://h/Sakila%20DB", "sakila-db"),
        ("sqlite:////x/My.Shop.db", "my-shop"),
        ("sqlite:////x/日本.db", "sqlite"),
        ("odbc://?dsn=x", "odbc"),
    ],
)
def test_a_url_without_a_name_is_named_after_its_database(url, name):
    assert parse_url(url).name == name


def test_an_error_says_which_connection_or_that_it_was_a_url():
    with pytest.raises(ConfigError, match="connection 'legacy'"):
        parse_url("ftp://x", "legacy")
    with pytest.raises(ConfigError, match="A URL on the command line"):
        parse_url("ftp://x")


def test_a_url_is_not_part_of_what_is_printed():
    found = parse_url("postgresql://u:hunter2@h:1/d", "x")
    assert "hunter2" not in f"{found} {found!r} {found.place} {found.fingerprint}"
    assert found.place == "h:1/d"
    assert parse_url("postgresql:///d", "x").place == "local socket/d"
    assert parse_url("sqlite:////a/b.db", "x").place == "/a/b.db"


def fingerprint(url: str) -> str:
    return parse_url(url, "x").fingerprint


def test_the_fingerprint_is_of_the_place_and_not_of_the_way_in():
    assert fingerprint("postgresql://a:b@h/d") == fingerprint("postgresql://c:d@H:5432/d?sslmode=require")
    assert fingerprint("postgresql://h/d") == fingerprint("postgresql:///d?host=h")
    assert fingerprint("mysql://h/d") == fingerprint("mariadb://h:3306/d")
    assert parse_url("postgresql://h/d", "x").fingerprint == parse_url("postgresql://h/d", "y").fingerprint


def test_other_places_have_other_fingerprints():
    urls = [
        "postgresql://h/d", "postgresql://h/e", "postgresql://i/d", "postgresql://h:1/d", "mysql://h/d",
        "sqlite:////d", "sqlite:////e", "csv:////d",
    ]  # fmt: skip
    assert len({fingerprint(u) for u in urls}) == len(urls)


# Where names are looked up

LEGACY = {"JIVS_CONNECTION_LEGACY_DB": "postgresql://env/d"}
FILE = {"legacy-db": {"url": "postgresql://file/d"}, "other": {"url": "postgresql://u:${PW}@${HOST}/d"}}


def test_the_variable_is_upper_case_with_underscores():
    for name in ("legacy-db", "legacy_db"):
        assert ConnectionBook(LEGACY).resolve(name).host == "env"


def test_the_environment_goes_before_the_file_and_a_given_url_before_both():
    book = ConnectionBook(LEGACY, FILE)
    assert book.resolve("legacy-db").host == "env"
    assert ConnectionBook({}, FILE).resolve("legacy-db").host == "file"
    assert ConnectionBook({"JIVS_CONNECTION_LEGACY_DB": ""}, FILE).resolve("legacy-db").host == "file"
    given_one = book.with_given(parse_url("postgresql://given/d", "legacy-db"))
    assert given_one.resolve("legacy-db").host == "given"
    assert book.resolve("legacy-db").host == "env"


def test_the_file_takes_variables_from_the_environment():
    found = ConnectionBook({"PW": "p%40", "HOST": "h"}, FILE).resolve("other")
    assert found.url == "postgresql://u:p%40@h/d"


def test_what_a_variable_holds_is_not_expanded_again():
    assert "${HOST}" in ConnectionBook({"PW": "${HOST}", "HOST": "h"}, FILE).resolve("other").url


def test_a_missing_variable_is_named():
    with pytest.raises(ConfigError, match=r"\$\{PW\}, which is not set"):
        ConnectionBook({"HOST": "h"}, FILE).resolve("other")


@pytest.mark.parametrize(
    "entry",
    [None, "postgresql://h/d", {}, {"url": 1}, {"url": "postgresql://h/d", "x": 1}, ["url"], {"urls": "x"}],
)
def test_an_entry_of_the_file_is_a_mapping_with_just_a_url(entry):
    with pytest.raises(ConfigError, match=r"connections\.yaml: 'x'"):
        ConnectionBook({}, {"x": entry}).resolve("x")


def test_an_unknown_name_gets_the_variable_to_set_and_the_nearest_name():
    with pytest.raises(ConfigError) as caught:
        ConnectionBook(LEGACY, FILE).resolve("legacy-bd")
    assert "JIVS_CONNECTION_LEGACY_BD" in str(caught.value)
    assert "'legacy-db'" in str(caught.value) or "'legacy_db'" in str(caught.value)


def test_all_names_are_known():
    book = ConnectionBook(LEGACY, FILE).with_given(Connection("mine", "sqlite", "sqlite:////x"))
    assert book.names() == ["legacy-db", "legacy_db", "mine", "other"]


def test_a_url_in_place_of_a_name_is_refused_without_its_password():
    with pytest.raises(ConfigError) as caught:
        ConnectionBook({}).resolve("postgresql://u:hunter2@h/d")
    assert "not a connection name" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_book_does_not_print_its_urls():
    book = ConnectionBook(
        {"JIVS_CONNECTION_A": "postgresql://u:hunter2@h/d"}, {"b": {"url": "postgresql://u:hunter2@h/d"}}
    )
    assert "hunter2" not in repr(book.with_given(parse_url("postgresql://u:hunter2@h/d", "c")))
