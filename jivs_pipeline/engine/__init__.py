"""The phases of a migration over ports; knows Arrow, knows no database driver and no Dagster."""
