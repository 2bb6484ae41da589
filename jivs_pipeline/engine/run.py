"""What the phases of one run share: the claim, the plan, the open ports, and what each table has reached.

What belongs here: state of one run in this process, and the bookkeeping of tables. What does not: the
phases themselves (`extract.py`, `load.py`, `verify.py`) and their order (`migrate.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import Crowded, JivsError
from jivs_pipeline.core.names import short_hash
from jivs_pipeline.core.plan import Chunk, Lane, Plan, Range, TablePlan
from jivs_pipeline.core.ports import Snapshot, Source
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase
from jivs_pipeline.core.validation import CheckResult
from jivs_pipeline.engine.pace import Pace
from jivs_pipeline.engine.pool import Guard
from jivs_pipeline.engine.ports import Builder, Checkpoints, RuleBook, StagingArea, Target
from jivs_pipeline.engine.progress import Progress

__all__ = ["ChunkFile", "Extracted", "Run", "TableFailure", "claim", "expected", "take_permits"]


@dataclass(frozen=True, slots=True)
class ChunkFile:
    """One staged chunk: how many rows and bytes, the hash of the file, and the source's digest of the rows.

    `rejected` rows of the source are in none of these: they were taken out, and are in quarantine. Where only rows that may
    differ from the target's are staged, `ranges` are those of the chunk key that they are from, and the digest is still
    that of all rows.
    """

    index: int
    name: str
    rows: int
    bytes: int
    hash: str
    digest: Digest
    rejected: int = 0
    ranges: tuple[Range, ...] = ()

    def stored(self) -> dict[str, Any]:
        """JSON form for the manifest."""
        return {
            "index": self.index, "name": self.name, "rows": self.rows, "bytes": self.bytes,
            "hash": self.hash, "digest": self.digest.stored(), "rejected": self.rejected, "ranges": self.ranges,
        }  # fmt: skip

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> ChunkFile:
        """From the JSON form."""
        digest = Digest.parse(value["digest"])
        ranges = tuple((low, up) for low, up in value.get("ranges", ()))
        return cls(
            value["index"], value["name"], value["rows"], value["bytes"], value["hash"], digest,
            value.get("rejected", 0), ranges,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Extracted:
    """The manifest of one table: its chunks, the extraction they came from, and the next numbers."""

    generation: str
    chunks: tuple[ChunkFile, ...]
    next_values: Mapping[str, int]
    consistency: str
    refined: Mapping[str, int] | None = None
    """How many values and rows each rule has changed; None while the rows are as they were read."""
    sequences: Mapping[str, tuple[int, bool]] = field(default_factory=dict[str, tuple[int, bool]])
    """Where the sequences stood that are no column's own: the same in all manifests of an extraction."""
    refused: Mapping[int, Digest] = field(default_factory=dict[int, Digest])
    """Of the rows of each chunk that were loaded and the target did not take. Its ledger has it, so it is not stored."""

    @property
    def arriving(self) -> tuple[Digest, ...]:
        """Of each chunk, what should be in the target."""
        return tuple(c.digest - self.refused.get(c.index, Digest()) for c in self.chunks)

    @property
    def digest(self) -> Digest:
        """The source's digest of the whole table."""
        return sum((c.digest for c in self.chunks), Digest())

    @property
    def rows(self) -> int:
        """Rows in the staged chunks."""
        return sum(c.rows for c in self.chunks)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Of the chunk key, where the target may differ."""
        return tuple(r for c in self.chunks for r in c.ranges)

    @property
    def rejected(self) -> int:
        """Rows that were taken out."""
        return sum(c.rejected for c in self.chunks) + sum(d.rows for d in self.refused.values())

    @property
    def bytes(self) -> int:
        """Bytes of the staged chunks."""
        return sum(c.bytes for c in self.chunks)

    def regained(self, index: int, more: Digest) -> Extracted:
        """The same when rows of a chunk have left the quarantine for the target."""
        chunks = tuple(
            replace(c, digest=c.digest + more, rejected=c.rejected - more.rows) if c.index == index else c
            for c in self.chunks
        )
        return replace(self, chunks=chunks)

    def stored(self) -> dict[str, Any]:
        """JSON form, kept in the control database under the run's epoch."""
        return {
            "chunks": [c.stored() for c in self.chunks],
            "next_values": dict(self.next_values),
            "consistency": self.consistency,
            "refined": None if self.refined is None else dict(self.refined),
            "sequences": {name: list(at) for name, at in self.sequences.items()},
        }

    @classmethod
    def parse(cls, generation: str, value: Mapping[str, Any]) -> Extracted:
        """From the JSON form."""
        chunks = tuple(ChunkFile.parse(c) for c in value["chunks"])
        sequences = {name: (last, called) for name, (last, called) in value.get("sequences", {}).items()}
        return cls(
            generation, chunks, value["next_values"], value["consistency"], value.get("refined"), sequences
        )


@dataclass(frozen=True, slots=True)
class TableFailure:
    """Why a table failed. `rows_stand`: its rows are loaded, only what is built on them is missing."""

    message: str
    hint: str = ""
    column: str | None = None
    rows_stand: bool = False

    @classmethod
    def of(cls, error: JivsError, *, rows_stand: bool = False) -> TableFailure:
        """From an error of our tree."""
        return cls(error.message, error.hint, error.column, rows_stand)

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> TableFailure:
        """From the JSON form."""
        return cls(value["message"], value["hint"], value["column"], value["rows_stand"])

    def stored(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "message": self.message,
            "hint": self.hint,
            "column": self.column,
            "rows_stand": self.rows_stand,
        }


@dataclass(slots=True)
class Run:
    """One run in this process."""

    spec: Spec
    run_id: str
    control_id: str
    epoch: int
    owner: str
    source: Source
    target: Target
    staging: StagingArea
    checkpoints: Checkpoints
    builder: Builder
    rules: RuleBook
    guard: Guard
    progress: Progress
    pace: Pace
    plan: Plan
    extracted: dict[str, Extracted] = field(default_factory=dict[str, Extracted])
    """Target table -> manifest, for tables whose rows are staged or loaded."""
    generation: str = ""
    """Extraction that this run makes for the tables that have no manifest."""
    loaded: set[str] = field(default_factory=set[str])
    """Target tables whose load is finished."""
    validated: dict[str, list[CheckResult]] = field(default_factory=dict[str, "list[CheckResult]"])
    """Target table -> what its validations found, for tables that were checked as they are staged."""
    failures: dict[str, TableFailure] = field(default_factory=dict[str, TableFailure])
    claimed: bool = False
    since: int = 0
    """What the ledger has of earlier epochs was made by loads that are over."""
    snapshot: Snapshot | None = None
    """Held after the extraction until the last streamed chunk is loaded; None where nothing is streamed."""
    sequences: Mapping[str, tuple[int, bool]] = field(default_factory=dict[str, tuple[int, bool]])
    refusing: threading.Lock = field(default_factory=threading.Lock)
    """Held while a table's rows are looked through for those that the target refuses: its indexes are built side by side."""
    _held: ExitStack = field(default_factory=ExitStack)

    @property
    def key(self) -> str:
        """The migration key."""
        return self.spec.key

    @property
    def sound(self) -> list[TablePlan]:
        """Tables that are carried and have not failed."""
        return [t for t in self.plan.carried if t.target not in self.failures]

    def fail(self, table: TablePlan, phase: Phase, error: JivsError, *, rows_stand: bool = False) -> None:
        """Note that a table failed; the others go on. The first reason stands."""
        if table.target in self.failures:
            return
        self.failures[table.target] = failure = TableFailure.of(error, rows_stand=rows_stand)
        self.checkpoints.failed(table.target, phase, self.generation_of(table), failure.stored())

    def generation_of(self, table: TablePlan) -> str:
        """The extraction that the table's rows are of."""
        manifest = self.extracted.get(table.target)
        return manifest.generation if manifest else self.generation

    def hold(self, snapshot: Snapshot, sequences: Mapping[str, tuple[int, bool]], opened: ExitStack) -> None:
        """Keep the snapshot open for the load phase; `opened` closes it. `sequences` belong into its manifests."""
        self.snapshot, self.sequences, self._held = snapshot, sequences, opened

    def let_go(self) -> None:
        """Nothing more is read from the snapshot that is held, if one is."""
        self.snapshot, held = None, self._held
        held.close()

    def file_name(self, table: TablePlan, chunk: Chunk, *, refined: bool = False) -> str:
        """Name of a chunk's file: a hash, because table names are hostile."""
        ending = "copy" if table.lane is Lane.COPY else "arrow"
        ending = f"rules.{ending}" if refined else ending
        return f"{short_hash(table.target)}-{chunk.index}.{ending}"


def claim(run: Run) -> None:
    """Make this run the target's only writer. Not before the load: until then the target is untouched."""
    if not run.claimed:
        run.target.claim(run.key, run.control_id, run.epoch, run.owner)
        run.claimed = True


def take_permits(source: Source, target: Target, workers: int) -> None:
    """Leave to work in the target. Who must wait for it keeps nobody waiting for the source: that could be who has it.

    Raises:
        Crowded: the target has no room.
    """
    try:
        target.take_permits(workers)
    except Crowded:
        source.close()
        raise


def expected(tables: Iterable[TablePlan], extracted: Mapping[str, Extracted]) -> dict[str, int]:
    """Rows to expect per table: of the manifest where there is one, else of the plan."""
    return {t.target: extracted[t.target].rows if t.target in extracted else t.rows for t in tables}
