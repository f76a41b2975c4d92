"""Sessions of one key: reuse, adopt, top up or open; what the chain says decides, never the gateway."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import anyio

from marketplace.client.caps import HeldKey, held_key
from marketplace.client.desk import Desk, threaded
from marketplace.client.journal import Session, SessionUse
from marketplace.client.payer import Payer
from marketplace.client.problems import GatewayProblem
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS, from_hex, to_hex
from marketplace.protocol.messages import Open, TopUp


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPolicy:
    """How sessions are funded.

    Attributes:
        min_atoms: a fresh session holds at least this, where the account has it.
        jobs_ahead: a fresh session or top-up covers this many jobs like the present one.
        lifetime_seconds: from opening to expiry; the contract's limit bounds it.
        open_within_seconds: an `Open` not mined by then is void.
        expiry_margin_seconds: an order's deadline stays this far from its session's expiry.
        wait_seconds: longest wait for the chain.
    """

    min_atoms: int = 250_000
    jobs_ahead: int = 20
    lifetime_seconds: int = 6 * 3600
    open_within_seconds: int = 600
    expiry_margin_seconds: int = 30
    wait_seconds: int = 60
    poll_seconds: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Purse:
    """Money for sessions: a buyer's account, and of it what a key's caps leave; no `held` for its own."""

    buyer: str
    account_atoms: int
    held: HeldKey | None = None

    @property
    def free_atoms(self) -> int:
        """What may move now."""
        return min(self.account_atoms, self.held.left_today_atoms) if self.held else self.account_atoms

    def room(self, held_atoms: int = 0) -> int:
        """What a session that holds so much can still take."""
        if self.held is None:
            return self.free_atoms
        return max(0, min(self.free_atoms, self.held.state.per_session_atoms - held_atoms))

    def lacks(self, need_atoms: int) -> BadRequest:
        """What is in the way of so much: the cap that leaves least, else the account."""
        if self.held is None:
            return _short(need_atoms, self.account_atoms)
        caps = {
            "total": self.held.left_atoms,
            "day": self.held.left_today_atoms,
            "session": self.held.state.per_session_atoms,
        }
        tightest = min(caps, key=lambda name: caps[name])
        if caps[tightest] < need_atoms:
            return _capped(need_atoms, caps[tightest], tightest, self.buyer)
        return _buyer_short(need_atoms, self.account_atoms, self.buyer)


class SessionPool:
    """Sessions of `key`, paid from an account; without `payer` only those opened for the key."""

    def __init__(self, desk: Desk, payer: Payer | None, policy: SessionPolicy) -> None:
        self.payer, self._desk, self._policy = payer, desk, policy
        self._lifetime_seconds = min(policy.lifetime_seconds, desk.deployment.max_session_seconds)
        self._locks: dict[int, anyio.Lock] = defaultdict(anyio.Lock)
        self._seen: set[bytes] = set()

    async def seat(self, node_id: int, epoch: int, max_atoms: int, deadline_ms: int) -> tuple[Session, int]:
        """A session of this node and a sequence number in it with `max_atoms` set aside.

        Raises:
            BadRequest: no session, and no account to open one from, or too little in it.
            ChainTrouble: the chain did not confirm in time.
        """
        async with self._locks[node_id]:
            usable = await self._usable(node_id, epoch, deadline_ms)
            for session in usable:
                seq = self._desk.journal.take_seat(session.session_id, max_atoms, deadline_ms)
                if seq is not None:
                    return session, seq
            session = await self._fund(node_id, usable, max_atoms, deadline_ms)
            seq = self._desk.journal.take_seat(session.session_id, max_atoms, deadline_ms)
            if seq is None:
                raise _short(max_atoms, self._desk.journal.left_atoms(session.session_id))
            return session, seq

    def may_open(self, node_id: int) -> bool:
        """Whether nothing that is known here keeps our key from opening a session with this node."""
        return self.payer is None or self.payer.may_pay(node_id)

    def check_model(self, model: str) -> None:
        """Raises `BadRequest` for a model that our key's grant does not list."""
        if self.payer is not None:
            self.payer.check_model(model)

    async def reaches(self, node_id: int, deadline_ms: int) -> bool:
        """Whether our key can pay this node: it may open a session, or somebody opened one for it."""
        if self.may_open(node_id):
            return True
        node = await threaded(self._desk.chain.node, node_id)
        async with self._locks[node_id]:
            return node is not None and bool(await self._usable(node_id, node.epoch, deadline_ms))

    async def open(
        self, node_id: int, amount_atoms: int, *, key: str | None = None, lifetime_seconds: int | None = None
    ) -> Session:
        """Opens a session and waits until the chain has it; `key` is ours unless named."""
        payer = self._need_payer()
        now = self._now()
        terms = Open(
            buyer=payer.buyer,
            key=key or self._desk.key.address,
            node_id=node_id,
            amount_atoms=amount_atoms,
            open_before=now + self._policy.open_within_seconds,
            expires_at=now + min(lifetime_seconds or self._lifetime_seconds, self._lifetime_seconds),
            salt=self._desk.around.random_bytes(32),
        )
        signature = payer.sign(terms, self._desk.domain, node_id)
        # Kept before it leaves: a session that opens after a crash is found again.
        opening = _opening(terms, self._desk.domain)
        self._desk.journal.put_session(opening)
        body = {"open": terms.to_json(), "signature": to_hex(signature)}
        await self._desk.gateway.post("/v1/sessions", body)
        await self._until(opening, amount_atoms)
        return await self._confirmed(opening)

    async def top_up(self, session_id: bytes, added_atoms: int) -> Session:
        """Raises a session's deposit and waits until the chain has it.

        Raises:
            BadRequest: a session whose terms are not in this journal.
        """
        session, payer = self._desk.journal.session(session_id), self._need_payer()
        if session is None or session.terms is None:
            raise BadRequest(
                ErrorCode.UNKNOWN_SESSION,
                f"session {to_hex(session_id)} was not opened from here",
                hint="watt session list",
            )
        state = await threaded(self._desk.chain.session, session_id, session.key)
        if state is None or state.closed:
            raise BadRequest(ErrorCode.SESSION_EXPIRED, f"session {to_hex(session_id)} is not open")
        total = state.deposited_atoms + added_atoms
        message = TopUp(session_id=session_id, deposited_atoms=total)
        body = {
            "top_up": message.to_json(),
            "signature": to_hex(payer.sign(message, self._desk.domain, session.node_id)),
            "open": session.terms.to_json(),
        }
        await self._desk.gateway.post(f"/v1/sessions/{to_hex(session_id)}/topup", body)
        await self._until(session, total)
        return await self._confirmed(session)

    async def sessions(self) -> list[Session]:
        """Sessions of our key as the chain has them now; retired ones left out."""
        held = self._desk.journal.sessions(self._desk.key.address)
        fresh = [await self._confirmed(s) for s in held if s.use is not SessionUse.RETIRED]
        return [s for s in fresh if s.use is SessionUse.OPEN]

    async def _usable(self, node_id: int, epoch: int, deadline_ms: int) -> list[Session]:
        held = self._desk.journal.sessions(self._desk.key.address, node_id)
        for session in held:
            if session.use is not SessionUse.RETIRED and session.session_id not in self._seen:
                await self._confirmed(session)
        usable = self._fitting(node_id, epoch, deadline_ms)
        if not usable:
            await self._adopt(node_id)
            usable = self._fitting(node_id, epoch, deadline_ms)
        return usable

    def _fitting(self, node_id: int, epoch: int, deadline_ms: int) -> list[Session]:
        until = deadline_ms // 1000 + self._policy.expiry_margin_seconds
        return [
            session
            for session in self._desk.journal.sessions(self._desk.key.address, node_id)
            if session.use is SessionUse.OPEN and session.expires_at > until and session.key_epoch == epoch
        ]

    async def _confirmed(self, session: Session) -> Session:
        """The session as the chain has it, kept; retired when the chain will never have it again."""
        state = await threaded(self._desk.chain.session, session.session_id, session.key)
        if state is None:
            lost = session.use is SessionUse.OPEN or self._never_opens(session)
            use = SessionUse.RETIRED if lost else session.use
            fresh = dataclasses.replace(session, use=use)
        else:
            signer = await threaded(self._desk.chain.signer_at, state.node_id, state.key_epoch)
            over = state.closed or state.node_id != session.node_id or signer == ZERO_ADDRESS
            fresh = dataclasses.replace(
                session,
                deposited_atoms=state.deposited_atoms,
                expires_at=state.expires_at,
                key_epoch=state.key_epoch,
                signer=signer,
                use=SessionUse.RETIRED if over or session.use is SessionUse.RETIRED else SessionUse.OPEN,
            )
            self._seen.add(session.session_id)
        self._desk.journal.put_session(fresh)
        return fresh

    def _never_opens(self, session: Session) -> bool:
        return session.terms is None or session.terms.open_before <= self._now()

    async def _adopt(self, node_id: int) -> None:
        """Takes over unused sessions that somebody opened for our key.

        Only unused ones: what was ordered in others from elsewhere, this journal cannot answer for. A gateway
        that hides earlier use gains nothing, since a node never takes a sequence number twice.
        """
        listed = await self._desk.gateway.get("/v1/sessions", params={"key": self._desk.key.address})
        for row in listed.get("data", []):
            session_id = from_hex(str(row["session_id"]), 32)
            fresh = row.get("node_id") == node_id and row.get("next_seq") == 1
            if not fresh or self._desk.journal.session(session_id):
                continue
            state = await threaded(self._desk.chain.session, session_id, self._desk.key.address)
            if state and not state.closed and not state.paid_atoms and not state.through_seq:
                await self._confirmed(_found(session_id, self._desk.key.address, state.node_id))

    async def _fund(self, node_id: int, usable: list[Session], need_atoms: int, deadline_ms: int) -> Session:
        purse = await self._purse()
        ours = [session for session in usable if session.terms is not None]
        short = need_atoms - (self._desk.journal.left_atoms(ours[-1].session_id) if ours else 0)
        if purse.free_atoms < short:
            raise purse.lacks(short)
        wish = max(short, need_atoms * self._policy.jobs_ahead, self._policy.min_atoms)
        if ours:
            room = purse.room(ours[-1].deposited_atoms)
            if room >= short:
                return await self.top_up(ours[-1].session_id, min(room, wish))
        room = purse.room()
        if room < need_atoms:
            raise purse.lacks(need_atoms)
        amount = min(room, max(need_atoms, wish))
        session = await self.open(node_id, amount)
        if session.expires_at <= deadline_ms // 1000:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST,
                "the time-out is longer than a session may last",
                hint="Allow less time.",
            )
        return session

    async def _purse(self) -> _Purse:
        """What may move into sessions now: the account, and of it what the caps of a key leave."""
        payer = self._need_payer()
        account = await threaded(self._desk.chain.account_atoms, payer.buyer)
        if not payer.is_key:
            return _Purse(buyer=payer.buyer, account_atoms=account)
        state = await threaded(self._desk.chain.key, payer.buyer, payer.signer.address)
        held = held_key(state, payer.signer.address, self._now())
        if not held.left_today_atoms:
            raise _spent(held, payer.buyer)
        return _Purse(buyer=payer.buyer, account_atoms=account, held=held)

    async def _until(self, session: Session, deposited_atoms: int) -> None:
        """Returns once the chain has the money in the session, and the gateway knows it too."""
        until_ms = self._desk.now_ms() + self._policy.wait_seconds * 1000
        path, on_chain = f"/v1/sessions/{to_hex(session.session_id)}", False
        while self._desk.now_ms() < until_ms:
            if not on_chain:
                state = await threaded(self._desk.chain.session, session.session_id, session.key)
                on_chain = state is not None and state.deposited_atoms >= deposited_atoms
            told = await self._told(path)
            if on_chain and int(told.get("deposited_atoms") or 0) >= deposited_atoms:
                return
            if not on_chain and told.get("status") == "failed":
                raise _failed(told)
            await self._desk.around.sleep(self._policy.poll_seconds)
        what = "the gateway has not seen it" if on_chain else "it is not on the chain"
        raise ChainTrouble(
            ErrorCode.CHAIN_UNAVAILABLE,
            f"session {to_hex(session.session_id)} is not open after {self._policy.wait_seconds} s: {what}",
        )

    async def _told(self, path: str) -> dict[str, Any]:
        try:
            return await self._desk.gateway.get(path)
        except GatewayProblem as error:
            if error.status == 404:
                return {}
            raise

    def _need_payer(self) -> Payer:
        if self.payer is None:
            raise BadRequest(
                ErrorCode.NO_SESSION,
                f"no open session for key {self._desk.key.address}, and no wallet to open one from",
                hint=f"The buyer opens one: watt session open --key {self._desk.key.address}",
            )
        return self.payer

    def _now(self) -> int:
        return self._desk.now_ms() // 1000


def _opening(terms: Open, domain: Domain) -> Session:
    return Session(
        session_id=terms.digest(domain),
        key=terms.key,
        node_id=terms.node_id,
        terms=terms,
        deposited_atoms=0,
        expires_at=terms.expires_at,
        key_epoch=0,
        signer=ZERO_ADDRESS,
        use=SessionUse.OPENING,
    )


def _found(session_id: bytes, key: str, node_id: int) -> Session:
    return Session(
        session_id=session_id,
        key=key,
        node_id=node_id,
        terms=None,
        deposited_atoms=0,
        expires_at=0,
        key_epoch=0,
        signer=ZERO_ADDRESS,
        use=SessionUse.OPENING,
    )


def _short(need_atoms: int, have_atoms: int) -> BadRequest:
    return BadRequest(
        ErrorCode.SESSION_UNDERFUNDED,
        f"this needs {need_atoms} atoms, there are {have_atoms}",
        need_atoms=need_atoms,
        have_atoms=have_atoms,
        hint="watt wallet deposit AMOUNT",
    )


def _buyer_short(need_atoms: int, have_atoms: int, buyer: str) -> BadRequest:
    return BadRequest(
        ErrorCode.SESSION_UNDERFUNDED,
        f"this needs {need_atoms} atoms, the account of {buyer} has {have_atoms}",
        need_atoms=need_atoms,
        have_atoms=have_atoms,
        buyer=buyer,
        hint=f"Ask {buyer} for a deposit: watt wallet deposit",
    )


def _capped(need_atoms: int, left_atoms: int, cap: str, buyer: str) -> BadRequest:
    wait = "Wait for midnight UTC, or ask" if cap == "day" else "Ask"
    return BadRequest(
        ErrorCode.SESSION_UNDERFUNDED,
        f"this needs {need_atoms} atoms, the key's {cap} cap leaves {left_atoms}",
        need_atoms=need_atoms,
        left_atoms=left_atoms,
        cap=cap,
        hint=f"{wait} {buyer} for a larger one: watt keys create",
    )


def _spent(held: HeldKey, buyer: str) -> BadRequest:
    today = held.left_atoms > 0
    why = "has moved all it may today" if today else "may move nothing more" if held.is_live else "is over"
    return BadRequest(
        ErrorCode.SESSION_UNDERFUNDED,
        f"the grant of key {held.key} {why}",
        hint="Wait for midnight UTC." if today else f"Ask {buyer} for a new one: watt keys create",
    )


def _failed(told: dict[str, Any]) -> GatewayProblem:
    why = str(told.get("problem") or told.get("detail") or "the transaction was refused")
    return GatewayProblem(ErrorCode.TRANSACTION_REVERTED, f"the session did not open: {why}")
