"""A TCP proxy in a process of its own: SIGUSR1 closes all connections, SIGSTOP and SIGCONT stall them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time


def start_proxy(port: int, target: int) -> int:
    """Starts a proxy from one port of localhost to another, and returns its process ID."""
    pid = os.fork()
    if not pid:
        try:
            asyncio.run(_serve(port, target))
        finally:
            os._exit(1)
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return pid
        time.sleep(0.02)
    raise TimeoutError(f"the proxy does not listen on port {port}")


async def _serve(port: int, target: int) -> None:
    writers: set[asyncio.StreamWriter] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        pair = {writer, server_writer}
        writers.update(pair)
        await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer))
        writers.difference_update(pair)

    def drop() -> None:
        for writer in writers:
            writer.transport.abort()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, drop)
    server = await asyncio.start_server(connect, "127.0.0.1", port)
    await server.serve_forever()
