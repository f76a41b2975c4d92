"""What a fuzzer knows of the gateway it asks: who it may be, what exists, and how to sign."""

from __future__ import annotations

import base64
import json
import random
import re
import time
from collections import defaultdict, deque
from typing import Any, Final

from marketplace.protocol import merkle
from marketplace.protocol.eip712 import fields_of
from marketplace.protocol.errors import ErrorCode
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.messages import Offer, Open, Order, TopUp, Visit, Voucher
from marketplace.protocol.payloads import build_payload, encode_payload
from marketplace.protocol.signing import Signer
from tests.flow.gateway import BUYER, DOMAIN, NOW_AT
from tests.flow.paying import header, payment
from tests.fuzz.serving import CALLS, OWN_KEY, TASKS, model_id, own_terms

_STRANGER: Final = Signer(keccak(b"a stranger"))
_SHOWN: Final = 64
_FORMS: Final = {
    "job_id": r"job_[a-z2-7]{24}",
    "receipt_id": r"rcpt_[0-9a-f]{32}",
    "batch_id": r"batch_[a-z2-7]{24}",
    "file_id": r"file-[a-z2-7]{24}",
    "webhook_id": r"wh_[a-z2-7]{24}",
    "message_id": r"msg_[a-z2-7]+_[0-9]+",
    "response_id": r"resp_[a-z2-7]{24}",
    "session_id": r'"session_id": ?"(0x[0-9a-f]{64})"',
    "buyer": r"0x[0-9a-fA-F]{40}(?![0-9a-fA-F])",
    "secret": r"sk-watt-[A-Za-z0-9_-]{32}",
}
_SAME: Final = {
    "input_file_id": "file_id",
    "previous_response_id": "response_id",
    "key": "buyer",
    "taken": "message_id",
}
_AFTER: Final = {"batches": "batch_id", "files": "file_id", "jobs": "job_id", "deliveries": "message_id"}
_SENSIBLE: Final[dict[str, tuple[Any, ...]]] = {
    "node": (1, 2), "n": (1, 2, 3), "retain": ("1h", "30d", "0"), "task": tuple(TASKS.values()),
    "max_cost": ("1", 0.5, "0.000001"), "budget": ("5", 0.01), "models": (["tiny*"], []),
    "endpoint": ("/v1/chat/completions", "/v1/embeddings"), "code": tuple(code.value for code in ErrorCode),
    "url": ("http://there.example/x", "https://[::1]:8/", None), "events": (["job.delivered"], None),
    "max_tokens": (1, 16, 200), "max_output_tokens": (1, 200), "stop": ("i", ["H", "zzz"]),
    "stream": (True, False), "background": (True, False),
}  # fmt: skip
_PRICE: Final = {
    "price_per_job_atoms": 10,
    "price_in_per_million_atoms": 10**6,
    "price_out_per_million_atoms": 2 * 10**6,
}


class Dice(random.Random):
    """Draws what a test sends; the same draws for the same seed."""


class World:
    """Grows with every answer; nothing is kept but the latest of each kind."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state, self._seq = state, state["own_seq"]
        self._seen: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_SHOWN))
        self._asked: dict[str, Any] | None = None
        for text in state["said"]:
            self.learn(text)
        self._seen["secret"].clear()

    def learn(self, text: str, headers: Any = ()) -> None:
        """Remembers every id that an answer shows, and the price it asks for."""
        for kind, form in _FORMS.items():
            for found in re.findall(form, text[:20_000]):
                if found not in self._seen[kind]:
                    self._seen[kind].append(found)
        if "payment-required" in headers:
            self._asked = json.loads(base64.b64decode(headers["payment-required"]))

    def ordered(self) -> None:
        """An order of ours was taken: its number is used up."""
        self._seq += 1

    def now_ms(self) -> int:
        """The gateway's time."""
        return int(self._state["now_ms"] + (time.monotonic() - self._state["began"]) * 1000)

    def named(self, name: str, path: str, dice: Dice) -> Any:
        """Something that exists under this name; None where nothing of the kind does."""
        kind = _SAME.get(name, name)
        if name == "after":
            kind = next((kind for word, kind in _AFTER.items() if path.endswith(word)), "receipt_id")
        if name == "model":
            own = next((call["model"] for place, call in CALLS.items() if place == path), None)
            return own if own and dice.random() < 0.8 else dice.choice(["tiny@best", *TASKS])
        if name in _SENSIBLE:
            return dice.choice(_SENSIBLE[name])
        seen = [
            one
            for one in self._seen.get(kind, ())
            if not (path.startswith("/v1/grants") and self._is_spending(one))
        ]
        return dice.choice(seen) if seen else None

    def _is_spending(self, address: str) -> bool:
        """A key that others of these calls spend with: a grant would bind it to models."""
        return address in (self._state["key"], OWN_KEY.address)

    def credentials(self, operation: str, dice: Dice) -> dict[str, str]:
        """Headers that say who asks: mostly the key with money, but also others, nobody and liars."""
        if operation == "DELETE /v1/keys/me":
            # The key with money has to last.
            secret = (
                self._seen["secret"].pop() if self._seen["secret"] and dice.random() < 0.7 else "sk-watt-gone"
            )
            return {"authorization": f"Bearer {secret}"}
        if operation.startswith("PUT /v1/grants"):
            return self.visit(dice.choice([BUYER, BUYER, _STRANGER]), dice)
        secret = self._state["secret"] if dice.random() < 0.9 else dice.choice([*self._seen["secret"], ""])
        roll = dice.random()
        if roll < 0.75:
            return {"authorization": f"Bearer {secret}"}
        if roll < 0.95:
            return self.visit(OWN_KEY, dice) if roll < 0.85 else {}
        return {
            "authorization": dice.choice(
                ["Bearer", "Bearer \xff", "Basic YTpi", "Bearer sk-watt-" + "x" * 5000]
            )
        }

    def visit(self, signer: Signer, dice: Dice) -> dict[str, str]:
        """A signed visit, at times stale, of another, or cut off."""
        issued = self.now_ms() - dice.choice([0, 0, 0, 0, 299_000, 400_000, -400_000])
        message = Visit(key=signer.address, issued_at_ms=issued)
        by = dice.choice([signer] * 5 + [_STRANGER])
        text = f"{to_hex(message.encode())}.{to_hex(by.sign(message, DOMAIN))}"
        return {"x-watt-visit": text if dice.random() < 0.9 else text[: dice.randrange(len(text))]}

    def paid(self, dice: Dice) -> dict[str, str]:
        """A signed payment of the last price that was asked; at times bent."""
        if self._asked is None:
            return header(dice.choice(["", "e30=", "bnVsbA==", "W10=", "{", "\xff"]))
        data: Any = payment(self._asked, nonce=dice.randbytes(32), valid_before=self.now_ms() // 1000 + 50)
        return header(bent(data, dice) if dice.random() < 0.5 else data)

    @property
    def own_session(self) -> str:
        """Session of the key that signs for itself."""
        return str(self._state["own_session"])

    def honest(self, operation: str, dice: Dice) -> dict[str, Any] | None:
        """A body that is served; None for operations that want none, or a signature."""
        path = operation.removeprefix("POST ")
        if path == "/v1/batches" and self._seen["file_id"]:
            made = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
            return made | {"input_file_id": dice.choice(self._seen["file_id"])}
        if path == "/v1/quotes":
            return dict(CALLS["/v1/chat/completions"])
        return dict(CALLS[path]) if path in CALLS else None

    def signed(self, operation: str, dice: Dice) -> dict[str, Any] | None:
        """A well-signed body of an operation that wants one, whatever its message says; None for others."""
        makers = {
            "POST /v1/jobs": self._order,
            "POST /v1/sessions": self._open,
            "POST /v1/sessions/{session_id}/topup": self._top_up,
            "POST /v1/vouchers": self._voucher,
        }
        maker = makers.get(operation)
        if maker is None:
            return None
        body = maker(dice)
        return bent(body, dice) if dice.random() < 0.25 else body

    def _order(self, dice: Dice) -> dict[str, Any]:
        name = dice.choice(list(TASKS))
        path = next(place for place, call in CALLS.items() if call["model"] == name)
        fields = {field: value for field, value in CALLS[path].items() if field != "model"}
        payload = encode_payload(build_payload(TASKS[name], to_hex(model_id(name)), fields))
        salt, now = dice.randbytes(32), self.now_ms()
        order = Order(
            session_id=bytes.fromhex(self._state["own_session"][2:]),
            seq=self._seq + 1,
            offer_hash=self._offer(name),
            request_hash=merkle.request_hash(salt, payload),
            max_amount_atoms=1_000,
            issued_at_ms=now,
            deadline_ms=now + 60_000,
            reply_key=bytes(32),
        )
        sent = base64.b64encode(payload).decode()
        return self._told("order", order, OWN_KEY, dice) | {"salt": to_hex(salt), "payload": sent}

    def _offer(self, name: str) -> bytes:
        return Offer(
            node_id=1, model_id=model_id(name), max_latency_ms=0, late_discount_bps=0,
            max_millijoules_per_million_out=0, valid_until=NOW_AT + 3600, salt=bytes(32), **_PRICE,
        ).digest(DOMAIN)  # fmt: skip

    def _terms(self, dice: Dice) -> Open:
        now = self.now_ms() // 1000
        return Open(
            buyer=BUYER.address, key=OWN_KEY.address, node_id=1, amount_atoms=500, open_before=now + 60,
            expires_at=now + 3600, salt=dice.randbytes(32),
        )  # fmt: skip

    def _open(self, dice: Dice) -> dict[str, Any]:
        return self._told("open", self._terms(dice), BUYER, dice)

    def _top_up(self, dice: Dice) -> dict[str, Any]:
        more = TopUp(session_id=bytes.fromhex(self._state["own_session"][2:]), deposited_atoms=2 * 10**12)
        about = own_terms() if dice.random() < 0.8 else self._terms(dice)
        return self._told("top_up", more, BUYER, dice) | {"open": about.to_json()}

    def _voucher(self, dice: Dice) -> dict[str, Any]:
        if dice.random() < 0.3:
            return dict(self._state["voucher"])
        session = bytes.fromhex(self._state["own_session"][2:])
        message = Voucher(session_id=session, through_seq=self._seq, amount_atoms=0, receipts_root=bytes(32))
        return self._told("voucher", message, OWN_KEY, dice)

    def _told(self, name: str, message: Any, signer: Signer, dice: Dice) -> dict[str, Any]:
        """A message with one field at an edge, at times, signed by who should, mostly."""
        if dice.random() < 0.5:
            changed = dice.choice(list(fields_of(type(message)).items()))
            values = {field: getattr(message, field) for field in fields_of(type(message))}
            message = type(message)(**values | {changed[0]: _edge(changed[1], dice)})
        by = signer if dice.random() < 0.85 else _STRANGER
        return {name: message.to_json(), "signature": to_hex(by.sign(message, DOMAIN))}


def _edge(field: Any, dice: Dice) -> Any:
    if field.bits:
        top = 1 << field.bits
        return dice.choice([0, 1, top - 1, top >> 1, (top >> 1) - 1, dice.randrange(top)])
    if field.kind == "address":
        return dice.choice([BUYER.address, _STRANGER.address, "0x" + "00" * 20])
    return dice.choice([bytes(32), b"\xff" * 32, dice.randbytes(32)])


def bent(value: Any, dice: Dice) -> Any:
    """The same JSON with one thing in it of another kind, gone or broken."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        name = dice.choice(list(value))
        if dice.random() < 0.15:
            return {key: item for key, item in value.items() if key != name}
        return value | {name: bent(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.9:
        at = dice.randrange(len(value))
        return [*value[:at], bent(value[at], dice), *value[at + 1 :]]
    if isinstance(value, str) and value and dice.random() < 0.6:
        at = dice.randrange(len(value))
        return (
            value[:at]
            + dice.choice(["", "0", "\u00e9", "\x00", "\ud800", "\u0660", " ", "-"])
            + value[at + 1 :]
        )
    odd = [
        None,
        True,
        -1,
        0,
        1 << 64,
        -(1 << 63),
        10**400,
        1.5,
        1e308,
        "",
        "0x",
        "-0",
        [],
        {},
        [[]],
        "9" * 5000,
    ]
    return dice.choice(odd)
