"""The market as a buyer's own key sees it: every order and voucher is signed on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import anyio

from marketplace.client.aio import AsyncWattline
from marketplace.client.anchors import check_on_chain
from marketplace.client.bundle import Bundle
from marketplace.client.caps import held_key
from marketplace.client.desk import threaded
from marketplace.client.gateway import Event
from marketplace.client.problems import GatewayProblem, GatewayTrouble
from marketplace.client.quotes import Quote
from marketplace.client.results import ChatResult, EmbedResult, Paid, TaskResult
from marketplace.client.verify import CHAIN_CHECKS, Check, passed, verify_receipt
from marketplace.mcp.clerk import Caller, Visit
from marketplace.mcp.limits import Limits, Words
from marketplace.mcp.shelf import Shelf
from marketplace.mcp.shop import Bought, Currency, Limit, Purse, Step, Told, Wish
from marketplace.protocol.errors import WattError

_CANCEL_SECONDS: Final = 5
Keep = Callable[[Sequence[Any]], None]


class OwnClerk:
    """Serves the one user of this machine. The client is opened when it is first needed.

    So a host can list the tools while no market runs yet, and an error of opening reaches the model in words.

    Args:
        keep: takes bundles of receipts that did not hold.
    """

    def __init__(self, open_client: Callable[[], Awaitable[AsyncWattline]], words: Words, keep: Keep) -> None:
        self._open, self._words, self._keep = open_client, words, keep
        self._lock = anyio.Lock()
        self._client: AsyncWattline | None = None
        self._visit: Visit | None = None

    async def serve(self, _caller: Caller) -> Visit:
        """The same visit for every call. Raises as opening a client does."""
        async with self._lock:
            if self._visit is None:
                self._client = await self._open()
                shop = OwnShop(self._client, self._keep)
                payer = self._client.pool.payer
                limits = Limits(self._words, shop.currency, payer.models if payer is not None else ())
                self._visit = Visit(shop=shop, limits=limits, shelf=Shelf(), owner="")
            return self._visit

    async def aclose(self) -> None:
        """Closes the client."""
        if self._client is not None:
            await self._client.aclose()


class OwnShop:
    """A shop over the SDK."""

    def __init__(self, client: AsyncWattline, keep: Keep) -> None:
        self._client, self._keep = client, keep

    @property
    def currency(self) -> Currency:
        """The deployment's token."""
        deployment = self._client.desk.deployment
        return Currency(symbol=deployment.token_symbol, decimals=deployment.token_decimals)

    def now_ms(self) -> int:
        """This machine's clock."""
        return self._client.desk.now_ms()

    async def models(self) -> list[dict[str, Any]]:
        """Models on offer."""
        return await self._client.models()

    async def quotes(self, wish: Wish) -> list[Quote]:
        """Quotes of the gateway; what is signed for one is checked when it is bought."""
        fields = dict(wish.fields)
        if wish.task == "chat":
            return await self._client.quote(fields.pop("messages"), model=wish.model, **fields)
        if wish.task == "embed":
            return await self._client.quote_embed(fields["input"], model=wish.model)
        return await self._client.quote_task(wish.task, fields, model=wish.model)

    async def buy(self, wish: Wish, limit: Limit, told: Told) -> Bought:
        """Signs an order, checks the receipt, pays by voucher."""
        ear = _Ear(told)
        try:
            result = await self._asked(wish, limit, ear)
        except anyio.get_cancelled_exc_class():
            await self._cancel(ear.job_id)
            raise
        except WattError as error:
            faults = error.values.get("faults")
            self._keep(faults if isinstance(faults, tuple) else ())
            raise
        self._keep(result.faults)
        return _bought(result)

    async def job(self, job_id: str) -> dict[str, Any]:
        """A job of this market."""
        return await self._client.job(job_id)

    async def receipt(self, receipt_id: str) -> dict[str, Any]:
        """A bundle as the gateway has it."""
        return await self._client.receipt(receipt_id)

    async def checks(self, bundle: dict[str, Any]) -> list[Check]:
        """Offline checks, then, where they hold, the chain's."""
        made, desk = verify_receipt(bundle), self._client.desk
        if not passed(made):
            return made
        on_chain = await threaded(check_on_chain, Bundle.from_json(bundle), desk.chain, desk.domain)
        return [check for check in made if check.name not in CHAIN_CHECKS] + on_chain

    async def purse(self) -> Purse:
        """The account, and of it what the key's caps leave; with what open sessions hold."""
        desk, payer = self._client.desk, self._client.pool.payer
        open_now = await self._client.sessions()
        inside = sum(desk.journal.left_atoms(session.session_id) for session in open_now)
        if payer is None:
            ends = max((session.expires_at for session in open_now), default=None)
            return Purse(left_atoms=inside, in_sessions_atoms=inside, expires_at=ends)
        account = await threaded(desk.chain.account_atoms, payer.buyer)
        if not payer.is_key:
            return Purse(left_atoms=account + inside, in_sessions_atoms=inside)
        state = await threaded(desk.chain.key, payer.buyer, payer.signer.address)
        held = held_key(state, payer.signer.address, desk.now_ms() // 1000)
        return Purse(
            left_atoms=min(account, held.left_today_atoms) + inside,
            in_sessions_atoms=inside,
            per_session_atoms=state.per_session_atoms,
            expires_at=state.expires_at,
        )

    async def _asked(self, wish: Wish, limit: Limit, ear: _Ear) -> Paid:
        fields = dict(wish.fields)
        more: dict[str, Any] = {
            "model": wish.model,
            "max_cost": self.currency.bare(limit.most_atoms),
            "node": limit.node_id,
            "model_id": wish.model_id,
            "heard": ear.heard,
        }
        if wish.task == "chat":
            chatted: Paid = await self._client.chat(fields.pop("messages"), **fields, **more)
            return chatted
        if wish.task == "embed":
            return await self._client.embed(fields["input"], **more)
        return await self._client.ask(wish.task, fields, **more)

    async def _cancel(self, job_id: str) -> None:
        """Ends a job nobody waits for any more. Its receipt is taken in with the session's next job."""
        if not job_id:
            return
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_SECONDS):
            try:
                await self._client.cancel(job_id)
            except (GatewayProblem, GatewayTrouble):
                return  # It has ended, or ends at its deadline.


class _Ear:
    """Makes steps of a job's events."""

    def __init__(self, told: Told) -> None:
        self.job_id = ""
        self._told = told

    async def heard(self, event: Event) -> None:
        """One event of the job."""
        self.job_id = str(event.data.get("job_id") or self.job_id)
        if event.name in ("order", "job"):
            await self._told(Step.ORDERED, self.job_id)
        elif event.name == "chunk":
            await self._told(Step.RUNNING, self.job_id)


def _bought(result: Paid) -> Bought:
    common = Bought(
        job_id=result.job_id,
        receipt_id=result.receipt_id,
        node_id=result.node_id,
        model_id=result.model_id,
        cost_atoms=result.cost_atoms,
        ceiling_atoms=result.ceiling_atoms,
        units_in=result.units_in,
        units_out=result.units_out,
        energy_millijoules=result.energy_millijoules,
        checks=result.checks,
    )
    match result:
        case ChatResult():
            return dataclasses.replace(common, text=result.text, finish=result.finish)
        case EmbedResult():
            return dataclasses.replace(common, vectors=result.vectors)
        case TaskResult():
            return dataclasses.replace(common, answer=result.answer)
        case _:
            return common
