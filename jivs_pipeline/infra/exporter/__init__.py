"""The exporter: metrics and health of everything, looked up when they are asked for.

What belongs here: reading the control database, Dagster's storage, Redis, the web server and the disk, each as a part
that may fail alone, and telling what was read. What does not: changing anything, or remembering anything: a counter
is a sum over rows that stay, so that neither a dead worker nor a restart of the exporter changes it.
"""

from jivs_pipeline.infra.exporter.collect import Exporter, Places
from jivs_pipeline.infra.exporter.server import serve

__all__ = ["Exporter", "Places", "serve"]
