"""Mutants of who holds a migration, and of what is recorded about it: control database, events, lease."""

from jivs_pipeline_tests.mutants.running import Edit, Mutant

__all__ = ["CONTROL"]

_CONTROL = "jivs_pipeline/infra/control.py"
_CLAIMS = "jivs_pipeline/infra/control_claims.py"
_SQL = "jivs_pipeline/infra/control.sql"
_LEASES = "jivs_pipeline/infra/leases.py"
_TEST = "jivs_pipeline_tests/integration/test_control.py"
_TWICE = "jivs_pipeline_tests/integration/test_control_twice.py"
_TEST_LEASES = "jivs_pipeline_tests/integration/test_leases.py"

_TELL = """            if add_event(db, claim.key, kind, data, made):
                change(db)

        self._link.do(work)
"""
_GONE = (
    "return self.silent_seconds > self.lease_seconds or is_dead(self.boot_id, self.pid, self.process_start)"
)

CONTROL = (
    Mutant(
        "a live holder is robbed",
        "Whoever asks takes the migration, whether its holder lives or not.",
        (Edit(_CLAIMS, _GONE, "return bool(self.owner)"),),
        (f"{_TEST}::test_a_live_process_that_is_silent_beyond_its_lease_is_taken_over",),
    ),
    Mutant(
        "a silent holder is never robbed",
        "A run that stands still holds its migration for ever.",
        (Edit(_CLAIMS, _GONE, "return is_dead(self.boot_id, self.pid, self.process_start)"),),
        (f"{_TEST}::test_a_live_process_that_is_silent_beyond_its_lease_is_taken_over",),
    ),
    Mutant(
        "a claim ignores the target's epoch",
        "A control database that was made anew begins at epoch 1, and the target refuses all its runs.",
        (
            Edit(
                _SQL,
                "epoch = greatest(epoch, %(floor)s) + 1, run_id = %(run_id)s,\n       begun_epoch",
                "epoch = epoch + 1, run_id = %(run_id)s,\n       begun_epoch",
            ),
        ),
        (f"{_TEST}::test_the_epoch_exceeds_the_targets[40-41]",),
    ),
    Mutant(
        "a claim keeps the epoch",
        "A takeover has the epoch of the run that it replaces.",
        (
            Edit(
                _SQL,
                "epoch = greatest(epoch, %(floor)s) + 1, run_id = %(run_id)s,\n       begun_epoch",
                "epoch = greatest(epoch, %(floor)s, 1), run_id = %(run_id)s,\n       begun_epoch",
            ),
        ),
        (f"{_TEST}::test_a_dead_holder_is_taken_over_at_once[gone]",),
    ),
    Mutant(
        "claims are not serialized",
        "Two who claim at the same moment both find nobody.",
        (
            Edit(
                _SQL,
                "SELECT * FROM jivs.migrations WHERE key = %(key)s FOR UPDATE;",
                "SELECT * FROM jivs.migrations WHERE key = %(key)s;",
            ),
        ),
        (f"{_TEST}::test_of_two_claimers_one_wins",),
    ),
    Mutant(
        "a stale run ends its successor",
        "The epoch is not compared when the end of a run is recorded.",
        (
            Edit(
                _SQL,
                "finished_at = now(), requested = NULL\n WHERE key = %(key)s AND epoch = %(epoch)s AND status",
                "finished_at = now(), requested = NULL\n WHERE key = %(key)s AND status",
            ),
        ),
        (f"{_TEST}::test_an_overtaken_run_writes_nothing[end]",),
    ),
    Mutant(
        "a stale run sets the phase",
        "The epoch is not compared when a phase is entered.",
        (
            Edit(
                _SQL,
                "SET phase = %(phase)s\n WHERE key = %(key)s AND epoch = %(epoch)s AND",
                "SET phase = %(phase)s\n WHERE key = %(key)s AND",
            ),
        ),
        (f"{_TEST}::test_an_overtaken_run_writes_nothing[set_phase]",),
    ),
    Mutant(
        "a stale run writes checkpoints",
        "The epoch is not compared when a table is recorded as loaded.",
        (
            Edit(
                _SQL,
                "WHERE m.key = %(key)s AND m.epoch = %(epoch)s AND m.status = 'running'\nON CONFLICT (key, table_name",
                "WHERE m.key = %(key)s AND m.status = 'running'\nON CONFLICT (key, table_name",
            ),
        ),
        (f"{_TEST}::test_an_overtaken_run_writes_nothing[checkpoint]",),
    ),
    Mutant(
        "a late thread changes the end",
        "A run that has ended may still enter a phase.",
        (
            Edit(
                _SQL,
                "SET phase = %(phase)s\n WHERE key = %(key)s AND epoch = %(epoch)s AND status = 'running';",
                "SET phase = %(phase)s\n WHERE key = %(key)s AND epoch = %(epoch)s;",
            ),
        ),
        (f"{_TEST}::test_a_run_that_ended_writes_nothing[set_phase]",),
    ),
    Mutant(
        "a stale heartbeat",
        "A run that was overtaken keeps its successor's lock alive and does not learn that it was.",
        (
            Edit(
                _SQL,
                "     WHERE key = %(key)s AND owner = %(owner)s AND epoch = %(epoch)s\n",
                "     WHERE key = %(key)s\n",
            ),
            Edit(_SQL, "JOIN beat USING (key) WHERE m.epoch = %(epoch)s;", "JOIN beat USING (key);"),
        ),
        (f"{_TEST}::test_an_overtaken_run_writes_nothing[heartbeat]",),
    ),
    Mutant(
        "a stale run gives the lock away",
        "Releasing does not look whose lock it is.",
        (
            Edit(
                _SQL,
                "DELETE FROM jivs.migration_locks WHERE key = %(key)s AND owner = %(owner)s;",
                "DELETE FROM jivs.migration_locks WHERE key = %(key)s;",
            ),
        ),
        (f"{_TEST}::test_an_overtaken_run_cannot_give_away_the_lock",),
    ),
    Mutant(
        "a change is made twice",
        "Each attempt has a token of its own, so a commit that was not acknowledged is made again.",
        (Edit(_CONTROL, _TELL, _TELL.replace("data, made)", "data, token())")),),
        (f"{_TWICE}::test_a_run_says_it_twice[retry-control_after_commit]",),
    ),
    Mutant(
        "the event comes later",
        "A change is committed before its event.",
        (
            Edit(
                _CONTROL,
                _TELL,
                "            change(db)\n\n        self._link.do(work)\n"
                "        self._link.do(lambda db: add_event(db, claim.key, kind, data, made))\n",
            ),
        ),
        (f"{_TEST}::test_without_its_event_a_change_does_not_happen[set_phase]",),
    ),
    Mutant(
        "the living are settled",
        "A command sets the state in place of a run that is alive.",
        (
            Edit(
                _CLAIMS,
                "            if holder is not None and not holder.gone:\n                return False\n",
                "            if holder is not None and holder.gone:\n                return False\n",
            ),
        ),
        (f"{_TWICE}::test_settle_leaves_the_living_alone",),
    ),
    Mutant(
        "a stale rollback forgets the plan",
        "The epoch is not compared when a rollback is recorded.",
        (
            Edit(
                _SQL,
                "bytes_done = 0, finished_at = now()\n WHERE key = %(key)s AND epoch = %(epoch)s;",
                "bytes_done = 0, finished_at = now()\n WHERE key = %(key)s;",
            ),
        ),
        (f"{_TWICE}::test_what_is_taken_over_cannot_be_forgotten_by_the_old_one",),
    ),
    Mutant(
        "settling keeps the epoch",
        "A run that was taken for dead and wakes has the epoch that is on.",
        (Edit(_SQL, "SET status = %(status)s, epoch = epoch + 1, ", "SET status = %(status)s, "),),
        (f"{_TWICE}::test_whoever_was_settled_is_fenced",),
    ),
    Mutant(
        "a claim does not know itself",
        "A claim whose commit was not acknowledged meets its own lock and calls it somebody else's.",
        (
            Edit(
                _CLAIMS,
                "if (holder := _holder(db, spec.key)) is not None and holder.owner == owner.owner:",
                "if (holder := _holder(db, spec.key)) is not None and holder.owner == run_id:",
            ),
        ),
        (f"{_TWICE}::test_a_claim_twice_is_one_claim[new]",),
    ),
    Mutant(
        "a refused run keeps the lease",
        "Who was not given the migration keeps others out until its lease has run out.",
        (
            Edit(
                "jivs_pipeline/infra/taking.py",
                "        except BaseException:\n            self.leases.release(key)\n            raise\n",
                "        except BaseException:\n            raise\n",
            ),
        ),
        (f"{_TEST_LEASES}::test_what_a_state_forbids_is_not_waited_for_and_leaves_no_lease",),
    ),
    Mutant(
        "anybody releases the lease",
        "A run whose lease ran out deletes that of its successor.",
        (
            Edit(
                _LEASES,
                "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end",
                "if ARGV[1] then return redis.call('del', KEYS[1]) end",
            ),
        ),
        (f"{_TEST_LEASES}::test_only_its_holder_prolongs_and_ends_it",),
    ),
    Mutant(
        "anybody renews the lease",
        "A run whose lease ran out prolongs that of its successor.",
        (
            Edit(
                _LEASES,
                "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end",
                "if redis.call('pexpire', KEYS[1], ARGV[2]) == 1 then return 1 end",
            ),
        ),
        (f"{_TEST_LEASES}::test_only_its_holder_prolongs_and_ends_it",),
    ),
    Mutant(
        "the lease is taken from the living",
        "Whoever asks replaces the lease, whether its holder lives or not.",
        (
            Edit(
                _LEASES,
                "if holder is not None and not holder.dead:",
                "if holder is not None and holder.dead:",
            ),
        ),
        (f"{_TEST_LEASES}::test_the_second_learns_who_has_it",),
    ),
)
