"""Moves whole databases into PostgreSQL, exactly once, as a Dagster project."""

import os

__version__ = "0.1.0"

# Arrow's own allocators keep what was freed for later, which may be twice a value of 100 MB; the system's gives large blocks
# back (`starting.py`). Arrow reads this when it is loaded, by whomever, and a user's choice stands.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
