"""Signatures: one form only, and the signer is who it says."""

from __future__ import annotations

import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace.protocol.eip712 import Domain
from marketplace.protocol.messages import Close
from marketplace.protocol.signing import BadSignature, Signer, compact, recover, signer_of

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
DOMAIN = Domain(31337, "0x5FbDB2315678afecb367f032d93F642f64180aa3")
SIGNER = Signer(b"\x11" * 32)


@settings(max_examples=50)
@given(secret=st.integers(1, ORDER - 1), digest=st.binary(min_size=32, max_size=32))
def test_signature_equals_eth_account(secret: int, digest: bytes) -> None:
    key = secret.to_bytes(32, "big")
    theirs = Account.unsafe_sign_hash(digest, key)
    ours = Signer(key).sign_digest(digest)
    assert ours == bytes(theirs.signature)
    assert recover(digest, ours) == Account.from_key(key).address


def test_message_signature_recovers_its_signer() -> None:
    close = Close(session_id=bytes(32), min_paid_atoms=7)
    assert signer_of(close, DOMAIN, SIGNER.sign(close, DOMAIN)) == SIGNER.address


def test_changed_message_has_another_signer() -> None:
    signature = SIGNER.sign(Close(session_id=bytes(32), min_paid_atoms=7), DOMAIN)
    assert signer_of(Close(session_id=bytes(32), min_paid_atoms=8), DOMAIN, signature) != SIGNER.address


def malleable(signature: bytes) -> bytes:
    high = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + high.to_bytes(32, "big") + bytes([55 - signature[64]])


@pytest.mark.parametrize(
    "twist",
    [
        malleable,
        lambda s: s[:64],
        lambda s: s + b"\0",
        lambda s: s[:64] + bytes([s[64] - 27]),
        lambda _: bytes(65),
        lambda _: bytes(64) + b"\x1b",
        lambda _: b"",
    ],
)
def test_other_signature_forms_are_refused(twist: object) -> None:
    digest = b"\x07" * 32
    with pytest.raises(BadSignature):
        recover(digest, twist(SIGNER.sign_digest(digest)))  # type: ignore[operator]


def test_compact_form_keeps_r_s_and_parity() -> None:
    for i in range(20):
        signature = SIGNER.sign_digest(bytes([i]) * 32)
        r, vs = compact(signature)
        assert r == signature[:32]
        assert int.from_bytes(vs, "big") >> 255 == signature[64] - 27
        assert (int.from_bytes(vs, "big") & ((1 << 255) - 1)).to_bytes(32, "big") == signature[32:64]


def test_secret_does_not_show() -> None:
    assert "11" * 16 not in repr(SIGNER)
