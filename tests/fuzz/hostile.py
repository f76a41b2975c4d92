"""Bodies made to hurt, many at once over real sockets: refused, in memory that does not grow with them."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tests.flow.node import chat_body

MIB: Final = 1 << 20
AT_ONCE: Final = 24
_PATIENCE_SECONDS: Final = 60
_ZEROS: Final = b"\0" * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One body, sent in pieces; `said` are the statuses that refuse it."""

    name: str
    pieces: Iterable[bytes]
    said: frozenset[int]
    path: str = "/v1/chat/completions"
    headers: tuple[str, ...] = ("content-type: application/json",)
    length: int | None = field(default=None)
    """Claimed Content-Length; None for a chunked body."""


class Pieces:
    """The same pieces each time they are asked for, never all at once."""

    def __init__(self, piece: bytes, times: int = 1, before: bytes = b"", after: bytes = b"") -> None:
        self._piece, self._times, self._before, self._after = piece, times, before, after

    def __iter__(self) -> Iterator[bytes]:
        yield self._before
        for _ in range(self._times):
            yield self._piece
        yield self._after


def attacks() -> list[Attack]:
    """Compressed, huge, deep, malformed."""
    chat = json.dumps(chat_body()).encode()[:-1]
    form = ("content-type: multipart/form-data; boundary=x",)
    part = b'--x\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n'
    names = b"".join(b',"%d":0' % number for number in range(90_000))
    bad, large, served = frozenset({400, 422}), frozenset({413}), frozenset({200})
    return [
        Attack(
            name="compressed: 256 MiB of zeros",
            pieces=[gzip.compress(_ZEROS * 256, 1)],
            said=frozenset({415}),
            headers=("content-type: application/json", "content-encoding: gzip"),
        ),
        Attack(name="huge: 64 MiB in chunks", pieces=Pieces(b" " * MIB, 64), said=large),
        Attack(name="huge: claims 1 TiB", pieces=Pieces(_ZEROS), said=large, length=1 << 40),
        Attack(
            name="huge: a file of 40 MiB",
            pieces=Pieces(b"a" * MIB, 40, before=part % (b"file", b'; filename="a"')),
            said=large | {408},
            path="/v1/files",
            headers=form,
        ),
        Attack(
            name="huge: a field of 24 MiB that is no file",
            pieces=Pieces(b"a" * MIB, 24, before=part % (b"purpose", b""), after=b"\r\n--x--\r\n"),
            said=bad,
            path="/v1/files",
            headers=form,
        ),
        Attack(
            name="huge: a million fields",
            pieces=Pieces((part % (b"a", b"") + b"b\r\n") * 1000, 300, after=b"--x--\r\n"),
            said=bad,
            path="/v1/files",
            headers=form,
        ),
        Attack(name="deep: 900,000 brackets", pieces=[b"[" * 900_000], said=bad),
        Attack(name="deep: 100,000 objects", pieces=[b'{"a":' * 100_000 + b"1"], said=bad),
        Attack(name="wide: 300,000 lists", pieces=[chat + b',"a":[' + b"[]," * 300_000 + b"0]}"], said=large),
        Attack(name="wide: 90,000 names", pieces=[b'{"a":0' + names + b"}"], said=large),
        Attack(name="wide: as allowed", pieces=[chat + b',"a":[' + b"[]," * 24_000 + b"0]}"], said=served),
        Attack(name="malformed: no UTF-8", pieces=[b'{"model":"' + b"\xff" * 900_000 + b'"}'], said=bad),
        Attack(name="malformed: a string without end", pieces=[b'{"model":"' + b"a" * 900_000], said=bad),
        Attack(name="malformed: 900,000 digits", pieces=[chat + b',"n":' + b"9" * 900_000 + b"}"], said=bad),
        Attack(name="malformed: beyond all numbers", pieces=[chat + b',"max_cost":1e999}'], said=bad),
    ]  # fmt: skip


def sent(port: int, secret: str, attack: Attack, times: int = AT_ONCE) -> list[int]:
    """Statuses of so many at once; 0 for a connection that was cut before it said anything."""
    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(lambda _: _one(port, secret, attack), range(times)))


def _one(port: int, secret: str, attack: Attack) -> int:
    """Over a plain socket: what was said before a connection was cut can be read after sending has failed."""
    framing = "transfer-encoding: chunked" if attack.length is None else f"content-length: {attack.length}"
    head = [f"POST {attack.path} HTTP/1.1", "host: gateway", f"authorization: Bearer {secret}", framing]
    words: list[bytes] = []
    with socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS) as connection:
        with suppress(ConnectionError):
            connection.sendall("\r\n".join([*head, *attack.headers, "connection: close", "", ""]).encode())
            _push(connection, attack)
        with suppress(ConnectionError), connection.makefile("rb") as answer:
            words = answer.readline().split()
    return int(words[1]) if len(words) > 1 else 0


def _push(connection: socket.socket, attack: Attack) -> None:
    for piece in filter(None, attack.pieces):
        connection.sendall(piece if attack.length is not None else b"%x\r\n%s\r\n" % (len(piece), piece))
    if attack.length is None:
        connection.sendall(b"0\r\n\r\n")
