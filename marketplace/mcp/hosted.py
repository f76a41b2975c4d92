"""The market as a gateway's bearer key sees it: the gateway signs, within what the key's sessions hold."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import anyio
from starlette.types import ASGIApp

from marketplace.client.bundle import Bundle
from marketplace.client.gateway import Gateway
from marketplace.client.problems import GatewayProblem, GatewayTrouble, problem_of
from marketplace.client.quotes import Quote
from marketplace.client.verify import Check, verify_receipt
from marketplace.client.views import Surroundings
from marketplace.mcp.clerk import Caller, Visit
from marketplace.mcp.limits import Limits, Words
from marketplace.mcp.loopback import Loopback
from marketplace.mcp.shelf import Shelf
from marketplace.mcp.shop import Bought, Currency, Limit, Purse, Step, Told, Wish
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.ids import api_key_hash

PER_JOB: Final = "x-watt-per-job"
BUDGET: Final = "x-watt-budget"
MODELS: Final = "x-watt-models"
_MOST_CALLERS: Final = 1_000
_CANCEL_SECONDS: Final = 5
_LOOK_BACK: Final = 100
# A call may be cut off while its job is being placed.
_LOOKS: Final = 4
_LOOK_SECONDS: Final = 0.25
# What an answer of a task's route has besides the answer itself.
_AROUND: Final = frozenset({"object", "model", "usage", "job_id", "receipt"})
AddressOf = Callable[[str], Awaitable[str]]


class HostedClerk:
    """Serves whoever comes with a bearer key. Without one there are models and prices to see.

    Args:
        app: the gateway's own HTTP API; every rule it has for a caller holds here too.
        address_of: the address of a bearer secret's key.
    """

    def __init__(
        self, app: ASGIApp, address_of: AddressOf, currency: Currency, now_ms: Callable[[], int]
    ) -> None:
        self._app, self._address_of, self._currency, self._now_ms = app, address_of, currency, now_ms
        self._shelf = Shelf()
        self._limits: OrderedDict[tuple[str, Words], Limits] = OrderedDict()

    async def serve(self, caller: Caller) -> Visit:
        """A visit with the key and the limits that the caller's headers name. Raises `BadRequest`."""
        kind, _, secret = caller.headers.get("authorization", "").partition(" ")
        key = secret.strip() if kind.lower() == "bearer" else ""
        said = caller.headers.get
        words = Words(per_job=said(PER_JOB), budget=said(BUDGET), models=said(MODELS))
        around = Surroundings(now_ms=self._now_ms)
        # Nothing to close: its only connection is a call of the app.
        gateway = Gateway(
            "http://gateway", around, api_key=key or None, transport=Loopback(self._app, caller.address)
        )
        shop = HostedShop(gateway, key, self._address_of, self._currency, self._now_ms)
        owner = api_key_hash(key).hex() if key else ""
        limits = self._limits_of(owner, words)
        if key and words.budget is not None:
            # By the gateway's books: they know what other hosts with this key spent, and survive a restart.
            limits.spent_atoms = await shop.spent_atoms()
        return Visit(shop=shop, limits=limits, shelf=self._shelf, owner=owner)

    def _limits_of(self, owner: str, words: Words) -> Limits:
        """The same for every call of one key with the same headers: calls at once hold money together."""
        found = self._limits.pop((owner, words), None) or Limits(words, self._currency)
        self._limits[owner, words] = found
        if len(self._limits) > _MOST_CALLERS:
            self._limits.popitem(last=False)
        return found


class HostedShop:
    """A shop over a gateway's HTTP API."""

    def __init__(
        self,
        gateway: Gateway,
        key: str,
        address_of: AddressOf,
        currency: Currency,
        now_ms: Callable[[], int],
    ) -> None:
        self._gateway, self._key, self._address_of = gateway, key, address_of
        self._currency, self._now_ms = currency, now_ms

    @property
    def currency(self) -> Currency:
        """The deployment's token."""
        return self._currency

    def now_ms(self) -> int:
        """The gateway's clock."""
        return self._now_ms()

    async def models(self) -> list[dict[str, Any]]:
        """Models on offer."""
        return list((await self._gateway.get("/v1/models"))["data"])

    async def quotes(self, wish: Wish) -> list[Quote]:
        """Quotes of this gateway."""
        own = dict(wish.fields) if wish.task in ("chat", "embed") else {"body": dict(wish.fields)}
        found = await self._gateway.post("/v1/quotes", {"model": wish.model, "task": wish.task, **own})
        return [Quote.from_json(row) for row in found["quotes"]]

    async def buy(self, wish: Wish, limit: Limit, told: Told) -> Bought:
        """Asks the gateway's own route for the task. The trace id finds the job again when it is cut off."""
        if not self._key:
            raise BadRequest(ErrorCode.MISSING_KEY)
        trace_id = secrets.token_hex(16)
        headers = {
            "idempotency-key": limit.once,
            "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01",
        }
        model = wish.model_id or wish.model
        body = {"model": model, **wish.fields, "max_cost": self._currency.bare(limit.most_atoms)}
        body |= {} if limit.node_id is None else {"node": limit.node_id}
        try:
            if wish.task == "chat":
                # The SDK's default too: the same words give the same answer.
                return await self._chat(body | {"temperature": 0, "stream": True}, headers, told)
            path = "/v1/embeddings" if wish.task == "embed" else f"/v1/{wish.task}"
            return _bought(await self._gateway.post(path, body, headers=headers), wish.task)
        except GatewayProblem as problem:
            if problem.code is not ErrorCode.NOT_READY:
                raise
            # This gateway stops, and the job goes on.
            await told(Step.ORDERED, "")
            raise GatewayTrouble(problem.detail, hint="Ask for the job in a moment: job(id).") from problem
        except anyio.get_cancelled_exc_class():
            await self._cancel(trace_id)
            raise

    async def job(self, job_id: str) -> dict[str, Any]:
        """A job of this gateway."""
        return await self._gateway.get(f"/v1/jobs/{job_id}")

    async def receipt(self, receipt_id: str) -> dict[str, Any]:
        """A bundle of this gateway."""
        return await self._gateway.get(f"/v1/receipts/{receipt_id}")

    async def checks(self, bundle: dict[str, Any]) -> list[Check]:
        """The offline checks; what the chain says of a receipt its reader should ask without the gateway."""
        return verify_receipt(bundle)

    async def spent_atoms(self) -> int:
        """What the key has spent in all, what its running jobs may cost among it."""
        return int((await self._gateway.get("/v1/keys/me"))["spent_atoms"])

    async def purse(self) -> Purse:
        """What the key's open sessions hold; that is all it can spend."""
        if not self._key:
            raise BadRequest(ErrorCode.MISSING_KEY)
        listed = await self._gateway.get("/v1/sessions", params={"key": await self._address_of(self._key)})
        rows = [row for row in listed["data"] if row["status"] == "open"]
        left = sum(int(row["left_atoms"]) for row in rows)
        ends = max((int(row["expires_at"]) for row in rows), default=None)
        return Purse(left_atoms=left, in_sessions_atoms=left, expires_at=ends)

    async def _chat(self, body: dict[str, Any], headers: dict[str, str], told: Told) -> Bought:
        job_id, finish, pieces, last = "", "", [], {}
        async with aclosing(self._gateway.events("/v1/chat/completions", body, headers=headers)) as events:
            async for event in events:
                data = event.data
                if event.name == "job":
                    job_id = str(data["job_id"])
                    await told(Step.ORDERED, job_id)
                elif "code" in data:
                    raise problem_of(data)
                elif data["choices"]:
                    choice = data["choices"][0]
                    finish = choice["finish_reason"] or finish
                    pieces.append(choice["delta"].get("content") or "")
                    if pieces[-1]:
                        await told(Step.RUNNING, job_id)
                else:
                    last = data
        if not last:
            raise GatewayTrouble("The gateway ended the stream without its last part.", job_id=job_id)
        return _bought(last | {"text": "".join(pieces), "finish": finish}, "chat")

    async def _cancel(self, trace_id: str) -> None:
        """Ends a job nobody waits for any more, if it was placed."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_SECONDS):
            for _ in range(_LOOKS):
                try:
                    rows = (await self._gateway.get("/v1/jobs", params={"limit": str(_LOOK_BACK)}))["data"]
                    found = [row["job_id"] for row in rows if row["trace_id"] == trace_id]
                    for job_id in found:
                        await self._gateway.post(f"/v1/jobs/{job_id}/cancel", {})
                except (GatewayProblem, GatewayTrouble):
                    return  # It has ended, or ends at its deadline.
                if found:
                    return
                await anyio.sleep(_LOOK_SECONDS)


def _bought(answer: dict[str, Any], task: str) -> Bought:
    """What was bought, by its signed receipt and not by what the answer says of it."""
    bundle = Bundle.from_json(answer["receipt"])
    own: dict[str, Any] = {"text": answer.get("text"), "finish": answer.get("finish")}
    if task == "embed":
        own = {"vectors": [row["embedding"] for row in answer["data"]]}
    elif task != "chat":
        own = {"answer": {name: value for name, value in answer.items() if name not in _AROUND}}
    return Bought(
        **own,
        job_id=bundle.job_id,
        receipt_id=bundle.receipt_id,
        node_id=bundle.node_id,
        model_id=to_hex(bundle.offer.model_id),
        cost_atoms=bundle.receipt.amount_atoms,
        ceiling_atoms=bundle.order.max_amount_atoms,
        units_in=bundle.receipt.units_in,
        units_out=bundle.receipt.units_out,
        energy_millijoules=bundle.receipt.energy_millijoules,
        checks=verify_receipt(answer["receipt"]),
    )
