"""`watt up`: chain, contracts, broker, gateway, three nodes and a funded buyer, until Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Final

from marketplace.chain.client import ChainClient
from marketplace.chain.deployment import Deployment
from marketplace.local import commands, probes, treasury
from marketplace.local.child import Child, kill_marked
from marketplace.local.layout import Layout
from marketplace.local.market import Market, NodeEntry, entries_of
from marketplace.local.options import DEFAULT_PORT, UpOptions
from marketplace.local.ports import HOST, choose, free_port
from marketplace.local.programs import Hardhat, find_hardhat, find_valkey
from marketplace.local.screen import Screen, open_screen
from marketplace.local.supervisor import Stopped, Supervisor
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode, WattError

INTERRUPTED: Final = 130
_NODE_NAMES = [plan.name for plan in commands.NODES]


Then = Callable[[Market, Screen], int]


def run_up(
    options: UpOptions,
    *,
    screen: Screen | None = None,
    stop: threading.Event | None = None,
    then: Then | None = None,
    keep: bool = False,
) -> int:
    """Runs a local market until asked to stop; returns the process's exit code.

    Every process is gone when this returns, whatever happened. `stop` asks for the end where there are no
    signals to: in a thread other than the main one. With `then`, that runs once everything is up, the market
    stops after it unless told to `keep` running, and its code is returned.
    """
    shown = screen or open_screen(options.style)
    asked = _Asked(stop or threading.Event())
    layout = Layout(options.data_dir.resolve())
    try:
        with _signals(asked, enabled=stop is None), _alone(layout):
            return _Run(options, layout, shown, asked).run(then, keep=keep)
    except WattError as error:
        shown.problem(error.detail, hint=error.spec.hint)
        return 1
    finally:
        shown.close()


@dataclass(slots=True)
class _Asked:
    """Whether somebody asked us to stop; `at_once` also ends what the main thread is doing."""

    event: threading.Event
    at_once: bool = False


class _Run:
    """One start, watch and stop."""

    def __init__(self, options: UpOptions, layout: Layout, screen: Screen, asked: _Asked) -> None:
        self._options = options
        self._layout = layout
        self._screen = screen
        self._asked = asked
        self._run_id = secrets.token_hex(16)
        self._supervisor = Supervisor(screen, asked.event, options.grace_seconds, self._run_id, self._write)
        self._market: Market | None = None

    def run(self, then: Then | None, *, keep: bool) -> int:
        """Start everything, keep it running, stop everything."""
        try:
            market = self._start()
            if then is None:
                return self._supervisor.watch()
            self._asked.at_once = True
            code = then(market, self._screen)
            self._asked.at_once = False
            return self._supervisor.watch() if keep and code == 0 else code
        except Stopped:
            return 0 if then is None else INTERRUPTED
        except WattError as error:
            self._explain(error)
            return 1
        finally:
            self._stop_all()

    def _start(self) -> Market:
        options, layout = self._options, self._layout
        hardhat = find_hardhat(options.root)
        self._clean()
        port, word = choose(options.port, DEFAULT_PORT)
        if not hardhat.installed:
            self._install(hardhat)
        rpc_url = self._start_chain(hardhat)
        where = commands.Addresses(rpc_url=rpc_url, gateway_port=port, broker_url=self._start_broker())
        self._start_gateway(where, word)
        deployment_client = ChainClient(rpc_url, Deployment.load(layout.deployment))
        nodes = self._start_nodes(where, deployment_client)
        opening = self._fund_buyer(where, deployment_client, [node.node_id for node in nodes])
        self._market = Market(
            gateway_url=where.gateway_url,
            rpc_url=rpc_url,
            chain_id=deployment_client.deployment.chain_id,
            deployment=str(layout.deployment),
            api_key=opening.api_key,
            key_address=opening.key_address,
            buyers=treasury.buyers(),
            nodes=nodes,
            sessions=opening.sessions,
            processes={},
        )
        self._write(self._supervisor.children)
        self._welcome(self._market)
        return self._market

    def _clean(self) -> None:
        layout = self._layout
        if layout.run.exists() and (ended := kill_marked(layout.run.read_text())):
            self._screen.note(f"Ended {len(ended)} processes that a killed run had left behind")
        layout.run.write_text(self._run_id)
        if layout.has_run_before():
            moved = layout.set_aside()
            self._screen.note(f"The last run's chain is gone; its data is in {moved}", moved=str(moved))

    def _install(self, hardhat: Hardhat) -> None:
        with self._step("packages", "npm ci, once") as done:
            argv = hardhat.install_argv()
            made = subprocess.run(argv, cwd=hardhat.root, capture_output=True, text=True, check=False)
            if made.returncode:
                last = (made.stderr.strip().splitlines() or ["npm said nothing"])[-1]
                detail = f"Node packages could not be installed ({last}); run scripts/setup run"
                raise Broken(ErrorCode.INTERNAL, detail)
            done(f"in {hardhat.root / 'node_modules'}")

    def _start_chain(self, hardhat: Hardhat) -> str:
        with self._step("chain", "starting Hardhat") as done:
            port = free_port()
            url = f"http://{HOST}:{port}"
            self._supervisor.start(commands.chain(hardhat, port, self._layout))
            self._until(lambda: probes.rpc(url, "eth_chainId") is not None, "the chain")
            deployment = treasury.deploy_local(url, self._layout.deployment)
            purses = [treasury.owner(i).address for i in range(len(commands.NODES))]
            purses += [buyer.address for buyer in treasury.buyers()]
            treasury.fund(ChainClient(url, deployment), purses)
            done(f"Hardhat {deployment.chain_id} at {url} · 3 contracts")
        return url

    def _start_broker(self) -> str:
        if self._options.broker_url:
            return self._options.broker_url
        with self._step("broker", "starting Valkey") as done:
            port = free_port()
            self._supervisor.start(commands.broker(find_valkey(), port, self._layout))
            self._until(lambda: probes.pong(port), "the broker")
            done("Valkey, bundled")
        return f"redis://{HOST}:{port}"

    def _start_gateway(self, where: commands.Addresses, word: str) -> None:
        with self._step("gateway", "starting") as done:
            key, options = treasury.relayer().private_key, self._options
            more = options.gateway_settings
            self._supervisor.start(commands.gateway(where, self._layout, key, options.database_url, more))

            def ready() -> bool:
                failing = probes.not_ready(where.gateway_url)
                self._screen.update(f"waiting for {', '.join(failing)}" if failing else "starting")
                return failing == []

            self._until(ready, "the gateway")
            done(where.gateway_url + (f" ({word})" if word else ""))

    def _start_nodes(self, where: commands.Addresses, client: ChainClient) -> list[NodeEntry]:
        with self._step("nodes", "registering and loading models") as done:
            for position, plan in enumerate(commands.NODES):
                key = treasury.owner(position).private_key
                self._supervisor.start(
                    commands.node(
                        plan,
                        _own_database(where, position),
                        self._layout,
                        owner_key=key,
                        models_dir=self._options.models_dir.resolve(),
                        more=self._options.node_settings,
                    )
                )
            wanted = {(p.name, m.model) for p in commands.NODES for m in p.models}

            def ready() -> bool:
                offered = probes.offered(where.gateway_url)
                self._screen.update(f"{offered} of {len(wanted)} offers; first use of a model fetches it")
                return offered >= len(wanted)

            self._until(ready, "the nodes")
            entries = [self._entry(client, i) for i in range(len(commands.NODES))]
            done(f"{len(entries)} online and staked · {len(wanted)} offers")
        return entries

    def _entry(self, client: ChainClient, position: int) -> NodeEntry:
        plan, owner = commands.NODES[position], treasury.owner(position)
        return NodeEntry(
            name=plan.name,
            owner=owner,
            data_dir=str(self._layout.home(plan.name)),
            models=[priced.model for priced in plan.models],
            node_id=client.node_ids_of(owner.address)[-1],
        )

    def _fund_buyer(
        self, where: commands.Addresses, client: ChainClient, node_ids: list[int]
    ) -> treasury.Opening:
        with self._step("buyer", "depositing, opening sessions") as done:
            opening = treasury.Opening(where.gateway_url, client.deployment, treasury.buyers()[0])
            treasury.deposit(client, opening.buyer, treasury.DEPOSIT_ATOMS)
            opening.create_key()
            opening.open(node_ids, treasury.SESSION_ATOMS)
            self._until(lambda: not any(opening.waiting()), "opening the sessions")
            whole = treasury.DEPOSIT_ATOMS // treasury.ONE
            done(f"{whole} {client.deployment.token_symbol} deposited · {len(node_ids)} sessions")
        return opening

    def _welcome(self, market: Market) -> None:
        self._screen.note(
            f"Ready at {market.gateway_url}", event_name="ready", market=str(self._layout.market)
        )
        self._screen.note(f"OPENAI_BASE_URL={market.gateway_url}/v1  OPENAI_API_KEY={market.api_key}")
        self._screen.note(f"Logs and keys in {self._layout.data_dir}; Ctrl-C stops everything")

    def _write(self, children: dict[str, Child]) -> None:
        if self._market:
            self._market = replace(self._market, processes=entries_of(children))
            self._market.save(self._layout.market)

    def _stop_all(self) -> None:
        self._asked.at_once = False
        if self._supervisor.children:
            with self._step("stop", "nodes settle what they are owed") as done:
                count = len(self._supervisor.children)
                self._supervisor.stop([list(reversed(_NODE_NAMES))])
                done(f"{count} processes stopped")
        kill_marked(self._run_id)
        self._layout.market.unlink(missing_ok=True)
        self._layout.run.unlink(missing_ok=True)

    def _explain(self, error: WattError) -> None:
        child = error.values.get("child")
        if isinstance(child, Child):
            self._screen.problem(error.detail, child.tail(), f"whole log: {child.command.log}")
        else:
            self._screen.problem(error.detail, hint=f"logs: {self._layout.log('*')}")

    def _until(self, ready: Callable[[], bool], what: str) -> None:
        self._supervisor.until(ready, self._options.start_seconds, what)

    @contextmanager
    def _step(self, name: str, detail: str) -> Iterator[Callable[[str], None]]:
        self._screen.begin(name, detail)
        try:
            yield self._screen.done
        except BaseException as error:
            self._screen.failed("stopped" if isinstance(error, Stopped | KeyboardInterrupt) else "failed")
            raise


def _own_database(where: commands.Addresses, position: int) -> commands.Addresses:
    # Celery keeps unacknowledged tasks of all queues of one database in one place; nodes share nothing.
    url = where.broker_url
    names_one = url.count("/") > 2 or not url.startswith("redis://")
    return where if names_one else replace(where, broker_url=f"{url}/{position}")


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """One supervisor a data folder; the lock ends with its process, however that ends."""
    layout.prepare()
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        detail = f"a market already runs from {layout.data_dir}; stop it, or name another --data-dir"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail) from error
    finally:
        os.close(descriptor)


@contextmanager
def _signals(asked: _Asked, *, enabled: bool) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask for a stop while this is open."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.event.set()
        if asked.at_once:
            asked.at_once = False
            raise Stopped

    if not enabled:
        yield
        return
    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
