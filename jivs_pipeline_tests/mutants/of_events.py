"""Mutants of the way from the outbox to the stream and the webhook."""

from jivs_pipeline_tests.mutants.running import Edit, Mutant

__all__ = ["EVENTS"]

_STREAM = "jivs_pipeline/infra/event_stream.py"
_OUTBOX = "jivs_pipeline/infra/outbox.py"
_TEST = "jivs_pipeline_tests/integration/test_events.py"
_TEST_WEBHOOK = "jivs_pipeline_tests/integration/test_webhook.py"

EVENTS = (
    Mutant(
        "a late relay's events are appended where earlier ones are missing",
        "After a flush, an event stands in the stream before an earlier one of its migration.",
        (Edit(_STREAM, "if seq > last + 1 then break end", "if seq > last + 1 then last = seq - 1 end"),),
        (f"{_TEST}::test_an_event_is_never_before_an_earlier_one",),
    ),
    Mutant(
        "an acknowledgement outlives what it is about",
        "What was appended before a flush is noted as delivered after it, and never sent again.",
        (
            Edit(
                _OUTBOX,
                'if _state(db, "stream_shared").generation != generation:',
                'if _state(db, "stream_shared").generation == generation == "no such":',
            ),
        ),
        (f"{_TEST}::test_the_acknowledgement_is_the_streams",),
    ),
    Mutant(
        "a server that was started again is not counted",
        "The last second of its file is lost, and with it what had been acknowledged.",
        (Edit(_STREAM, "if server == ARGV[2] and redis.call", "if redis.call"),),
        (f"{_TEST}::test_the_last_second_of_the_file_is_sent_again[sweep]",),
    ),
    Mutant(
        "a flush is not noticed",
        "The server is the same, and its mark is not asked for.",
        (Edit(_STREAM, " and redis.call('hget', KEYS[2], ARGV[1]) == ARGV[3] then", " then"),),
        (f"{_TEST}::test_after_a_flush_everything_is_sent_again[sweep]",),
    ),
    Mutant(
        "two post a migration's events at once",
        "The right to post is given to whoever asks.",
        (
            Edit(
                "jivs_pipeline/infra/outbox.sql",
                "WHERE webhook_claims.until < clock_timestamp() OR webhook_claims.holder",
                "WHERE webhook_claims.until IS NOT NULL OR webhook_claims.holder",
            ),
        ),
        (f"{_TEST_WEBHOOK}::test_while_one_posts_nobody_else_does",),
    ),
)
