from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from marketplace.client.disputes import verdict_salt
from marketplace.client.journal import HeldVoucher, Journal, SeatState, Session, SessionUse
from marketplace.client.keyfile import is_keystore, load_key, save_keystore, save_raw
from marketplace.client.problems import hint_of, problem_of
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS
from marketplace.protocol.money import format_atoms, parse_atoms
from marketplace.protocol.signing import Signer

SIGNER = Signer(b"\x33" * 32)


@pytest.mark.parametrize(
    ("atoms", "text"),
    [(131, "0.000131"), (0, "0.00"), (1_000_000, "1.00"), (1_234_500, "1.2345"), (-131, "-0.000131")],
)
def test_money_is_shown_exactly(atoms: int, text: str) -> None:
    assert format_atoms(atoms, 6) == text
    if atoms >= 0:
        assert parse_atoms(text, 6) == atoms


def test_money_without_decimals_has_no_point() -> None:
    assert format_atoms(7, 0) == "7"
    assert parse_atoms("7", 0) == 7


@pytest.mark.parametrize("text", ["", "1e3", "-1", ".5", "1.", "1,5", "0x1", "0.0000001", "\u0661"])
def test_money_that_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_atoms(text, 6)


def test_money_beyond_what_can_be_signed_is_refused() -> None:
    assert parse_atoms("9" * 30, 6) == 10**36 - 10**6
    with pytest.raises(BadRequest, match="more than any account"):
        parse_atoms("9" * 30, 18)


def test_keystore_opens_only_with_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    save_keystore(SIGNER, path, "correct")
    assert path.stat().st_mode & 0o777 == 0o600
    assert is_keystore(path)
    assert load_key(path, "correct").address == SIGNER.address
    with pytest.raises(BadRequest, match="passphrase"):
        load_key(path, "wrong")
    with pytest.raises(BadRequest, match="needs its passphrase"):
        load_key(path)


def test_key_file_is_never_overwritten(tmp_path: Path) -> None:
    save_raw(SIGNER, tmp_path / "key")
    with pytest.raises(BadRequest, match="never overwritten"):
        save_raw(Signer(b"\x34" * 32), tmp_path / "key")
    assert load_key(tmp_path / "key").address == SIGNER.address


def test_key_file_others_can_read_is_refused(tmp_path: Path) -> None:
    save_raw(SIGNER, tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(BadRequest) as caught:
        load_key(tmp_path / "key")
    assert hint_of(caught.value).startswith("chmod 600")


def test_missing_or_foreign_key_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadRequest) as caught:
        load_key(tmp_path / "none")
    assert caught.value.code is ErrorCode.NOT_FOUND
    (tmp_path / "junk").write_text("hello")
    (tmp_path / "junk").chmod(0o600)
    with pytest.raises(BadRequest, match="no private key"):
        load_key(tmp_path / "junk")


def session(deposited: int = 100) -> Session:
    return Session(
        session_id=b"\x01" * 32,
        key=SIGNER.address,
        node_id=1,
        terms=None,
        deposited_atoms=deposited,
        expires_at=10,
        key_epoch=1,
        signer=ZERO_ADDRESS,
        use=SessionUse.OPEN,
    )


def test_seats_never_promise_more_than_the_deposit() -> None:
    journal = Journal(":memory:")
    journal.put_session(session())
    assert journal.take_seat(b"\x01" * 32, 60, 5) == 1
    assert journal.take_seat(b"\x01" * 32, 60, 5) is None
    journal.end_seat(b"\x01" * 32, 1, amount_atoms=40, digest=b"\x02" * 32)
    assert journal.take_seat(b"\x01" * 32, 60, 5) == 2
    assert journal.left_atoms(b"\x01" * 32) == 0


def test_two_journals_on_one_file_take_different_seats(tmp_path: Path) -> None:
    one, two = Journal(tmp_path / "j.db"), Journal(tmp_path / "j.db")
    one.put_session(session())
    assert [j.take_seat(b"\x01" * 32, 1, 5) for j in (one, two, one)] == [1, 2, 3]


def test_amount_of_an_ended_seat_never_changes() -> None:
    journal = Journal(":memory:")
    journal.put_session(session())
    journal.take_seat(b"\x01" * 32, 60, 5)
    journal.end_seat(b"\x01" * 32, 1, amount_atoms=40, digest=b"\x02" * 32)
    journal.end_seat(b"\x01" * 32, 1)
    (seat,) = journal.seats(b"\x01" * 32)
    assert (seat.state, seat.amount_atoms) == (SeatState.RECEIPTED, 40)


def test_older_voucher_never_replaces_a_newer_one() -> None:
    journal = Journal(":memory:")

    def voucher(seq: int, amount: int) -> HeldVoucher:
        return HeldVoucher(
            session_id=b"\x01" * 32,
            through_seq=seq,
            amount_atoms=amount,
            message=b"%d" % seq,
            signature=b"",
            taken=False,
        )

    journal.put_voucher(voucher(2, 20))
    journal.put_voucher(voucher(1, 10))
    journal.put_voucher(voucher(3, 10))
    held = journal.voucher(b"\x01" * 32)
    assert held is not None
    assert held.through_seq == 2


def test_problem_of_an_unknown_code_keeps_its_words() -> None:
    found = problem_of({"code": "brand_new", "detail": "text", "charged": True, "request_id": "r"}, 503)
    assert (found.code, found.status, found.charged, found.request_id) == (
        ErrorCode.NOT_READY,
        503,
        True,
        "r",
    )
    assert "brand_new" in found.detail


@pytest.mark.parametrize("body", [None, [], "x", {}])
def test_answer_that_is_no_problem_document_still_names_its_status(body: object) -> None:
    assert problem_of(body, 404).code is ErrorCode.NOT_FOUND
    assert problem_of(body, 500).code is ErrorCode.INTERNAL


def test_importing_the_sdk_loads_no_heavy_library() -> None:
    code = (
        "import sys, json, marketplace.client as c; c.Wattline; "
        "heavy = ('web3', 'torch', 'fastapi', 'sqlmodel', 'eth_account', 'celery'); "
        "print(json.dumps([m for m in heavy if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []


def test_salt_of_a_verdict_is_another_in_each_round_and_after_a_sham() -> None:
    case_id, stranger, buyer = bytes(32), Signer(b"\x01" * 32).address, Signer(b"\x02" * 32).address
    judgements = [(case_id, stranger, 1), (case_id, buyer, 1), (case_id, buyer, 2), (b"\x01" * 32, buyer, 2)]
    salts = {verdict_salt(SIGNER, *judgement) for judgement in judgements}
    assert len(salts) == len(judgements)
    assert verdict_salt(SIGNER, case_id, buyer, 1) in salts


def test_sdk_says_that_it_is_typed() -> None:
    import marketplace

    (folder,) = marketplace.__path__
    assert (Path(folder) / "py.typed").exists()
