"""`nbt ui`: serves the web interface of MLflow for the runs of the studies."""

from __future__ import annotations

import os
import socket
import sys

import click

from nbt.cli.display.output import Output
from nbt.cli.options.common import Command, config_option
from nbt.errors import UsageError


@click.command(cls=Command, prints_results=False)
@config_option("tracking_uri")
@click.option("--port", metavar="N", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Local port.")
def command(out: Output, tracking_uri: str | None, port: int) -> None:
    """Serve the MLflow web interface, on this machine only.

    To open it from another machine, forward the port there: ssh -L 5000:127.0.0.1:5000 THIS_MACHINE.
    """
    from nbt.tracking import ui_command

    arguments = ui_command(tracking_uri, port)
    check_port(port)
    if not out.quiet:
        print(f"http://127.0.0.1:{port} (Ctrl-C stops it)", file=sys.stderr, flush=True)
    os.execvp(arguments[0], arguments)


def check_port(port: int) -> None:
    """Checks that a local port is free.

    Raises:
        UsageError: The port is in use, or it may not be used.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(f"--port {port} cannot be used ({error.strerror}); choose another port") from error
