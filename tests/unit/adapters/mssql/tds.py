"""A few words of TDS, the protocol of SQL Server: enough for its real driver to log in and be told.

It shows what the driver sends and what it makes of an error, and nothing of what a server would do.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PRELOGIN, LOGIN, BATCH, REPLY = 0x12, 0x10, 0x01, 0x04
_END = b"\xfd" + struct.pack("<HHQ", 0, 0, 0)
_FAILED = b"\xfd" + struct.pack("<HHQ", 2, 0, 0)
# version, no encryption, no instance, no thread, no multiple result sets
_OPTIONS = [(0, bytes([16, 0, 0, 0, 0, 0])), (1, b"\x02"), (2, b"\0"), (3, b""), (4, b"\0")]

Answer = Callable[[str], bytes]


def number(value: int) -> bytes:
    """Return the answer of one row with one int."""
    column = struct.pack("<HIH", 1, 0, 0) + b"\x38" + _short("v")
    last = b"\xfd" + struct.pack("<HHQ", 0x10, 0xC1, 1)
    return b"\x81" + column + b"\xd1" + struct.pack("<i", value) + last


def refusal(error: int, text: str) -> bytes:
    """Return the answer of an error, by its number and words."""
    words = struct.pack("<H", len(text)) + text.encode("utf-16-le")
    body = struct.pack("<iBB", error, 1, 16) + words + _short("s") + _short("")
    return b"\xaa" + struct.pack("<H", len(body) + 4) + body + struct.pack("<i", 1) + _FAILED


def done(_: str) -> bytes:
    """Answer any statement: it is done."""
    return _END


@dataclass
class Server:
    """What one port heard, and who is connected to it."""

    answer: Answer = done
    login: bytes = b""  # in place of a welcome
    port: int = 0
    heard: list[tuple[int, str]] = field(default_factory=list)  # kind of packet, text of a batch
    open: set[socket.socket] = field(default_factory=set)

    def url(self, more: str = "encrypt=no") -> str:
        """Return the URL that leads here."""
        return f"mssql://u:secret@127.0.0.1:{self.port}/d?login_timeout=5&{more}"

    def serve(self, client: socket.socket) -> None:
        """Answer one client until it goes."""
        self.open.add(client)
        try:
            while True:
                kind, body = _packet(client)
                reply = self._reply(kind, body)
                if not reply:
                    return
                client.sendall(struct.pack(">BBHI", REPLY, 1, len(reply) + 8, 1 << 8) + reply)
        except (EOFError, OSError):
            pass
        finally:
            self.open.discard(client)
            client.close()

    def _reply(self, kind: int, body: bytes) -> bytes:
        if kind == PRELOGIN:
            return _prelogin()
        if kind == LOGIN:
            return self.login or _welcome()
        text = ""
        if kind == BATCH:
            text = body[struct.unpack("<I", body[:4])[0] :].decode("utf-16-le")
        self.heard.append((kind, text))
        return self.answer(text)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Have a server answer on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as at:
        server.port = at.getsockname()[1]

        def accept() -> None:
            while True:
                try:
                    client, _ = at.accept()
                except OSError:
                    return
                threading.Thread(target=server.serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server


def _packet(client: socket.socket) -> tuple[int, bytes]:
    body = b""
    while True:
        kind, status, length = struct.unpack(">BBH", _bytes(client, 8)[:4])
        body += _bytes(client, length - 8)
        if status & 1:
            return kind, body


def _bytes(client: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = client.recv(count - len(found))
        if not more:
            raise EOFError
        found += more
    return found


def _prelogin() -> bytes:
    head, data = b"", b""
    for option, value in _OPTIONS:
        head += struct.pack(">BHH", option, 5 * len(_OPTIONS) + 1 + len(data), len(value))
        data += value
    return head + b"\xff" + data


def _welcome() -> bytes:
    size = b"\x04" + _short("4096") + _short("4096")
    name = b"\x01\x74\0\0\x04" + _short("Microsoft SQL Server") + bytes([16, 0, 0, 0])
    told = b"\xe3" + struct.pack("<H", len(size)) + size
    return told + b"\xad" + struct.pack("<H", len(name)) + name + _END


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("utf-16-le")
