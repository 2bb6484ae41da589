"""ODBC connection strings: what a URL may say, and how it is written for a driver manager.

What belongs here: keywords, refusals, quoting. What does not: parsing URLs (`connections.py`), opening anything.

Only keywords that say where the data is are taken. Others make drivers read and write files, load libraries or run
statements: FILEDSN, SAVEFILE, LoadExt, INITSTMT, ConnSettings, Trace, a driver that is a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["ODBC_PARAMETERS", "connection_string", "odbc_problem"]

ODBC_PARAMETERS = frozenset(
    {
        "applicationintent",
        "currentschema",
        "database",
        "databasename",
        "driver",
        "dsn",
        "encrypt",
        "hostname",
        "hostnameincertificate",
        "port",
        "protocol",
        "security",
        "server",
        "servernode",
        "sslmode",
        "sslvalidatecertificate",
        "trustservercertificate",
    }
)
"""What an odbc:// URL may hold, in lower case; drivers read their keywords in any case."""

# psqlODBC decodes + and % outside of braces.
_PLAIN = re.compile(r"[\w./:@-]+( [\w./:@-]+)*", re.ASCII)


def odbc_problem(
    parameters: Mapping[str, str], *, has_server: bool = False, netloc: str = ""
) -> tuple[str, str] | None:
    """What is wrong with a URL's parameters and what to do, or None.

    Args:
        has_server: the scheme says which driver it is, and the URL itself where.
        netloc: what stands between the slashes.
    """
    driver = parameters.get("driver", "")
    if "/" in driver or "\\" in driver:
        return "names a driver by its file", "Register it in odbcinst.ini and write its name there"
    if any("\0" in value for value in parameters.values()):
        return "holds a NUL character", "Remove it"
    if has_server:
        return None
    if bool(driver) == bool(parameters.get("dsn")):
        return "needs either a dsn or a driver", "Write odbc://?dsn=NAME, or odbc://?driver=NAME&server=HOST"
    if netloc.rpartition("@")[2]:
        return (
            "names a host before its parameters",
            "Write odbc://user:password@/?driver=NAME&server=HOST",
        )
    return None


def connection_string(attributes: Mapping[str, str]) -> str:
    """`KEY=value;…`, with a semicolon at the end: arrow-odbc appends more without one.

    What is not plain stands in braces, so that it cannot begin another keyword; a closing brace is doubled. Not all
    values, because psqlODBC takes braces for a part of a port.
    """
    return "".join(f"{key}={_spelled(value)};" for key, value in attributes.items() if value)


def _spelled(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else "{" + value.replace("}", "}}") + "}"
