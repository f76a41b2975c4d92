from __future__ import annotations

import secrets

import pytest

from marketplace.funding.vault import Vault, load_secret
from marketplace.protocol.errors import Broken


def test_sealed_key_opens_only_with_the_same_secret_and_address():
    vault = Vault(b"\x01" * 32, secrets.token_bytes)
    signer, sealed = vault.create()
    assert signer.secret not in sealed
    assert Vault(b"\x01" * 32, secrets.token_bytes).open(signer.address, sealed).secret == signer.secret
    for other, address, box in (
        (b"\x02" * 32, signer.address, sealed),
        (b"\x01" * 32, "0x" + "00" * 20, sealed),
        (b"\x01" * 32, signer.address, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (b"\x01" * 32, signer.address, b""),
    ):
        with pytest.raises(Broken):
            Vault(other, secrets.token_bytes).open(address, box)


def test_secret_file_is_made_once_for_its_owner_only(tmp_path):
    path = tmp_path / "deep" / "secret"
    first = load_secret(path, secrets.token_bytes)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_secret(path, secrets.token_bytes) == first


def test_secret_file_that_others_read_or_that_is_cut_is_refused(tmp_path):
    path = tmp_path / "secret"
    load_secret(path, secrets.token_bytes)
    path.chmod(0o644)
    with pytest.raises(Broken, match="chmod 600"):
        load_secret(path, secrets.token_bytes)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(Broken, match="32 bytes"):
        load_secret(path, secrets.token_bytes)
