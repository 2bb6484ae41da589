"""CONTRACT.md as checks: which keys a document has, of which types, and what may be in it.

What belongs here: the shape. What does not: the numbers of a certain migration.
"""

from __future__ import annotations

from typing import Any

NUMBER = (int, float)
PHASES = ["plan", "extract", "transform", "validate", "load", "verify", "finish"]
STATUSES = {"queued", "running", "paused", "completed", "failed", "cancelled", "rolled_back", "mismatch"}
EVENT_TYPES = {
    f"migration.{t}"
    for t in (
        "queued", "started", "phase", "table_loaded", "paused", "resumed", "retried", "failed", "cancelled",
        "rolled_back", "completed",
    )
}  # fmt: skip


def check_keys(document: Any, types: dict[str, Any], where: str) -> None:
    """Every key is there and of its type. A bool is no number."""
    assert isinstance(document, dict), f"{where} is {document!r}"
    assert not (missing := sorted(set(types) - set(document))), f"{where} lacks {missing}"
    for key, allowed in types.items():
        value = document[key]
        kinds = allowed if isinstance(allowed, tuple) else (allowed,)
        assert isinstance(value, kinds), f"{where}.{key} is {value!r}"
        assert not isinstance(value, bool) or bool in kinds, f"{where}.{key} is {value!r}"


def check_run(document: Any, status: str = "completed") -> None:
    """The document of `jivs run`, also of one that did nothing."""
    none = type(None)
    check_keys(
        document,
        {
            "key": str, "run_id": str, "status": str, "resumed": bool, "tables": list, "rows": int, "bytes": int,
            "seconds": NUMBER, "phases": dict, "report": (str, none), "error": (dict, none),
        },
        "run",
    )  # fmt: skip
    assert document["status"] == status, document["error"]
    assert list(document["phases"]) == PHASES
    assert all(isinstance(s, NUMBER) and s >= 0 for s in document["phases"].values())
    assert document["tables"], "a document without tables"
    for table in document["tables"]:
        check_keys(
            table,
            {
                "source_table": str, "target_table": str, "source_rows": int, "target_rows": int, "quarantined_rows": int,
                "chunks": int, "lane": str, "verified": (bool, none), "error": (dict, none),
            },
            f"run.tables.{table.get('source_table')}",
        )  # fmt: skip
        if table["error"] is not None:
            check_keys(table["error"], {"message": str, "column": (str, none)}, "run.tables.error")
    assert document["rows"] == sum(t["target_rows"] for t in document["tables"])
    if status == "completed":
        assert document["error"] is None
        assert document["seconds"] > 0
        assert document["bytes"] > 0 or document["rows"] == 0
        for table in document["tables"]:
            assert table["verified"] is True, table
            assert table["source_rows"] == table["target_rows"], table
            assert table["chunks"] >= 1, table
    else:
        check_error(document)


def check_error(document: Any) -> dict[str, str]:
    """An error document; returns what is in it. The sentence is one line, without a traceback."""
    check_keys(document, {"error": dict}, "document")
    error = document["error"]
    check_keys(error, {"code": str, "message": str, "hint": str}, "error")
    assert error["message"]
    assert "\n" not in error["message"]
    assert "Traceback" not in error["message"]
    return error


def check_status(document: Any) -> None:
    """The document of `jivs status KEY`."""
    none = type(None)
    check_keys(
        document,
        {
            "key": str, "status": str, "phase": (str, none), "run_id": (str, none), "rows": int, "total_rows": int,
            "bytes": int, "rate": (*NUMBER, none), "eta_seconds": (*NUMBER, none), "retries": int, "quarantined": int,
            "error": (dict, none),
        },
        "status",
    )  # fmt: skip
    assert document["status"] in STATUSES
    assert document["phase"] in {*PHASES, None}
