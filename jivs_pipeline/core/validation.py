"""What the validations of a migration have found, and what follows from it.

What belongs here: results, the score, and the decision. What does not: checking rows (`infra/rules/`), or acting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jivs_pipeline.core.plan import Check

__all__ = ["CheckResult", "blocking", "score"]

_WEIGHTS = {"critical": 5, "major": 3, "minor": 1}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check on one table: how many rows it looked at, how many did not pass, how many of those were quarantined."""

    table: str
    name: str
    kind: str
    severity: str
    rows: int
    failed: int
    quarantined: int = 0
    at_least: float = 1.0
    broken: str | None = None

    @classmethod
    def of(cls, table: str, check: Check, rows: int, failed: int, quarantined: int = 0) -> CheckResult:
        """The result of a check."""
        return cls(
            table,
            check.name,
            check.kind,
            check.severity,
            rows,
            failed,
            quarantined,
            check.at_least,
            check.broken,
        )

    @property
    def share(self) -> float:
        """Of the rows that pass, or are no longer there to fail."""
        if self.broken is not None:
            return 0.0
        return 1.0 if not self.rows else 1 - (self.failed - self.quarantined) / self.rows

    @property
    def passed(self) -> bool:
        """Whether enough rows do."""
        left = self.failed - self.quarantined
        return self.broken is None and (left == 0 or self.rows - left >= self.at_least * self.rows)

    def stored(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "table": self.table, "name": self.name, "kind": self.kind, "severity": self.severity, "rows": self.rows,
            "failed": self.failed, "quarantined": self.quarantined, "at_least": self.at_least, "broken": self.broken,
            "passed": self.passed,
        }  # fmt: skip

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> CheckResult:
        """From the JSON form."""
        return cls(**{k: v for k, v in value.items() if k != "passed"})

    @property
    def sentence(self) -> str:
        """What is wrong, for people."""
        if self.broken is not None:
            return f"{self.name} ({self.table}): {self.broken}"
        return f"{self.name} ({self.table}): {self.failed - self.quarantined:,} of {self.rows:,} rows do not pass"


def score(results: Iterable[CheckResult]) -> float | None:
    """0 to 100: the share of rows that pass, each check by its severity's weight; None where nothing was checked."""
    weighed = [(_WEIGHTS[r.severity], r.share) for r in results]
    if not weighed:
        return None
    return round(100 * sum(w * s for w, s in weighed) / sum(w for w, _ in weighed), 2)


def blocking(results: Sequence[CheckResult], *, strict: bool) -> list[CheckResult]:
    """The failures that the target must not see: critical ones, and with `strict` all."""
    return [r for r in results if not r.passed and (strict or r.severity == "critical")]
