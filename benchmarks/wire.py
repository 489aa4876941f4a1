"""A proxy before the server's socket that counts the bytes of both directions."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

_CHUNK = 1 << 20


class Wire:
    """Bytes that went over it; `url` leads through it."""

    def __init__(self, url: str) -> None:
        self.bytes = 0
        self.url = url


@contextmanager
def wiretap(url: str) -> Iterator[Wire]:
    """Stand between a client and the unix socket of `url`."""
    host = parse_qs(urlsplit(url).query)["host"][0]
    with tempfile.TemporaryDirectory(prefix="naviglio-wire-") as folder:
        wire = Wire(url.replace(f"host={quote(host)}", f"host={quote(folder)}"))
        name = ".s.PGSQL.5432"
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(_serve(wire, Path(folder, name), Path(host, name)))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield wire
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def _serve(wire: Wire, here: Path, there: Path) -> asyncio.Server:
    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_unix_connection(there)
        await asyncio.gather(_pump(wire, reader, onward_writer), _pump(wire, onward_reader, writer))

    return await asyncio.start_unix_server(meet, here)


async def _pump(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            wire.bytes += len(data)
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
