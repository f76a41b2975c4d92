"""The endpoint misbehaves in every way we know; reads retry, sends never do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from marketplace.chain.client import ChainClient
from marketplace.chain.ethereum import Ethereum
from marketplace.chain.rpc import Rpc, RpcRefused
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import to_hex
from tests.chain.test_codec import HERE
from tests.hardhat import free_port

Answer = tuple[int, bytes]


class FakeEndpoint:
    """Answers by script: what `answer` returns for (method, params), and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[str, list[Any]], Answer] = lambda _m, _p: (200, b"{}")
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.asked.append(body["method"])
                status, data = endpoint.answer(body["method"], body["params"])
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that gave up waiting is what some tests are about."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def script(self, *answers: Answer) -> None:
        left = list(answers)
        self.answer = lambda _m, _p: left.pop(0) if len(left) > 1 else left[0]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    fake = FakeEndpoint()
    yield fake
    fake.stop()


def result(value: object) -> Answer:
    return 200, json.dumps({"jsonrpc": "2.0", "id": 1, "result": value}).encode()


def error(code: int, message: str, data: object = None) -> Answer:
    body = {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message, "data": data}}
    return 200, json.dumps(body).encode()


BROKEN_ANSWERS = [
    (500, b"oops"),
    (429, b"slow down"),
    (200, b'{"jsonrpc": "2.0", "id": 1, "resu'),
    (200, b"<html>"),
    (200, b"[]"),
    (200, b"{}"),
    (200, b'{"error": "text"}'),
    error(-32005, "limit exceeded"),
]


def rpc_without_sleep(url: str) -> tuple[Rpc, list[float]]:
    slept: list[float] = []
    return Rpc(url, timeout_seconds=2, sleep=slept.append), slept


@pytest.mark.parametrize("broken", BROKEN_ANSWERS)
def test_read_tries_again_after_a_broken_answer(endpoint: FakeEndpoint, broken: Answer) -> None:
    rpc, slept = rpc_without_sleep(endpoint.url)
    endpoint.script(broken, broken, result("0x1"))
    assert rpc.read("eth_chainId") == "0x1"
    assert slept == [0.1, 0.4]


@pytest.mark.parametrize("broken", BROKEN_ANSWERS)
def test_read_gives_up_after_three_tries(endpoint: FakeEndpoint, broken: Answer) -> None:
    rpc, _ = rpc_without_sleep(endpoint.url)
    endpoint.script(broken)
    with pytest.raises(ChainTrouble) as caught:
        rpc.read("eth_chainId")
    assert caught.value.code is ErrorCode.CHAIN_UNAVAILABLE
    assert len(endpoint.asked) == 3


def test_read_does_not_repeat_what_the_node_refuses(endpoint: FakeEndpoint) -> None:
    rpc, _ = rpc_without_sleep(endpoint.url)
    endpoint.script((403, b"no"))
    with pytest.raises(ChainTrouble, match="HTTP 403"):
        rpc.read("eth_chainId")
    endpoint.script(error(-32601, "no such method"))
    with pytest.raises(RpcRefused):
        rpc.read("eth_chainId")
    assert len(endpoint.asked) == 2


def test_read_of_nobody_is_chain_trouble() -> None:
    rpc, slept = rpc_without_sleep(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ChainTrouble) as caught:
        rpc.read("eth_chainId")
    assert caught.value.spec.retryable
    assert len(slept) == 2


def test_read_ends_at_its_time_limit(endpoint: FakeEndpoint) -> None:
    release = threading.Event()

    def hang(_method: str, _params: list[Any]) -> Answer:
        release.wait(10)
        return result("0x1")

    endpoint.answer = hang
    rpc = Rpc(endpoint.url, timeout_seconds=0.05, sleep=lambda _: None)
    with pytest.raises(ChainTrouble, match="Timeout"):
        rpc.read("eth_chainId")
    release.set()


def test_messages_never_show_the_rpc_address_path(endpoint: FakeEndpoint) -> None:
    rpc, _ = rpc_without_sleep(f"{endpoint.url}/v2/operators-api-key")
    endpoint.script((500, b""))
    with pytest.raises(ChainTrouble) as caught:
        rpc.read("eth_chainId")
    assert "operators-api-key" not in caught.value.detail


def test_a_proxy_of_the_environment_does_not_stand_before_a_local_chain(
    endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    endpoint.script(result("0x7a69"))
    assert Rpc(endpoint.url).read("eth_chainId") == "0x7a69"


@pytest.mark.parametrize("broken", BROKEN_ANSWERS)
def test_broadcast_is_never_repeated_by_itself(endpoint: FakeEndpoint, broken: Answer) -> None:
    rpc, _ = rpc_without_sleep(endpoint.url)
    endpoint.answer = lambda method, _p: broken if method == "eth_sendRawTransaction" else result(None)
    with pytest.raises(ChainTrouble):
        Ethereum(rpc).broadcast(b"\x02raw")
    assert endpoint.asked.count("eth_sendRawTransaction") == 1


@pytest.mark.parametrize("text", ["already known", "nonce too low", "ALREADY_EXISTS: anything"])
def test_broadcast_is_fine_when_the_node_has_the_transaction(endpoint: FakeEndpoint, text: str) -> None:
    rpc, _ = rpc_without_sleep(endpoint.url)
    endpoint.answer = lambda method, _p: (
        error(-32000, text) if method == "eth_sendRawTransaction" else result({"hash": "0x1"})
    )
    Ethereum(rpc).broadcast(b"\x02raw")


def test_broadcast_refused_and_unknown_is_chain_trouble(endpoint: FakeEndpoint) -> None:
    rpc, _ = rpc_without_sleep(endpoint.url)
    endpoint.answer = lambda method, _p: (
        error(-32000, "nonce too low") if method == "eth_sendRawTransaction" else result(None)
    )
    with pytest.raises(ChainTrouble, match="nonce too low"):
        Ethereum(rpc).broadcast(b"\x02raw")


def revert_data(endpoint: FakeEndpoint, answer: Answer) -> BadRequest:
    rpc, _ = rpc_without_sleep(endpoint.url)
    endpoint.script(answer)
    with pytest.raises(BadRequest) as caught:
        Ethereum(rpc).call(HERE.escrow, b"")
    return caught.value


REASON = "0x08c379a0" + "20".rjust(64, "0") + "2".rjust(64, "0") + "6e6f".ljust(64, "0")


@pytest.mark.parametrize(
    "answer",
    [
        error(3, "execution reverted: no", REASON),
        error(-32000, "execution reverted", {"data": REASON, "message": "no"}),
        error(-32603, "Internal error", REASON),
    ],
)
def test_reverts_of_all_nodes_arrive_decoded(endpoint: FakeEndpoint, answer: Answer) -> None:
    refused = revert_data(endpoint, answer)
    assert refused.code is ErrorCode.TRANSACTION_REVERTED
    assert refused.detail == "Error(reason=no)"
    assert refused.values["error"] == "Error"


def test_a_revert_nobody_knows_keeps_the_nodes_words(endpoint: FakeEndpoint) -> None:
    assert revert_data(endpoint, error(3, "reverted oddly", "0xdeadbeef")).detail == "reverted oddly"
    assert revert_data(endpoint, error(3, "reverted oddly", "0xnothex")).detail == "reverted oddly"
    assert revert_data(endpoint, error(-32000, "insufficient funds for gas")).values["error"] == ""


def test_events_refuses_the_empty_answer_of_a_node_that_lags(endpoint: FakeEndpoint) -> None:
    endpoint.answer = lambda method, _p: result([] if method == "eth_getLogs" else None)
    with pytest.raises(ChainTrouble, match="lags"):
        ChainClient(endpoint.url, HERE).events(5, 9)


@pytest.mark.parametrize("refusal", [-32005, -32000, -32602])
def test_logs_of_many_blocks_are_asked_for_in_ranges_the_node_takes(
    endpoint: FakeEndpoint, refusal: int
) -> None:
    asked: list[tuple[int, int]] = []

    def answer(_method: str, params: list[Any]) -> Answer:
        first, last = (int(params[0][name], 16) for name in ("fromBlock", "toBlock"))
        if last - first >= 3:
            return error(refusal, "block range is too wide")
        asked.append((first, last))
        return result([{"blockNumber": hex(number)} for number in range(first, last + 1)])

    endpoint.answer = answer
    rpc, _ = rpc_without_sleep(endpoint.url)
    found = Ethereum(rpc).long_logs([HERE.escrow], 5, 15, [])
    assert [int(log["blockNumber"], 16) for log in found] == list(range(5, 16))
    assert asked == [(5, 7), (8, 10), (11, 13), (14, 15)]
    assert Ethereum(rpc).long_logs([HERE.escrow], 5, 4, []) == []


def test_logs_that_are_refused_for_one_block_are_chain_trouble(endpoint: FakeEndpoint) -> None:
    endpoint.script(error(-32601, "no such method"))
    with pytest.raises(ChainTrouble, match="no such method"):
        Ethereum(Rpc(endpoint.url)).long_logs([HERE.escrow], 1, 8, [])
    assert len(endpoint.asked) == 4


def test_a_view_of_an_address_without_code_is_the_wrong_chain(endpoint: FakeEndpoint) -> None:
    endpoint.script(result("0x"))
    with pytest.raises(ChainTrouble) as caught:
        ChainClient(endpoint.url, HERE).account_atoms(HERE.treasury)
    assert caught.value.code is ErrorCode.WRONG_CHAIN


def test_fees_fall_back_when_the_node_suggests_no_tip(endpoint: FakeEndpoint) -> None:
    def answer(method: str, _params: list[Any]) -> Answer:
        if method == "eth_maxPriorityFeePerGas":
            return error(-32601, "no such method")
        return result({"baseFeePerGas": ["0x1", "0x64"]})

    endpoint.answer = answer
    fees = Ethereum(Rpc(endpoint.url)).fees()
    assert (fees.tip_wei, fees.max_wei) == (10**9, 400 + 10**9)


def test_head_of_a_chain_without_blocks_is_chain_trouble(endpoint: FakeEndpoint) -> None:
    endpoint.script(result(None))
    with pytest.raises(ChainTrouble, match="no newest block"):
        Ethereum(Rpc(endpoint.url)).head()


def test_revert_reason_of_what_was_never_mined(endpoint: FakeEndpoint) -> None:
    endpoint.script(result(None))
    assert "nonce" in Ethereum(Rpc(endpoint.url)).revert_reason(b"\x01" * 32)
    endpoint.script(result({"blockNumber": "0x1", "to": None}))
    assert "creation" in Ethereum(Rpc(endpoint.url)).revert_reason(b"\x01" * 32)


def test_revert_reason_that_depends_on_its_block(endpoint: FakeEndpoint) -> None:
    mined = {"blockNumber": "0x2", "to": HERE.escrow, "from": HERE.treasury, "input": "0x"}
    endpoint.answer = lambda method, _p: result(mined if "Transaction" in method else to_hex(b""))
    assert "not repeatable" in Ethereum(Rpc(endpoint.url)).revert_reason(b"\x01" * 32)
