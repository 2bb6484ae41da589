"""Mutants of rules, validation, quarantine, streaming and incremental runs."""

from jivs_pipeline_tests.mutants.running import Edit, Mutant

__all__ = ["RULES"]

_IN_TURN = "jivs_pipeline/infra/rules/in_turn.py"
_EXTRACT = "jivs_pipeline/engine/extract.py"
_INCREMENTAL = "jivs_pipeline/engine/incremental.py"
_REFINER = "jivs_pipeline/infra/rules/refiner.py"
_UNIT = "jivs_pipeline_tests/unit"
_WHOLE = "jivs_pipeline_tests/integration"
_REPLAY = (f"{_WHOLE}/test_replay.py::test_rules_that_are_others_make_the_rows_that_those_before_reject",)
_APART = (f"{_WHOLE}/test_converging.py::test_incremental_runs_keep_bad_rows_apart",)
_GOES_ON = (f"{_WHOLE}/test_ruled_runs.py::test_what_is_loaded_already_can_still_be_looked_into",)
_THERE = "test_a_table_that_was_there_takes_all_rows_that_it_can"
_REFUSED = (f"{_WHOLE}/test_refused.py::{_THERE}[sqlite-truncate]",)
_ALL_ROWS = (f"{_WHOLE}/test_ruled_runs.py::test_bad_rows_of_rules_are_taken_out_and_no_others[20000]",)

RULES = (
    Mutant(
        "refused rows are nowhere",
        "Rows that the target does not take are taken out without being kept.",
        (
            Edit(
                "jivs_pipeline/infra/target.py", "            keep(refusals.rows(db, right.key, table))\n", ""
            ),
        ),
        _REFUSED,
    ),
    Mutant(
        "refused rows are expected",
        "The ledger does not say what the target did not take, so that it seems to be missing.",
        (
            Edit(
                "jivs_pipeline/infra/target.py",
                'stored = {"refused": {str(chunk): digest.stored() for chunk, digest in found.items()}}',
                'stored = {"refused": {}}',
            ),
        ),
        _REFUSED,
    ),
    Mutant(
        "a refused row keeps others out",
        "Of two rows with one key both go where the first is bad by itself.",
        (
            Edit(
                "jivs_pipeline/infra/refusals.py",
                'still = _STILL.format(_KEPT, sql.SQL("a.place"))',
                'still = sql.SQL("true")',
            ),
        ),
        (f"{_WHOLE}/test_refused.py::test_a_bad_row_keeps_no_other_out",),
    ),
    Mutant(
        "new rules go first",
        "Rows that are in the target are compared with what the rules of a replay would make of them.",
        (Edit(_IN_TURN, "first, *later = self._refiners", "first, *later = reversed(self._refiners)"),),
        _REPLAY,
    ),
    Mutant(
        "new rules are not kept",
        "What a replay was given is forgotten, so nobody can tell afterwards how its rows were made.",
        (
            Edit(
                "jivs_pipeline/engine/replay.py",
                "with_retries(partial(services.control.quarantine.amend, claim, plan), guard, _tell_nobody)",
                "pass",
            ),
        ),
        _REPLAY,
    ),
    Mutant(
        "what waits in quarantine is compared",
        "A row that is good by now and not in the target yet counts as a difference.",
        (Edit("jivs_pipeline/infra/rules/again.py", "if not self._kept:", "if self._key:"),),
        _REPLAY,
    ),
    Mutant(
        "one bad row more than allowed",
        "The budget of a table is exceeded by one before the table fails.",
        (Edit("jivs_pipeline/engine/sifting.py", "if taken <= budget:", "if taken <= budget + 1:"),),
        _ALL_ROWS,
    ),
    Mutant(
        "values that are masked are shown",
        "Of a bad row the quarantine shows what a mask is to hide.",
        (
            Edit(
                _REFINER,
                "m.origin for m in self._rules.made if m.masked",
                "m.origin for m in self._rules.made if 0",
            ),
        ),
        (f"{_UNIT}/test_rules.py::test_what_is_masked_is_not_shown_of_a_bad_row",),
    ),
    Mutant(
        "NULL passes for required",
        "A rule that makes NULL of a required value is found by the target, in the middle of a load.",
        (Edit(_REFINER, "if required and one.input.null_count:", "if required and not one.input:"),),
        (f"{_UNIT}/test_rules.py::test_null_in_a_required_column_is_bad",),
    ),
    Mutant(
        "a failed validation does not stop",
        "Rows that do not pass a critical check are loaded.",
        (
            Edit(
                "jivs_pipeline/engine/migrate.py",
                "stopping = blocking(self.validation, strict=run.spec.strict)",
                "stopping = blocking(self.validation, strict=run.spec.strict)[:0]",
            ),
        ),
        _GOES_ON,
    ),
    Mutant(
        "what others need is not read again",
        "A run that goes on cannot look into tables that are loaded.",
        (Edit(_EXTRACT, "run_all(stage_again(run, snapshot, staged), workers, run.guard)", "pass"),),
        _GOES_ON,
    ),
    Mutant(
        "parts of a chunk have its bad rows",
        "Where a chunk is cut up to find what differs, its bad rows are read after all.",
        (
            Edit(
                _INCREMENTAL,
                "return chunk.model_copy(update=bounds)",
                "return Chunk(index=chunk.index, **bounds)",
            ),
        ),
        _APART,
    ),
    Mutant(
        "rows that rules reject are not kept",
        "An incremental run leaves them out and tells nobody.",
        (
            Edit(
                _EXTRACT,
                "rejected += self._sifting.reject(chunk, self._refined.bad_rows(table, chunk))",
                "pass",
            ),
        ),
        _APART,
    ),
    Mutant(
        "a watermark is believed",
        "What the column does not tell is not looked for.",
        (Edit(_INCREMENTAL, "elif not honest and", "elif not rest and"),),
        (f"{_UNIT}/test_incremental.py::test_a_watermark_is_a_hint_and_no_proof[True]",),
    ),
    Mutant(
        "streamed tables count as staged",
        "A run that goes on takes a table for staged of which nothing is anywhere.",
        (Edit("jivs_pipeline/engine/resume.py", "return not table.streamed and all(", "return all("),),
        (
            f"{_UNIT}/test_streaming.py::test_a_run_that_goes_on_reads_a_streamed_table_again_unless_it_is_loaded",
        ),
    ),
    Mutant(
        "bytes of a lost answer are forgotten",
        "A chunk that was committed without an answer is recorded with no bytes.",
        (
            Edit(
                "jivs_pipeline/engine/streaming.py",
                "run, table, snapshot = self._run, self._table, self._snapshot()",
                "run, table, snapshot, sent = self._run, self._table, self._snapshot(), [0]",
            ),
        ),
        (f"{_UNIT}/test_streaming.py::test_bytes_are_known_although_the_answer_to_the_commit_was_lost",),
    ),
)
