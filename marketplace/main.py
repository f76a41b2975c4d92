"""The gateway process: migrate, check the chain, serve, and run the keeper's loops inside."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

import uvicorn
from pydantic import ValidationError

from marketplace.api.app import create_app
from marketplace.api.bodies import BodyLimits
from marketplace.api.limits import Rates, networks
from marketplace.api.routes.system import Check, Health
from marketplace.batches.step import Limits
from marketplace.chain.client import ChainClient
from marketplace.chain.deployment import Deployment
from marketplace.chain.sender import Sender
from marketplace.chain.tokens import token_domain
from marketplace.dispatch.terms import Terms
from marketplace.flow import Market
from marketplace.funding.receivers import Receivers
from marketplace.funding.vault import Vault, load_secret
from marketplace.keeper.batches import BatchRunner
from marketplace.keeper.clockwork import Clockwork
from marketplace.keeper.courier import Courier
from marketplace.keeper.follow import Follower
from marketplace.keeper.loops import LoopBoard, run_loop
from marketplace.keeper.pump import Pump
from marketplace.keeper.pushed import Pushed
from marketplace.keeper.reconcile import Reconciler
from marketplace.mcp.door import Door, is_installed, mount
from marketplace.openai.answers import KEEP_ALIVE_SECONDS
from marketplace.protocol.errors import BadRequest, ChainTrouble, WattError
from marketplace.protocol.signing import Signer
from marketplace.protocol.wire import MAX_FRAME_BYTES
from marketplace.settings import Settings
from marketplace.settlement.step import on_settled
from marketplace.store import outbox
from marketplace.store.engine import Store
from marketplace.store.migrations import upgrade
from marketplace.store.transactions import StoreJournal
from marketplace.telemetry.logs import get_logger, set_up
from marketplace.telemetry.metrics import Metrics
from marketplace.telemetry.names import Log

_SHUTDOWN_SECONDS: Final = 5
_LOOP_SLACK_MS: Final = 30_000
_STUCK_MS: Final = 120_000
log = get_logger(__name__)


def main() -> None:
    """Runs the gateway until SIGTERM or Ctrl-C; exits 1 with one line on what is wrong."""
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "WATT_" + "_".join(str(part) for part in first["loc"]).upper()
        sys.exit(f"{name}: {first['msg']}")
    set_up(settings.log_level)
    try:
        # The loop uvicorn would take: uvloop, where it is installed.
        with asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory()) as runner:
            runner.run(_Gateway(settings).run())
    except WattError as error:
        sys.exit(f"{error.detail} — {error.spec.hint}")


class _Gateway:
    """Everything of the process, wired once."""

    def __init__(self, settings: Settings) -> None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.settings, self.metrics = settings, Metrics()
        deployment = Deployment.load(settings.deployment_file)
        self.chain = ChainClient(settings.rpc_url, deployment)
        self.chain.check()
        self.store = Store(settings.store_url)
        upgrade(self.store)
        secret = load_secret(settings.data_dir / "gateway.secret", secrets.token_bytes)
        vault = Vault(secret, secrets.token_bytes)
        self.market = Market(
            self.store,
            deployment,
            vault,
            clock=_now_ms,
            random=secrets.token_bytes,
            terms=_terms(settings),
            metrics=self.metrics,
            receivers=self._receivers(deployment, vault),
        )
        self.board = LoopBoard(_now_ms)
        settled = functools.partial(on_settled, deployment.domain)
        self.follower = Follower(self.chain, self.store, settled, metrics=self.metrics)
        relayer = Signer(settings.relayer_key.get_secret_value())
        sender = Sender(
            self.chain, relayer, StoreJournal(self.store), _now_ms, confirmations=settings.confirmations
        )
        self.pump = Pump(self.chain, sender, self.store, metrics=self.metrics)
        self.reconciler = Reconciler(
            self.chain, self.store, self.follower.read_anew, settled, metrics=self.metrics
        )
        self.clockwork = Clockwork(self.market)
        self.door: Door | None = None
        self.courier = Courier(self.market)
        self.runner = BatchRunner(self.market, in_flight=settings.batch_jobs_in_flight)
        receivers = self.market.receivers
        self.pushed = Pushed(self.chain, self.store, receivers, _now_ms) if receivers else None

    def _receivers(self, deployment: Deployment, vault: Vault) -> Receivers | None:
        if not (self.settings.x402 and deployment.has_till):
            return None
        try:
            token = token_domain(self.chain, deployment.token)
        except BadRequest as unsupported:
            # A token nobody can sign for is no reason to stand still: buyers with a key need none of this.
            log.warning(Log.X402_OFF, reason=unsupported.detail)
            return None
        window, work = self.settings.x402_window_seconds, -(-self.settings.job_timeout_ms // 1000)
        return Receivers(deployment, vault, token, window_seconds=window, work_seconds=work)

    async def run(self) -> None:
        """Serves until told to stop; then loops end after their turn, links and database close."""
        stop = asyncio.Event()
        await self.market.restart()
        loops = [asyncio.create_task(loop) for loop in self._loops(stop)]
        server = self._server()
        # What is there by now stays; looking through all of it for garbage would stop every call for 0.15 s.
        gc.freeze()
        try:
            await server.serve()
        finally:
            stop.set()
            if self.door is not None:
                await self.door.aclose()
            await asyncio.gather(*loops)
            await self.courier.close()
            self.market.close()
            self.store.close()
            log.info(Log.STOPPED, process="gateway")

    def _loops(self, stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        settings = self.settings
        turns = (
            ("follow", self.follower.step, settings.follow_every_ms),
            ("pump", self.pump.step, settings.pump_every_ms),
            ("clockwork", self.clockwork.step, settings.clockwork_every_ms),
            ("batches", self.runner.step, settings.batches_every_ms),
            ("sweep", self.clockwork.sweep, settings.sweep_every_ms),
            ("webhooks", self.courier.step, settings.webhooks_every_ms),
            ("prune", self.courier.prune, settings.reconcile_every_ms),
            ("forget", self.clockwork.forget, settings.sweep_every_ms),
            ("reconcile", self.reconciler.step, settings.reconcile_every_ms),
            *([("pushed", self.pushed.step, settings.pushed_every_ms)] if self.pushed else []),
        )
        return [run_loop(name, step, every, stop, board=self.board) for name, step, every in turns]

    def _server(self) -> uvicorn.Server:
        health = Health(checks=self._checks, lag_blocks=self._lag_blocks)
        app = create_app(
            self.market,
            health,
            max_body_bytes=self.settings.max_body_bytes,
            body_limits=_body_limits(self.settings),
            rates=_rates(self.settings),
            limits=_limits(self.settings),
        )
        if is_installed():
            self.door = mount(app, self.market, max_body_bytes=self.settings.max_body_bytes)
        config = uvicorn.Config(
            app,
            host=self.settings.host,
            port=self.settings.port,
            log_config=None,
            access_log=False,
            # Who is behind a proxy is `api.limits` to say, and only for proxies that are named.
            proxy_headers=False,
            lifespan="off",
            ws_max_size=MAX_FRAME_BYTES,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        return _Server(config, self._hang_up)

    def _hang_up(self) -> None:
        self.market.hang_up()
        if self.door is not None:
            self.door.close()

    def _checks(self) -> list[Check]:
        return [self._chain_check(), self._follower_check(), self._outbox_check(), *self._loop_checks()]

    def _chain_check(self) -> Check:
        try:
            head = self.chain.head()
        except ChainTrouble as trouble:
            return Check(name="chain", ok=False, detail=trouble.detail)
        return Check(name="chain", ok=True, detail=f"head {head.number}")

    def _follower_check(self) -> Check:
        lag = self._lag_blocks()
        ok = lag is not None and lag <= self.settings.max_lag_blocks
        return Check(name="follower", ok=ok, detail=f"{lag} blocks behind" if lag is not None else "starting")

    def _outbox_check(self) -> Check:
        with self.store.reading() as tx:
            depth = outbox.depth(tx)
        oldest = depth.oldest_waiting_ms
        ok = oldest is None or _now_ms() - oldest < _STUCK_MS
        return Check(name="outbox", ok=ok, detail=f"{depth.waiting} waiting, {depth.unconfirmed} unconfirmed")

    def _loop_checks(self) -> list[Check]:
        now = _now_ms()
        return [
            Check(
                name=f"loop {health.name}",
                ok=health.is_ready(now, slack_ms=_LOOP_SLACK_MS),
                detail=health.problem or "",
            )
            for health in self.board.health()
        ]

    def _lag_blocks(self) -> int | None:
        return self.follower.last.lag_blocks if self.follower.last else None


class _Server(uvicorn.Server):
    """Ends in order on SIGTERM and Ctrl-C, and hangs up on nodes and callers first."""

    def __init__(self, config: uvicorn.Config, hang_up: Callable[[], None]) -> None:
        super().__init__(config)
        self._hang_up = hang_up

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Asks to stop; uvicorn itself would raise the signal again and kill the loops half-way."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Links and waiting callers would otherwise stay until the time-out."""
        self._hang_up()
        await super().shutdown(sockets)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def _terms(settings: Settings) -> Terms:
    return Terms(
        lease_ms=settings.lease_ms,
        heartbeat_ms=settings.heartbeat_ms,
        job_timeout_ms=settings.job_timeout_ms,
        delivery_grace_ms=settings.delivery_grace_ms,
        keep_ms=settings.keep_content_seconds * 1000,
        most_keep_ms=settings.keep_content_most_seconds * 1000,
        webhook_timeout_ms=settings.webhook_timeout_ms,
        webhook_allow_loopback=settings.webhook_allow_loopback,
    )


def _body_limits(settings: Settings) -> BodyLimits:
    return BodyLimits(
        max_bytes=settings.max_body_bytes,
        max_depth=settings.max_body_depth,
        timeout_ms=settings.body_timeout_ms,
    )


def _rates(settings: Settings) -> Rates:
    return Rates(
        per_key=settings.calls_per_minute_by_key,
        per_address=settings.calls_per_minute_by_address,
        store_url=settings.rate_store_url.get_secret_value(),
        proxies=networks(settings.trusted_proxies),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        most_file_bytes=settings.max_file_bytes,
        most_line_bytes=settings.max_body_bytes,
        most_lines=settings.max_file_lines,
        most_kept_bytes=settings.max_kept_bytes,
        most_unfinished=settings.max_unfinished_batches,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
