"""Mutants of the order of things in a run, of staging, digests and the proof of death. Most need no server."""

from jivs_pipeline_tests.mutants.running import Edit, Mutant

__all__ = ["ENGINE"]

_DIGEST = "jivs_pipeline/core/digest.py"
_VALUES = "jivs_pipeline_tests/integration/test_value_hashes.py"
_DIGESTS = "jivs_pipeline/infra/digests.py"
_LOAD = "jivs_pipeline/engine/load.py"
_MIGRATE = "jivs_pipeline/engine/migrate.py"
_POOL = "jivs_pipeline/engine/pool.py"
_PULSE = "jivs_pipeline/engine/pulse.py"
_RESUME = "jivs_pipeline/engine/resume.py"
_STAGING = "jivs_pipeline/infra/staging.py"
_VERIFY = "jivs_pipeline/engine/verify.py"
_UNIT = "jivs_pipeline_tests/unit"

ENGINE = (
    Mutant(
        "staged file is not checked",
        "The hash of a staged file is not compared when it is loaded, so a flipped bit reaches the target.",
        (Edit(_STAGING, "if found.hexdigest() != digest:", "if found.hexdigest() is None:"),),
        (f"{_UNIT}/test_staging.py::test_one_changed_byte_is_noticed[0]",),
    ),
    Mutant(
        "death proved by process id",
        "A holder counts as alive as long as any process has its id, although ids are used again.",
        (
            Edit(
                "jivs_pipeline/infra/owner.py",
                "return start_ticks(pid) != process_start",
                "return start_ticks(pid) is None",
            ),
        ),
        (f"{_UNIT}/test_owner.py::test_another_process_of_the_same_id_is_not_the_one_that_held",),
    ),
    Mutant(
        "arrow files are not checked",
        "Only files of the copy lane are checked before they are loaded.",
        (
            Edit(
                _LOAD,
                "        run.staging.check(run.key, generation, file.name, file.hash)\n",
                "",
            ),
        ),
        (f"{_UNIT}/test_load.py::test_a_staged_file_is_checked_before_it_is_loaded[arrow]",),
    ),
    Mutant(
        "no fsync of the file",
        "A staged file gets its name before its bytes are on disk.",
        (Edit(_STAGING, "        os.fsync(self._file.fileno())\n", ""),),
        (f"{_UNIT}/test_staging.py::test_a_file_is_on_disk_before_it_has_its_name_and_the_directory_after",),
    ),
    Mutant(
        "no fsync of the directory",
        "The name of a staged file may be lost although its manifest stands.",
        (Edit(_STAGING, "            _sync_directory(path.parent)\n", ""),),
        (f"{_UNIT}/test_staging.py::test_a_file_is_on_disk_before_it_has_its_name_and_the_directory_after",),
    ),
    Mutant(
        "written in place",
        "A staged file is written under its own name, so half of it may be found there.",
        (
            Edit(_STAGING, 'temporary = path.with_name(f".{name}.{os.getpid()}")', "temporary = path"),
            Edit(_STAGING, "                temporary.unlink(missing_ok=True)\n", "                pass\n"),
        ),
        (
            f"{_UNIT}/test_staging.py::test_an_error_before_the_rename_leaves_the_old_file_whole[before_staging_sync]",
            f"{_UNIT}/test_staging.py::test_killed_before_the_rename_the_file_is_not_there",
        ),
    ),
    Mutant(
        "discard ignores the epoch",
        "A stale run that cleans up removes the files that its successor has staged.",
        (Edit(_STAGING, " and _epoch_of(generation.name) <= epoch:", ":"),),
        (f"{_UNIT}/test_staging.py::test_a_stale_run_does_not_remove_what_its_successor_staged",),
    ),
    Mutant(
        "digests are added by XOR",
        "Two equal rows too many cancel each other.",
        (
            Edit(
                _DIGEST,
                "self.rows + other.rows, self.high + other.high, self.low + other.low",
                "self.rows + other.rows, self.high ^ other.high, self.low ^ other.low",
            ),
        ),
        (f"{_UNIT}/test_digest.py::test_equal_rows_do_not_cancel_each_other",),
    ),
    Mutant(
        "databases digest by XOR",
        "The same in the SQL of the copy lane.",
        (
            Edit(
                _DIGESTS,
                "coalesce(sum(h), 0), 0 FROM (SELECT {index}{record}",
                "coalesce(bit_xor(h), 0), 0 FROM (SELECT {index}{record}",
            ),
        ),
        ("jivs_pipeline_tests/integration/test_digests.py::test_every_single_change_shows[record]",),
    ),
    Mutant(
        "a copied row's bigint is hashed by its halves alone",
        "PostgreSQL's function folds them into one: 4294967295 is -1 to it.",
        (Edit("jivs_pipeline/infra/value_hashes.py", '"{c}", "0", "({c} >> 32)")', '"{c}", "0")'),),
        (f"{_VALUES}::test_what_is_printed_differently_is_hashed_differently",),
    ),
    Mutant(
        "a copied row's NULL is hashed as the value that stands for it",
        "Both ends agree on it, so nobody sees an empty text that became NULL.",
        (
            Edit(
                "jivs_pipeline/infra/value_hashes.py",
                'f"CASE WHEN {null} THEN {_NULL} ELSE 0 END"',
                'f"CASE WHEN {null} THEN 0 ELSE 0 END"',
            ),
        ),
        (f"{_VALUES}::test_what_is_printed_differently_is_hashed_differently",),
    ),
    Mutant(
        "a chain forgets what tells NULL from the empty text",
        "Of the hash that files, SQLite and rules are digested with.",
        (
            Edit(
                "jivs_pipeline/infra/chains.py",
                "seeds if column.marks is None else _marked(seeds, column.marks)",
                "seeds",
            ),
        ),
        (f"{_UNIT}/test_chains.py::test_every_row_is_hashed_as_plain_python_does",),
    ),
    Mutant(
        "chunks are not compared one by one",
        "Rows that landed in the wrong chunk are no difference, as long as the sums agree.",
        (Edit(_VERIFY, '"equal": source == target and not different,', '"equal": source == target,'),),
        (f"{_UNIT}/test_verify.py::test_rows_in_the_wrong_chunk_are_a_difference_although_the_sums_agree",),
    ),
    Mutant(
        "errors of data are tried again",
        "Terminal errors are tried three times like those of the moment.",
        (Edit(_POOL, "isinstance(error, only) and error.transient and", "isinstance(error, only) and"),),
        (f"{_UNIT}/test_pool.py::test_nothing_else_is_tried_again[error1]",),
    ),
    Mutant(
        "stale tables are not reset",
        "Rows of an earlier extraction stay in the table that another one is loaded into.",
        (Edit(_LOAD, "        run.target.reset(table)\n", ""),),
        (f"{_UNIT}/test_load.py::test_a_table_of_another_extraction_is_made_anew",),
    ),
    Mutant(
        "chunks of another extraction are kept",
        "What the ledger has from an earlier snapshot counts as loaded, so two snapshots mix in one table.",
        (
            Edit(
                "jivs_pipeline/core/ports.py",
                "            if name == table and made_by == generation\n",
                "            if name == table\n",
            ),
            Edit(_LOAD, "if ledger.stale(table.target, manifest.generation)\n", "if not table.target\n"),
        ),
        (f"{_UNIT}/test_load.py::test_a_table_of_another_extraction_is_made_anew",),
    ),
    Mutant(
        "resume trusts the control database",
        "A table that the control database calls loaded is not loaded again, whatever the target's ledger says.",
        (
            Edit(
                _RESUME,
                "if there == frozenset(c.index for c in run.extracted[point.table].chunks):",
                "if there is not None:",
            ),
        ),
        (f"{_UNIT}/test_resume.py::test_the_ledger_of_the_target_has_the_last_word[made anew]",),
    ),
    Mutant(
        "finish does not ask the ledger",
        "A run may succeed while a planned chunk is missing from the target's ledger.",
        (Edit(_MIGRATE, "            self._patiently(Phase.FINISH, partial(require_ledger, run))\n", ""),),
        (f"{_UNIT}/test_finish.py::test_no_run_succeeds_while_the_ledger_lacks_a_chunk[missing]",),
    ),
    Mutant(
        "a mismatch is completed",
        "A table that differs from its source does not change the verdict.",
        (Edit(_MIGRATE, "        if different:\n", "        if not isinstance(different, list):\n"),),
        (f"{_UNIT}/test_finish.py::test_a_table_that_differs_is_no_success[different]",),
    ),
    Mutant(
        "what was not compared is equal",
        "A table without a verdict of verify counts as equal.",
        (Edit(_MIGRATE, '{"equal": False}', '{"equal": True}'),),
        (f"{_UNIT}/test_finish.py::test_a_table_that_differs_is_no_success[not compared]",),
    ),
    Mutant(
        "a slow client is a silent one",
        "The watchdog does not notice that a COPY goes on and ends it after the timeout of silence.",
        (
            Edit(
                "jivs_pipeline/core/watch.py",
                "            if news != backend.news:\n                since = now\n",
                "",
            ),
        ),
        (f"{_UNIT}/test_watch.py::test_whoever_says_something_in_time_is_left_alone",),
    ),
    Mutant(
        "a load may take for ever",
        "The watchdog ends clients that are silent and none that only takes too long.",
        (
            Edit(
                "jivs_pipeline/core/watch.py",
                "if backend.copying and backend.transaction_seconds > self.limits.load:",
                "if backend.copying and backend.transaction_seconds < 0:",
            ),
        ),
        (f"{_UNIT}/test_watch.py::test_a_load_has_its_time",),
    ),
    Mutant(
        "snapshots mix",
        "After a lost snapshot the tables that were staged from it are kept beside those of the next one.",
        (Edit(_MIGRATE, "        renew(run, run.plan, self._new_generation())\n", ""),),
        (f"{_UNIT}/test_extract.py::test_a_lost_snapshot_begins_the_extraction_anew",),
    ),
    Mutant(
        "two reads are not compared",
        "Rows that came or went between the read and its digest are not noticed before the load.",
        (
            Edit(
                "jivs_pipeline/engine/extract.py",
                "if file.rows != file.digest.rows:",
                "if file.rows < 0:",
            ),
        ),
        (f"{_UNIT}/test_extract.py::test_two_reads_that_differ_fail_the_table",),
    ),
    Mutant(
        "an overtaken run goes on",
        "A run that learns at its heartbeat that it was overtaken does nothing about it.",
        (
            Edit(
                _PULSE,
                "                    self._guard.stop(error, at_once=True)\n",
                "                    pass\n",
            ),
        ),
        (f"{_UNIT}/test_pulse.py::test_a_run_that_was_overtaken_stops_inside_of_its_chunk",),
    ),
    Mutant(
        "a control database that is away ends the pulse",
        "One heartbeat without an answer is the last, so the lease of a living run runs out.",
        (Edit(_PULSE, "                continue\n", "                return\n"),),
        (f"{_UNIT}/test_pulse.py::test_a_control_database_that_is_away_stops_nothing",),
    ),
    Mutant(
        "who is settled is not fenced",
        "A run that was taken for dead and wakes still writes to the target.",
        (
            Edit(
                "jivs_pipeline/engine/steering.py",
                """        target.claim(key, services.control.control_id(), row["epoch"], f"settled-{row['epoch']}")\n""",
                "        target.info()\n",
            ),
        ),
        (f"{_UNIT}/test_steering.py::test_who_is_settled_is_fenced_off_the_target",),
    ),
)
