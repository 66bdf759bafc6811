"""`nbt ui`: serves the web interface of MLflow for the runs of the studies."""

from __future__ import annotations

import webbrowser
from contextlib import suppress

import click

from nbt.cli.display.output import Output, print_to_stderr
from nbt.cli.options.common import Command, WholeNumberIn, config_option
from nbt.errors import UsageError


@click.command(cls=Command, prints_results=False)
@config_option("tracking_uri")
@click.option("--port", metavar="N", type=WholeNumberIn(1, 65535), default=5000, show_default=True, help="Local port.")
@click.option("--open", "opens", is_flag=True, help="Also open the page in the browser.")
def command(out: Output, tracking_uri: str | None, port: int, opens: bool) -> None:
    """Serve the MLflow web interface, on this machine only.

    The address is printed when the page answers; Ctrl-C stops the server. To open it from another machine, forward the
    port there: ssh -L 5000:127.0.0.1:5000 THIS_MACHINE.
    """
    from nbt.tracking.pages import HOST, bind_port, check_pages, serve_pages

    uri, url = check_pages(tracking_uri), f"http://{HOST}:{port}"
    if opens:
        _check_browser()

    def ready() -> None:
        if not out.quiet:
            print_to_stderr(f"{url} (Ctrl-C stops it)")
        if opens:
            webbrowser.open(url)

    with bind_port(port) as listener, suppress(KeyboardInterrupt):
        serve_pages(uri, listener, ready)


def _check_browser() -> None:
    """Raises UsageError if this machine has no browser."""
    try:
        webbrowser.get()
    except webbrowser.Error as error:
        raise UsageError("--open: there is no browser here; leave it out and open the printed address") from error
