"""A block of imports is not collected in, and collecting goes on afterwards, whatever happens in it; pyarrow does without pandas."""

from __future__ import annotations

import gc
import subprocess
import sys
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


def test_arrays_are_made_without_pandas_which_is_there_for_whoever_wants_it():
    """In a process of its own: pyarrow looks for it once."""
    script = """if True:
        import sys
        from jivs_pipeline.starting import leave_pandas_out
        leave_pandas_out()
        leave_pandas_out()
        import pyarrow as pa
        from pyarrow import compute
        compute.fill_null(pa.array([1, None]), 0).to_numpy()
        assert "pandas" not in sys.modules
        assert pa.table({"a": [1]}).to_pandas().shape == (1, 1)
        leave_pandas_out()
        import pandas
        assert pandas.DataFrame({"a": [1]}).shape == (1, 1)
    """
    subprocess.run([sys.executable, "-c", script], check=True)
