"""A block of imports is not collected in, and collecting goes on afterwards, whatever happens in it."""

from __future__ import annotations

import gc
from contextlib import suppress

from jivs_pipeline.starting import uncollected


def test_nothing_is_collected_inside_and_what_was_made_is_left_out_afterwards():
    before = gc.get_freeze_count()
    try:
        with suppress(ImportError), uncollected():
            assert not gc.isenabled()
            with uncollected():
                assert not gc.isenabled()
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
