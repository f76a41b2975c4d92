"""How many units a request will be billed for: the infer process has the tokenizers, the daemon asks it.

Over a socket in the data directory: a question must not wait behind jobs in the broker's queue. An infer
process on another machine, or busy with too many questions, gives no answer; then the bound in bytes holds.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingMixIn, UnixStreamServer
from typing import Any, Final

from marketplace.protocol.errors import WattError
from marketplace.protocol.payloads import Payload, parse_payload
from marketplace.protocol.wire import MAX_COUNTED_BYTES
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

# As long as a gateway waits where a call would be refused for want of a count.
_PATIENCE_SECONDS: Final = 5.0
_LONGEST_ANSWER: Final = 24

log = get_logger(__name__)
UnitsIn = Callable[[Payload], int | None]


def count_socket(data_dir: Path) -> Path:
    """Where the infer process of a data directory answers."""
    return data_dir / "run" / "count.sock"


def ask_count(path: Path, payload: bytes) -> int | None:
    """Input units that a request's bytes will be billed for; None when nobody can tell now. Waits briefly."""
    if len(payload) > MAX_COUNTED_BYTES:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(_PATIENCE_SECONDS)
            line.connect(str(path))
            line.sendall(payload)
            line.shutdown(socket.SHUT_WR)
            with line.makefile("rb") as answer:
                said = answer.read(_LONGEST_ANSWER)
    except OSError:
        return None
    return int(said) if said.isdigit() else None


class CountServer:
    """Answers the daemon's questions, a thread each, from `start` to `stop`."""

    def __init__(self, path: Path, units_in: UnitsIn) -> None:
        """`units_in` gives None for a model that is not in memory, and is called on several threads."""
        self._path = path
        self._units_in = units_in
        self._server: _Server | None = None

    def start(self) -> None:
        """Starts answering. Where no socket can be, such as at too long a path, the log says so."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            # A former process that was killed left it.
            self._path.unlink(missing_ok=True)
            self._server = _Server(str(self._path), self._units_in)
        except OSError as error:
            log.warning(Log.LOOP_FAILED, loop="count", reason=str(error))
            return
        threading.Thread(target=self._server.serve_forever, name="count", daemon=True).start()

    def stop(self) -> None:
        """Stops answering. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            self._path.unlink(missing_ok=True)


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, units_in: UnitsIn) -> None:
        self.units_in = units_in
        super().__init__(path, _Question)

    def handle_error(self, *_: Any) -> None:
        """Says that a question failed, without its text."""
        log.warning(Log.LOOP_FAILED, loop="count", reason="a question was not answered")


class _Question(StreamRequestHandler):
    timeout = 2.0
    server: _Server

    def handle(self) -> None:
        """Reads a request to its end; answers digits, or nothing."""
        data = self.rfile.read(MAX_COUNTED_BYTES + 1)
        try:
            units = self.server.units_in(parse_payload(data))
        except WattError:
            # It cannot be run either, and whoever orders it hears why.
            return
        if units is not None:
            self.wfile.write(str(units).encode())
