"""How fast messages are signed and checked: as gateway, node and client do it, against secp256k1 alone.

Ours is the whole of it: the message made of its fields, its EIP-712 digest, the signature; then the message
read from its bytes, its digest, the recovered signer as an address, and a look whether that is the right one.
Bare is coincurve's `sign_recoverable` and its recovery of a public key, on digests that lie ready.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from coincurve import PrivateKey, PublicKey

from marketplace.protocol.eip712 import Message
from marketplace.protocol.messages import Order, Receipt, Voucher
from marketplace.protocol.signing import Signer, signer_of
from tests.assure.figures import Figure, digits
from tests.flow.gateway import DOMAIN

GOAL: Final = "≥ 0.6"
_SIGNERS: Final = 32
_MADE: Final = 256


def figures(*, quick: bool) -> Iterator[Figure]:
    """Messages signed and checked in a second of one core, and that against the bare rate."""
    rounds, times = (3, 1) if quick else (11, 4)
    dice = random.Random(41)  # noqa: S311  # for keys and field values
    signers = [Signer(dice.randbytes(32)) for _ in range(_SIGNERS)]
    for kind, fields in KINDS.items():
        work = [(signers[i % _SIGNERS], fields(dice)) for i in range(_MADE)]
        ours, bare = _rates(lambda: _ours(kind, work), lambda: _bare(kind, work), rounds, times)  # noqa: B023
        name = f"{kind.__name__.lower()}s"
        yield Figure(name=f"{name} signed and checked", value=digits(ours), unit="per core-s")
        yield Figure(name=f"{name}, secp256k1 alone", value=digits(bare), unit="per core-s")
        yield Figure(name=f"{name}, ours ÷ secp256k1 alone", value=digits(ours / bare), goal=GOAL)


Work = Sequence[tuple[Signer, dict[str, Any]]]
Turn = Callable[[], float]


def _ours(kind: type[Message], work: Work) -> float:
    """CPU seconds to sign all and check all."""
    begin = time.thread_time()
    signed = []
    for signer, fields in work:
        message = kind(**fields)
        signed.append((message.encode(), signer.sign(message, DOMAIN)))
    for (signer, _), (data, signature) in zip(work, signed, strict=True):
        if signer_of(kind.decode(data), DOMAIN, signature) != signer.address:
            raise AssertionError("a signature is not its signer's")
    return time.thread_time() - begin


def _bare(kind: type[Message], work: Work) -> float:
    """CPU seconds of the curve alone for the same digests."""
    ready = [(PrivateKey(signer.secret), kind(**fields).digest(DOMAIN)) for signer, fields in work]
    begin = time.thread_time()
    signed = [(digest, key.sign_recoverable(digest, hasher=None)) for key, digest in ready]
    for digest, signature in signed:
        PublicKey.from_signature_and_message(signature, digest, hasher=None)
    return time.thread_time() - begin


def _rates(ours: Turn, bare: Turn, rounds: int, times: int) -> tuple[float, float]:
    """Messages a core second of both: medians of rounds in which each has its turn."""
    seen: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for turn, found in zip((ours, bare), seen, strict=True):
            found.append(times * _MADE / sum(turn() for _ in range(times)))
    return statistics.median(seen[0]), statistics.median(seen[1])


def _order(dice: random.Random) -> dict[str, Any]:
    return {
        "session_id": dice.randbytes(32),
        "seq": dice.getrandbits(20),
        "offer_hash": dice.randbytes(32),
        "request_hash": dice.randbytes(32),
        "max_amount_atoms": dice.getrandbits(40),
        "issued_at_ms": 1_800_000_000_000 + dice.getrandbits(30),
        "deadline_ms": 1_800_000_120_000 + dice.getrandbits(30),
        "reply_key": bytes(32),
    }


def _receipt(dice: random.Random) -> dict[str, Any]:
    return {
        "order_hash": dice.randbytes(32),
        "response_hash": dice.randbytes(32),
        "exec_hash": dice.randbytes(32),
        "units_in": dice.getrandbits(12),
        "units_out": dice.getrandbits(10),
        "amount_atoms": dice.getrandbits(30),
        "started_at_ms": 1_800_000_000_000 + dice.getrandbits(30),
        "finished_at_ms": 1_800_000_060_000 + dice.getrandbits(30),
        "energy_millijoules": dice.getrandbits(20),
        "status": 1,
    }


def _voucher(dice: random.Random) -> dict[str, Any]:
    return {
        "session_id": dice.randbytes(32),
        "through_seq": dice.getrandbits(20),
        "amount_atoms": dice.getrandbits(40),
        "receipts_root": dice.randbytes(32),
    }


KINDS: Final[dict[type[Message], Callable[[random.Random], dict[str, Any]]]] = {
    Order: _order,
    Receipt: _receipt,
    Voucher: _voucher,
}
