"""All Dagster wiring, and the only package that imports dagster.

What belongs here: turning engine calls into ops, events and resources. What does not: migrating.
"""
