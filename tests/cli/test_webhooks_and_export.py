"""`watt webhooks` and `watt export` against a real gateway, by bearer secret and by a key's visit."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketplace.cli import listening
from marketplace.dispatch.terms import Terms
from marketplace.keeper.courier import Courier
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.signing import Signer
from marketplace.protocol.webhooks import Event
from tests.cli.conftest import Watt
from tests.cli.gateway import Served, served
from tests.flow.gateway import DEPLOYMENT
from tests.flow.node import bearer, chat_body, funded
from tests.flow.receiver import Receiver, receiver

KEY = Signer(b"\x44" * 32)
URL = "http://127.0.0.1:9/hooks"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    DEPLOYMENT.save(tmp_path / "deployment.json")
    monkeypatch.setenv("WATT_DEPLOYMENT_PATH", str(tmp_path / "deployment.json"))
    monkeypatch.setenv("WATT_PRIVATE_KEY", to_hex(KEY.secret))
    with served(tmp_path, Terms(webhook_allow_loopback=True)) as found:
        monkeypatch.setenv("WATT_GATEWAY_URL", found.gateway.url)
        yield found


def test_a_webhook_is_added_listed_and_removed_by_the_key_that_visits(watt: Watt, there: Served) -> None:
    made = watt("webhooks", "add", URL, "--event", "job.settled", "--json").json
    assert made["secret"].startswith("whsec_")
    assert made["events"] == ["job.settled"]
    listed = watt("webhooks", "list", "--json").json["webhooks"]
    assert ([row["id"] for row in listed], "secret" in listed[0]) == ([made["id"]], False)
    assert watt("webhooks", "list").out.splitlines()[1].split("\t")[:3] == [made["id"], "enabled", URL]
    assert watt("webhooks", "enable", made["id"], "--json").json["status"] == "enabled"
    assert watt("webhooks", "remove", made["id"], "--json").json["deleted"] is True
    gone = watt("webhooks", "remove", made["id"], "--json")
    assert (gone.code, gone.json["error"]["code"]) == (3, "unknown_webhook")


def test_a_bearer_secret_in_the_environment_comes_first(
    watt: Watt, there: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, _ = there.run(there.gateway.new_key())
    assert watt("webhooks", "add", URL).code == 0
    monkeypatch.setenv("WATT_API_KEY", secret)
    assert watt("webhooks", "list", "--json").json["webhooks"] == []


def test_without_a_key_the_command_says_which_to_give(
    watt: Watt, there: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATT_PRIVATE_KEY")
    ran = watt("webhooks", "list", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "missing_key")
    assert "WATT_API_KEY" in ran.json["error"]["hint"]


def test_an_address_inside_is_refused_with_the_remedy(watt: Watt, there: Served) -> None:
    ran = watt("webhooks", "add", "http://169.254.169.254/", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "webhook_refused")
    assert watt("webhooks", "add", URL, "--event", "job.eaten", "--json").json["error"]["code"] == (
        "invalid_request"
    )
    assert watt("webhooks", "remove", "../keys").code == 2


@pytest.fixture
def busy(there: Served, monkeypatch: pytest.MonkeyPatch, watt: Watt) -> tuple[Served, str]:
    """A bearer key that had two jobs told to a receiver; its secret is in the environment."""

    async def work() -> tuple[str, str, list[str]]:
        g = there.gateway
        async with receiver() as hooks, funded(g, 1) as (secret, _, _):
            body = {"url": hooks.url, "events": ["job.delivered"]}
            made = (await g.http.post("/v1/webhooks", json=body, headers=bearer(secret))).json()
            for _ in range(2):
                await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
            courier = Courier(g.market)
            await courier.step()
            await courier.idle()
            return secret, made["id"], [taken.headers["webhook-id"] for taken in hooks.taken]

    secret, hook, sent = there.run(work())
    assert len(sent) == 2
    monkeypatch.setenv("WATT_API_KEY", secret)
    return there, hook


def test_deliveries_are_listed_by_page_and_sent_again(watt: Watt, busy: tuple[Served, str]) -> None:
    _, hook = busy
    found = watt("webhooks", "deliveries", hook, "--limit", 1, "--json").json
    assert (len(found["deliveries"]), found["has_more"]) == (1, True)
    newest = found["deliveries"][0]
    assert (newest["event"], newest["state"], newest["answered"]) == (Event.JOB_DELIVERED, "taken", 204)
    rest = watt("webhooks", "deliveries", hook, "--after", newest["id"], "--json").json
    assert (len(rest["deliveries"]), rest["has_more"]) == (1, False)
    again = watt("webhooks", "redeliver", hook, newest["id"], "--json").json
    assert (again["state"], again["id"]) == ("waiting", newest["id"])
    shown = watt("webhooks", "deliveries", hook).out.splitlines()
    assert shown[0] == "MESSAGE\tEVENT\tSUBJECT\tSTATE\tTRIES\tANSWER"
    assert "waiting" in shown[1]


def test_receipts_are_exported_to_stdout_and_to_files(
    watt: Watt, busy: tuple[Served, str], tmp_path: Path
) -> None:
    whole = watt("export", "receipts", "--json").json
    assert (whole["count"], whole["totals"]["charged"]["atoms"]) == (2, "38")
    shown = watt("export", "receipts", "--format", "csv")
    assert (shown.code, len(list(csv.DictReader(shown.out.splitlines())))) == (0, 2)
    out = tmp_path / "receipts.csv"
    saved = watt("export", "receipts", "--out", out, "--json").json
    assert saved == {"file": str(out), "kind": "receipts", "format": "csv", "bytes": out.stat().st_size}
    with out.open(newline="") as file:
        assert [row["receipt_id"] for row in csv.DictReader(file)] == [
            row["receipt_id"] for row in whole["data"]
        ]
    assert watt("export", "receipts", "--since", "2999-01-01").out.startswith('{"object": "export"')
    assert json.loads(watt("export", "receipts", "--since", "2999-01-01").out)["count"] == 0
    assert watt("export", "payments", "--json").json["count"] == 0


def test_an_export_that_cannot_be_leaves_no_file(
    watt: Watt, busy: tuple[Served, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watt("export", "payments", "--since", "2026-01-01").code == 2
    assert watt("export", "receipts", "--since", "soon").code == 2
    assert watt("export", "receipts", "--format", "csv", "--json").code == 2
    ran = watt("export", "receipts", "--out", tmp_path / "no" / "where.csv", "--json")
    assert ran.json["error"]["code"] == "invalid_request"
    monkeypatch.setenv("WATT_API_KEY", "sk-watt-no")
    ran = watt("export", "receipts", "--out", tmp_path / "x.json", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "unknown_key")
    assert list(tmp_path.glob("x.json*")) == []


def test_a_jobs_content_is_deleted_and_the_record_checked_offline(
    watt: Watt, busy: tuple[Served, str], tmp_path: Path
) -> None:
    there, _ = busy
    job_id = watt("export", "receipts", "--json").json["data"][0]["job_id"]
    refused = watt("delete", job_id, "--json")
    assert (refused.code, refused.json["error"]["hint"]) == (1, "Say --yes.")
    record = tmp_path / "deletion.json"
    deleted = watt("delete", job_id, "--yes", "--save", record, "--json").json
    assert (deleted["deleted"], deleted["waives_dispute"]) == (True, True)
    signer = there.run(there.gateway.http.get("/v1/chain")).json()["gateway_signer"]
    found = watt("receipt", "deletion", record, "--signer", signer, "--json").json
    assert (found["verified"], found["job_id"], found["reason"]) == (True, job_id, "asked")
    view = watt("job", job_id, "--json").json
    (tmp_path / "view.json").write_text(json.dumps(view))
    assert watt("receipt", "deletion", tmp_path / "view.json").out.startswith("✓ signed by 0x")
    gone = watt("receipt", "get", view["receipt_id"], "--json")
    assert (gone.code, gone.json["error"]["code"]) == (3, "content_deleted")


def test_a_record_that_does_not_hold_exits_1(watt: Watt, busy: tuple[Served, str], tmp_path: Path) -> None:
    job_id = watt("export", "receipts", "--json").json["data"][0]["job_id"]
    record = tmp_path / "deletion.json"
    assert watt("delete", job_id, "--yes", "--save", record).code == 0
    other = watt("receipt", "deletion", record, "--signer", KEY.address, "--json")
    assert (other.code, other.json["verified"]) == (1, False)
    record.write_text(record.read_text().replace("asked", "expired"))
    changed = watt("receipt", "deletion", record)
    assert (changed.code, changed.out[0]) == (1, "✗")
    record.write_text("{}")
    assert watt("receipt", "deletion", record, "--json").json["error"]["code"] == "invalid_request"
    record.write_text("no json")
    assert watt("receipt", "deletion", record, "--json").json["error"]["code"] == "invalid_request"
    assert watt("receipt", "deletion", tmp_path / "none.json").code == 3


@pytest.mark.parametrize("status", [200, 500])
def test_listen_posts_each_message_to_a_receiver_here_signed_and_leaves_nothing_behind(
    watt: Watt, there: Served, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    secret, _ = there.run(there.gateway.new_key())
    monkeypatch.setenv("WATT_API_KEY", secret)

    async def one_job() -> None:
        async with funded(there.gateway, 1) as (_, _, _):
            there.gateway.put_session((await there.gateway.market.key_of(secret)).address, 1)
            await there.gateway.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))

    # The job is done while the command waits for its first message, and never before.
    monkeypatch.setattr(listening, "_pause", lambda _seconds: there.run(one_job()))

    async def serve() -> tuple[Receiver, asyncio.Event, asyncio.Task[None]]:
        ready: asyncio.Future[Receiver] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()

        async def run() -> None:
            async with receiver(status) as made:
                ready.set_result(made)
                await stop.wait()

        task = asyncio.create_task(run())
        return await ready, stop, task

    hooks, stop, _task = there.run(serve())
    events = ("--event", "job.delivered", "--forward", hooks.url)
    if status == 500:
        # What is not taken is not counted; the second job's message is.
        ran = watt("listen", *events, "--count", 1)
        assert [line.split()[-1] for line in ran.out.splitlines()] == ["500", "204"]
    else:
        found = watt("listen", *events, "--count", 1, "--json").json["messages"]
        assert [(row["type"], row["answer"]) for row in found] == [("job.delivered", "200")]
        assert hooks.taken[0].headers["webhook-id"] == found[0]["id"]
        assert hooks.taken[0].headers["webhook-signature"].startswith("v1,")
    there.loop.call_soon_threadsafe(stop.set)
    assert watt("webhooks", "list", "--json").json["webhooks"] == []
