"""Names of run tags, each spelled once."""

__all__ = ["MIGRATION_KEY", "run_tags"]

MIGRATION_KEY = "jivs/migration_key"
"""One run per value at a time (dagster.yaml)."""


def run_tags(key: str) -> dict[str, str]:
    """Tags of a run of this migration."""
    return {MIGRATION_KEY: key}
