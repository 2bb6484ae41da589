"""Mutants of what is written to the target: fence, epoch, ledger, steps, taking back, and the watchdog."""

from jivs_pipeline_tests.mutants.running import Edit, Mutant

__all__ = ["TARGET"]

_TARGET = "jivs_pipeline/infra/target.py"
_SQL = "jivs_pipeline/infra/target.sql"
_DDL = "jivs_pipeline/infra/ddl.py"
_UNDO = "jivs_pipeline/infra/undo.py"
_MERGE = "jivs_pipeline/infra/merge.py"
_WATCHDOG = "jivs_pipeline/infra/watchdog.py"
_TEST = "jivs_pipeline_tests/integration/test_target.py"
_TEST_UNDO = "jivs_pipeline_tests/integration/test_undo.py"
_TEST_WATCHDOG = "jivs_pipeline_tests/integration/test_watchdog.py"

_ANEW = '            db.execute("COMMIT")\n            db.execute("BEGIN")\n'
_HOLDS = """  JOIN pg_stat_activity a ON a.pid = b.pid AND a.backend_start = b.backend_start
                         AND a.application_name = b.application_name
 WHERE b.key = %(key)s AND b.epoch < %(epoch)s"""
_UNFENCED = 'with self._session_of_its_own("jivs", read_only=False) as db, db.transaction():'

TARGET = (
    Mutant(
        "ledger first",
        "The ledger's row is committed before the COPY: a kill between the two loses the chunk's rows.",
        (
            Edit(
                _TARGET,
                '            failpoint("after_ledger_before_copy")\n',
                f'{_ANEW}            failpoint("after_ledger_before_copy")\n',
            ),
        ),
        (f"{_TEST}::test_an_error_anywhere_in_a_chunk[after_ledger_before_copy]",),
    ),
    Mutant(
        "COPY first",
        "The rows are committed before the ledger's row: a kill between the two doubles them.",
        (
            Edit(
                _TARGET,
                'if db.execute(SQL["add_chunk"], entry).rowcount == 0:\n',
                'if db.execute(SQL["chunk_generation"], entry).fetchone() is not None:\n',
            ),
            Edit(
                _TARGET,
                "            db.longest = math.inf\n",
                f'            db.longest = math.inf\n{_ANEW}            db.execute(SQL["add_chunk"], entry)\n',
            ),
        ),
        (f"{_TEST}::test_an_error_anywhere_in_a_chunk[before_commit]",),
    ),
    Mutant(
        "count is not compared",
        "A chunk that brought fewer rows than its manifest says is committed.",
        (Edit(_TARGET, "            if arrived != rows:\n", "            if arrived < 0:\n"),),
        (f"{_TEST}::test_a_wrong_count_rolls_everything_back[3]",),
    ),
    Mutant(
        "a load may wait for ever",
        "The server does not end a load that takes longer than its limit.",
        (
            Edit(
                _TARGET,
                """SQL["limit_statement"], {"milliseconds": str(int(self._load_timeout * 1000))}""",
                """SQL["limit_statement"], {"milliseconds": "0"}""",
            ),
        ),
        (f"{_TEST}::test_a_load_that_only_waits_has_its_time",),
    ),
    Mutant(
        "no fence",
        "Whoever once held the epoch may write for ever.",
        (Edit(_SQL, "AND epoch = %(epoch)s FOR SHARE;", "FOR SHARE;"),),
        (
            f"{_TEST}::test_a_stale_run_writes_nothing[its sessions are unknown-load_chunk]",
            f"{_TEST}::test_a_stale_run_writes_nothing[its sessions are unknown-undo_next]",
        ),
    ),
    Mutant(
        "fence without a lock",
        "The epoch is looked at and not held, so a takeover does not wait for the transaction that has looked.",
        (Edit(_SQL, "AND epoch = %(epoch)s FOR SHARE;", "AND epoch = %(epoch)s;"),),
        (f"{_TEST}::test_a_takeover_waits_for_a_writer_that_it_cannot_end",),
    ),
    Mutant(
        "rollback without a fence",
        "A stale worker that wakes inside of its rollback drops what its successor has made.",
        (Edit(_TARGET, 'with self._fenced(f"rollback of {right.key}") as db:', _UNFENCED),),
        (f"{_TEST}::test_a_stale_run_writes_nothing[its sessions are unknown-undo_next]",),
    ),
    Mutant(
        "reset without a fence",
        "A stale worker drops the table that its successor loads.",
        (Edit(_TARGET, 'with self._fenced(f"reset of {table.target}") as db:', _UNFENCED),),
        (f"{_TEST}::test_a_stale_run_writes_nothing[its sessions are unknown-reset]",),
    ),
    Mutant(
        "steps without a fence",
        "A stale worker builds tables and keys.",
        (Edit(_TARGET, 'with self._fenced(f"{step.name} of {step.table}") as db:', _UNFENCED),),
        (f"{_TEST}::test_a_stale_run_writes_nothing[its sessions are unknown-apply]",),
    ),
    Mutant(
        "an old epoch announces itself",
        "A backend of an epoch that is over is registered as if it was of the one that is on.",
        (
            Edit(
                _SQL,
                "WHERE m.key = %(key)s AND m.epoch = %(epoch)s AND a.pid = pg_backend_pid()",
                "WHERE m.key = %(key)s AND a.pid = pg_backend_pid()",
            ),
        ),
        (f"{_TEST}::test_a_stale_run_writes_nothing[it has none-load_chunk]",),
    ),
    Mutant(
        "takeover ends nobody",
        "The backends of the overtaken run are left alone, with their locks.",
        (Edit(_TARGET, '            db.execute(SQL["terminate_older"], parameters)\n', ""),),
        (f"{_TEST}::test_a_takeover_ends_an_open_copy",),
    ),
    Mutant(
        "takeover ends by process id alone",
        "A process that has the id of an old backend is ended, whoever it is.",
        (
            Edit(
                _SQL,
                _HOLDS,
                "  JOIN pg_stat_activity a ON a.pid = b.pid\n WHERE b.key = %(key)s AND b.epoch < %(epoch)s",
            ),
        ),
        (f"{_TEST}::test_a_takeover_leaves_other_applications_alone",),
    ),
    Mutant(
        "a late claim ends its successor",
        "A claim ends the backends of newer epochs, too.",
        (
            Edit(
                _SQL,
                " AND b.epoch < %(epoch)s AND a.pid <> pg_backend_pid();",
                " AND a.pid <> pg_backend_pid();",
            ),
        ),
        (f"{_TEST}::test_a_takeover_leaves_other_migrations_and_newer_epochs_alone",),
    ),
    Mutant(
        "takeover keeps the epoch",
        "A claim writes its owner and not its epoch.",
        (Edit(_SQL, "   SET epoch = excluded.epoch, control_id", "   SET control_id"),),
        (f"{_TEST}::test_a_claim_raises_the_epoch",),
    ),
    Mutant(
        "an equal epoch of another owner",
        "Two owners may hold one epoch.",
        (
            Edit(
                _SQL,
                " OR (m.epoch = excluded.epoch AND m.owner = excluded.owner)",
                " OR m.epoch = excluded.epoch",
            ),
        ),
        (f"{_TEST}::test_a_claim_raises_the_epoch",),
    ),
    Mutant(
        "a lower epoch",
        "A claim that comes late takes the migration back from its successor.",
        (Edit(_SQL, " WHERE m.epoch < excluded.epoch OR ", " WHERE m.epoch <> excluded.epoch OR "),),
        (f"{_TEST}::test_a_takeover_leaves_other_migrations_and_newer_epochs_alone",),
    ),
    Mutant(
        "two control databases",
        "Nobody looks whether a live run of another control database holds the ledger.",
        (
            Edit(
                _TARGET,
                'if value(db, "live_others", parameters):',
                'if value(db, "live_others", parameters) is None:',
            ),
        ),
        (f"{_TEST}::test_two_control_databases_notice_each_other",),
    ),
    Mutant(
        "generations are not compared",
        "A chunk of another snapshot counts as loaded.",
        (Edit(_TARGET, "if found and found[0] == generation:", "if found:"),),
        (f"{_TEST}::test_a_chunk_of_another_extraction_is_refused",),
    ),
    Mutant(
        "steps are done again",
        "A step that the ledger has is done once more.",
        (
            Edit(
                _TARGET,
                'if db.execute(SQL["add_step"], entry).rowcount == 0:\n                return False\n',
                'db.execute(SQL["add_step"], entry)\n',
            ),
        ),
        (f"{_TEST}::test_a_step_runs_once",),
    ),
    Mutant(
        "reset drops what is not ours",
        "A table of that name is dropped, whoever made it.",
        (
            Edit(
                _TARGET,
                'if db.execute(SQL["made"], names).fetchone() is not None:',
                'if db.execute(SQL["made"], names).rowcount >= 0:',
            ),
        ),
        (f"{_TEST}::test_reset_drops_only_what_we_made",),
    ),
    Mutant(
        "triggers are awake in a merge",
        "Triggers of the target's owner change or double the rows that are merged.",
        (
            Edit(
                _MERGE,
                '        *(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(t) for t in tables),\n',
                "",
            ),
        ),
        (f"{_TEST}::test_rows_are_merged_at_the_end[truncate]",),
    ),
    Mutant(
        "triggers sleep for ever",
        "The triggers that a merge has put to sleep are not woken.",
        (Edit(_MERGE, "BEGIN EXECUTE current_setting(''jivs.triggers''); END", "BEGIN END"),),
        (f"{_TEST}::test_rows_are_merged_at_the_end[append]",),
    ),
    Mutant(
        "sequences stand still",
        "A number that came with the rows is given out again.",
        (
            Edit(
                _DDL,
                'return [Step(table.target, "numbering", tuple(statements))] if statements else []',
                'return [Step(table.target, "numbering", ())] if statements else []',
            ),
        ),
        (f"{_TEST}::test_numbering_goes_on[identity]",),
    ),
    Mutant(
        "numbers are set as if none had been given out",
        "What a transaction that did not commit has set makes the next attempt forget how far the sequence was.",
        (
            Edit(
                "jivs_pipeline/infra/ddl.py",
                "THEN setval(s.seqrelid, (n.next - s.seqincrement)::bigint, true)",
                "THEN setval(s.seqrelid, n.next::bigint, false)",
            ),
        ),
        (f"{_TEST}::test_numbers_that_were_given_out_do_not_come_back",),
    ),
    Mutant(
        "foreign keys are believed",
        "A foreign key is made NOT VALID and never validated.",
        (Edit(_DDL, "        if key.valid\n", "        if not key.columns\n"),),
        (
            f"{_TEST}::test_foreign_keys_are_what_the_definition_says",
            f"{_TEST}::test_a_key_that_rows_break_is_not_believed",
        ),
    ),
    Mutant(
        "references made anew are believed",
        "A foreign key that went with its parent is made again, and counts as checked by what the ledger says of the one before.",
        (
            Edit(
                "jivs_pipeline/infra/target.sql",
                "step IN ('foreign key ' || %(name)s, 'checking foreign key ' || %(name)s);",
                "step = 'foreign key ' || %(name)s;",
            ),
        ),
        (f"{_TEST}::test_reset_of_a_table_that_others_refer_to",),
    ),
    Mutant(
        "undo with CASCADE",
        "What others have built on a table since goes with it.",
        (
            Edit(
                _UNDO,
                '"DROP TABLE IF EXISTS {}").format(_name(table))',
                '"DROP TABLE IF EXISTS {} CASCADE").format(_name(table))',
            ),
        ),
        (f"{_TEST_UNDO}::test_what_others_have_built_stops_it_and_stays",),
    ),
    Mutant(
        "undo in two transactions",
        "A step is undone in one transaction and forgotten in another.",
        (
            Edit(
                _UNDO,
                '        db.execute(SQL["forget_step"], names)\n',
                '        db.execute("COMMIT")\n        db.execute("BEGIN")\n        db.execute(SQL["forget_step"], names)\n',
            ),
        ),
        (f"{_TEST_UNDO}::test_an_error_anywhere_in_it_leaves_the_step_as_it_was[create-inside_undo]",),
    ),
    Mutant(
        "undo keeps the chunks",
        "A table is dropped and its chunks stay in the ledger, so the next run believes that they are loaded.",
        (Edit(_UNDO, '            db.execute(SQL["forget_chunks"], names)\n', "            pass\n"),),
        (f"{_TEST_UNDO}::test_an_error_anywhere_in_it_leaves_the_step_as_it_was[create-after_commit]",),
    ),
    Mutant(
        "undo forgets the epoch",
        "After a rollback the ledger has no epoch any more that would refuse an earlier run.",
        (
            Edit(
                _SQL,
                "WITH c AS (DELETE FROM jivs_ledger.chunks WHERE key = %(key)s)\n",
                "WITH c AS (DELETE FROM jivs_ledger.migrations WHERE key = %(key)s)\n",
            ),
        ),
        (f"{_TEST_UNDO}::test_the_last_step_comes_first_and_nothing_is_left",),
    ),
    Mutant(
        "watchdog cancels",
        "A client that stands still inside of a COPY is cancelled, which ends nothing there.",
        (
            Edit(
                "jivs_pipeline/infra/watchdog.sql",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity",
            ),
        ),
        (f"{_TEST_WATCHDOG}::test_a_client_that_stands_still_inside_a_copy_is_ended",),
    ),
    Mutant(
        "watchdog leaves the dead alone",
        "The server processes of a run that is gone go on until they notice by themselves.",
        (
            Edit(
                _WATCHDOG,
                "    if os.read(pipe.fileno(), len(_DONE)) != _DONE:\n",
                "    if os.read(pipe.fileno(), len(_DONE)) is None:\n",
            ),
        ),
        (f"{_TEST_WATCHDOG}::test_when_the_run_dies_all_its_sessions_end",),
    ),
    Mutant(
        "watchdog never rests",
        "A run that says that it is done loses its server processes like one that died.",
        (
            Edit(
                _WATCHDOG,
                "    if os.read(pipe.fileno(), len(_DONE)) != _DONE:\n",
                "    if os.read(pipe.fileno(), len(_DONE)) is not None:\n",
            ),
        ),
        (f"{_TEST_WATCHDOG}::test_stop_ends_the_watchdog_and_nothing_else",),
    ),
    Mutant(
        "watchdog ends everybody's",
        "A run that dies takes the server processes of other epochs with it.",
        (
            Edit(
                "jivs_pipeline/infra/watchdog.sql",
                "SELECT pg_terminate_backend(a.pid)\n  FROM jivs_ledger.backends b\n  JOIN pg_stat_activity a ON a.pid = b.pid AND a.backend_start = b.backend_start\n                         AND a.application_name = b.application_name\n WHERE b.key = %(key)s AND b.epoch = %(epoch)s;",
                "SELECT pg_terminate_backend(a.pid)\n  FROM jivs_ledger.backends b\n  JOIN pg_stat_activity a ON a.pid = b.pid\n WHERE b.key = %(key)s;",
            ),
        ),
        (f"{_TEST_WATCHDOG}::test_when_the_run_dies_all_its_sessions_end",),
    ),
)
