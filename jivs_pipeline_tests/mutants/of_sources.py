"""Mutants of how bytes of a source are cut into rows and values."""

from jivs_pipeline_tests.mutants.running import Edit, Mutant

__all__ = ["SOURCES"]

_PACKETS = "jivs_pipeline/infra/sources/mysql_packets.py"
_LONG = "jivs_pipeline/infra/sources/csv_long.py"
_TEST_PACKETS = "jivs_pipeline_tests/unit/test_mysql_packets.py"
_TEST_LONG = "jivs_pipeline_tests/unit/test_csv_long.py"

SOURCES = (
    Mutant(
        "guessed packets need not follow each other",
        "Bytes of a value that look like the head of a packet are taken for one, and a row is cut in two.",
        (Edit(_PACKETS, "end = end[: int(linked.argmin()) + 1]", "end = end[: len(linked)]"),),
        (f"{_TEST_PACKETS}::test_many_packets_are_found_whatever_is_in_them",),
    ),
    Mutant(
        "a row may be shorter than its packet",
        "A row that says fewer bytes than its packet has, as one of other columns does, is taken as it is.",
        (Edit(_PACKETS, "if (at != bounds[1:]).any():", "if (at > bounds[1:]).any():"),),
        (f"{_TEST_PACKETS}::test_a_row_of_another_length_is_no_row",),
    ),
    Mutant(
        "NULL of MySQL is an empty text",
        "What no text has is read as one without characters.",
        (
            Edit(
                _PACKETS,
                "return at, length, absent if absent.any() else None",
                "return at, length, None",
            ),
        ),
        (f"{_TEST_PACKETS}::test_values_come_as_they_were_sent",),
    ),
    Mutant(
        "a pair of quotes is cut in two",
        "A doubled quote at the end of a block stays doubled in a long field.",
        (Edit(_LONG, "len(block.rstrip(one))) % 2:", "len(block.rstrip(one))) % 2 > 1:"),),
        (f"{_TEST_LONG}::test_pairs_of_quotes_are_not_cut[1]",),
    ),
    Mutant(
        "a long record is read twice",
        "What follows a long record begins with that record once more.",
        (Edit(_LONG, "waiting, seen = 0, number + 1", "waiting, seen = 0, number"),),
        (f"{_TEST_LONG}::test_a_text_is_cut_around_its_long_records",),
    ),
)
