"""Keys are made once, and nobody else reads them."""

import os
import secrets
import threading
from pathlib import Path

import pytest

from marketplace.protocol.errors import BadRequest
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.sealing import public_key
from worker.node.keys import ENCRYPTION, SETTLER, SIGNING, KeyRing


def ring(folder: Path, **given: str | None) -> KeyRing:
    return KeyRing(folder / "keys", given, secrets.token_bytes)


def test_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    secret = ring(tmp_path).secret(SIGNING)
    file = tmp_path / "keys" / "signing.key"
    assert ring(tmp_path).secret(SIGNING) == secret
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["signing.key"]


def test_processes_that_start_together_agree_on_the_key(tmp_path: Path) -> None:
    found: list[bytes] = []
    gate = threading.Barrier(2)

    class Slow(KeyRing):
        def _make(self, path: Path) -> None:
            gate.wait()
            # Threads share a pid; processes do not.
            super()._make(path)

    def read(pid: int) -> None:
        found.append(Slow(tmp_path / "keys", {}, lambda size: bytes([pid]) * size).secret(SETTLER))

    names = iter((1, 2))
    original = os.getpid
    os.getpid = lambda: threading.get_ident()  # type: ignore[assignment]
    try:
        threads = [threading.Thread(target=read, args=(next(names),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        os.getpid = original
    assert len(set(found)) == 1


def test_given_key_is_used_and_not_written(tmp_path: Path) -> None:
    given = to_hex(b"\x07" * 32)
    assert ring(tmp_path, signing=given).secret(SIGNING) == b"\x07" * 32
    assert not (tmp_path / "keys").exists()


def test_key_file_others_can_read_is_refused(tmp_path: Path) -> None:
    ring(tmp_path).secret(SIGNING)
    (tmp_path / "keys" / "signing.key").chmod(0o644)
    with pytest.raises(BadRequest, match="chmod 600"):
        ring(tmp_path).secret(SIGNING)


@pytest.mark.parametrize("given", ["", "0x12", "no hex", "0x" + "zz" * 32])
def test_key_that_is_none_is_refused_without_being_shown(tmp_path: Path, given: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ring(tmp_path, signing=given).secret(SIGNING)
    assert caught.value.detail == "the signing key must be 0x and 64 hex digits"


def test_public_keys_are_those_of_the_secrets(tmp_path: Path) -> None:
    keys = ring(tmp_path)
    public = keys.public()
    assert public.signer == keys.signer(SIGNING).address
    assert public.settler == keys.signer(SETTLER).address
    assert public.encryption_key == public_key(keys.secret(ENCRYPTION))
