"""`jivs metrics`: metrics and health over HTTP, in the foreground.

What belongs here: the command. What does not: what it tells (`infra/exporter`).
"""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def metrics(
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="JIVS_METRICS_PORT otherwise.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. There is no password: keep it inside.")
    ] = "127.0.0.1",
    debug: Debug = False,
) -> None:
    """Serve /metrics for Prometheus, /health/live and /health/ready, until Ctrl-C."""
    from jivs_pipeline.infra.exporter import serve
    from jivs_pipeline.runtime import Runtime

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Runtime.from_environment() as runtime:
        exporter = runtime.exporter()
        server = serve(exporter, host, runtime.settings.metrics_port if port is None else port)
        threading.Thread(target=server.serve_forever, name="jivs-metrics", daemon=True).start()
        print(f"Metrics: http://{host}:{server.server_address[1]}/metrics   (Ctrl-C stops)", flush=True)
        stop.wait()
        server.shutdown()
        server.server_close()
        exporter.close()
