"""Moves whole databases into PostgreSQL, exactly once, as a Dagster project."""

__version__ = "0.1.0"
