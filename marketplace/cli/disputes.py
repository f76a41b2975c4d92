"""`watt dispute`: proofs, demands and judgements of jobs, from receipts or from what a node claims."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketplace.cli import config as configs
from marketplace.cli import inputs, screen, shown, wiring
from marketplace.cli.options import DataDir, Json, PassphraseFile, Rpc, WalletFile, Yes, doc
from marketplace.protocol.errors import BadRequest, ErrorCode

if TYPE_CHECKING:
    from marketplace.client.bundle import Bundle
    from marketplace.client.claims import ClaimedJob
    from marketplace.client.disputes import CaseFile, Disputes, Job

    # A bundle, session and seq of a claimed job, or a case.
    Named = Bundle | tuple[bytes, int] | bytes

JobName = Annotated[
    str, typer.Argument(metavar="JOB", help="A receipt's bundle, or SESSION:SEQ of what a node claims.")
]
CaseName = Annotated[str, typer.Argument(metavar="CASE|JOB", help="A case, or the job it is about.")]
# What a node's claim says, where the buyer's own books say otherwise than that the job never came.
_DOUBTS: Final = {
    "delivered": "Your journal has this job as delivered. ",
    "not ordered": "Your journal has no such order. ",
}


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    disputes = typer.Typer(no_args_is_help=True, help="What to do about a receipt that is not right.")
    disputes.command("claims", help=_CLAIMS)(claims)
    disputes.command("proof", help=_PROOF)(proof)
    disputes.command("demand", help=_DEMAND)(demand)
    disputes.command("challenge", help=_CHALLENGE)(challenge)
    disputes.command("show", help=_SHOW)(show)
    disputes.command("advance", help=_ADVANCE)(advance)
    disputes.command("award", help=_AWARD)(award)
    app.add_typer(disputes, name="dispute")


_CLAIMS = doc(
    "List what a node claims of a session, and what your journal knows of it.",
    "watt dispute claims 0x9ab1…",
    "watt dispute claims 0x9ab1… --json | jq .jobs",
    more=["What is undelivered can be demanded until its time is over: watt dispute demand SESSION:SEQ"],
)


def claims(
    session_id: Annotated[str, typer.Argument(metavar="SESSION", help="As `watt session list` shows it.")],
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Lists claimed jobs, as the claims' own transactions show them."""
    from marketplace.protocol.hexes import to_hex

    wanted, config = inputs.digest(session_id, "session"), configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    found = wiring.open_disputes(config, passphrase_file).claims(wanted)
    hidden = [to_hex(tx_hash) for tx_hash in found.hidden]
    if json:
        jobs = [_claimed_as_json(job) for job in found.jobs]
        screen.emit({"session_id": session_id, "jobs": jobs, "hidden_in": hidden})
        return
    columns = ("SEQ", f"AMOUNT {config.currency.symbol}", "JOURNAL", "DISPUTABLE UNTIL", "CASE")
    screen.table(columns, [_claimed_row(job, config.currency) for job in found.jobs])
    for tx_hash in hidden:
        screen.note(f"Transaction {tx_hash} claims more than it shows.")


_PROOF = doc(
    "Prove a fault that signatures show; decided at once, no bond.",
    "watt dispute proof overcharged.json",
    "watt dispute proof one.json other.json",
    "watt dispute proof one.json 0x9ab1…:7  # the node claims another",
    more=[
        "One bundle: the receipt charges more than its offer and order allow.",
        "Two receipts: the node signed both for one order.",
    ],
)


def proof(
    job: JobName,
    other: Annotated[
        str | None, typer.Argument(metavar="[OTHER]", help="Second receipt of the order.")
    ] = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Sends a proof; its award is paid out with `award`."""
    from marketplace.protocol.hexes import to_hex

    named, second = _named(job), _named(other) if other else None
    desk = wiring.open_disputes(configs.load(data_dir, rpc_url=rpc, wallet=wallet), passphrase_file)
    first = _found(desk, named)
    if second is not None:
        record = desk.prove_two_receipts(first, _found(desk, second))
    else:
        record = desk.prove_overcharge(_with_offer(named))
    facts = {"order": to_hex(first.order.digest(first.domain)), "node_id": first.node_id}
    shown.sent(f"proven against node {first.node_id}", record, facts, json=json)
    if not json:
        screen.note(f"Have the award paid: watt dispute award {job}")


_DEMAND = doc(
    "Make a node that claims for a job hand its response in.",
    "watt dispute demand 0x9ab1…:7",
    "watt dispute demand receipt.json --yes --json",
    more=[
        "Puts a bond up, which comes back when the node answers or stays silent. Should it have jurors"
        " decide, they are paid out of the bond where the penalty does not cover them.",
        "Without a receipt, name the claimed job: watt dispute claims SESSION",
    ],
)


def demand(
    job: JobName,
    yes: Yes = False,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Demands a response."""
    named, config = _named(job), configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    desk = wiring.open_disputes(config, passphrase_file)
    found, bond = _found(desk, named), config.currency.show(desk.bond_atoms())
    doubt = _DOUBTS.get(str(getattr(found, "known", "")), "")
    inputs.be_sure(f"{doubt}Put a bond of {bond} up and demand the response?", yes=yes)
    record = desk.demand(found)
    _opened("demanded the response", desk.case_id(found), record, json=json)


_CHALLENGE = doc(
    "Have jurors judge a job; costs the bond if they find it right, and for a small job some of it anyway.",
    "watt dispute challenge receipt.json",
    "watt dispute challenge receipt.json --evidence evidence.bin --yes",
    "watt dispute challenge 0x9ab1…:7 --evidence request.bin",
    more=["The evidence's hash goes on-chain: give that very file to each juror. Else it is the bundle."],
)


def challenge(
    job: JobName,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", metavar="FILE", help="What jurors are given.")
    ] = None,
    yes: Yes = False,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Challenges a job."""
    from marketplace.protocol.hexes import keccak

    named = _named(job)
    if evidence is None and isinstance(named, tuple):
        raise typer.BadParameter("without a bundle, name what jurors are given", param_hint="--evidence")
    shared, config = (
        inputs.bytes_of(evidence or Path(job)),
        configs.load(data_dir, rpc_url=rpc, wallet=wallet),
    )
    desk = wiring.open_disputes(config, passphrase_file)
    found, bond = _found(desk, named), config.currency.show(desk.bond_atoms())
    inputs.be_sure(f"Put a bond of {bond} up and challenge the job?", yes=yes)
    record = desk.challenge(found, keccak(shared))
    _opened("challenged the job", desk.case_id(found), record, json=json)


_SHOW = doc(
    "Show where a case stands and what comes next.",
    "watt dispute show 0x5be1…",
    "watt dispute show receipt.json --evidence evidence.bin",
)


def show(
    case: CaseName,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", metavar="FILE", help="Is this what was challenged with?")
    ] = None,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Shows a case."""
    from marketplace.client.disputes import NEXT
    from marketplace.protocol.hexes import keccak

    named, config = _named(case), configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    given = None if evidence is None else keccak(inputs.bytes_of(evidence))
    desk = wiring.open_disputes(config, passphrase_file)
    found = desk.show(_case_id(desk, named))
    fits = None if given is None else given == found.view.evidence_hash
    if json:
        screen.emit(_as_json(found, fits))
        return
    money, view = config.currency, found.view
    rows = [
        ("case", str(_as_json(found, fits)["case"])),
        ("state", view.state.name.lower()),
        ("until", screen.when(view.phase_ends) if view.phase_ends else "-"),
        ("node", f"{view.node_id} of {view.owner}"),
        ("challenger", view.challenger),
        ("amount", f"{money.show(view.amount_atoms)}, of it held back {money.bare(view.held_atoms)}"),
    ]
    rows += [("juror", f"{seat.juror}  {seat.verdict.name.lower()}") for seat in found.seats]
    rows += [] if fits is None else [("evidence", "as it was challenged" if fits else "another file")]
    screen.facts(rows)
    screen.note(NEXT[view.state])


_ADVANCE = doc(
    "Move a case on as far as time allows; anybody may.",
    "watt dispute advance 0x5be1…",
    "watt dispute advance receipt.json --json",
)


def advance(
    case: CaseName,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Draws, counts or ends, whichever is due."""
    named, config = _named(case), configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    desk = wiring.open_disputes(config, passphrase_file)
    case_id = _case_id(desk, named)
    record = desk.advance(case_id)
    state = desk.show(case_id).view.state.name.lower()
    shown.sent(f"the case is {state}", record, {"case": case, "state": state}, json=json)


_AWARD = doc("Have the award of a proof paid to its buyer.", "watt dispute award overcharged.json")


def award(
    job: JobName,
    rpc: Rpc = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Pays an award out; anybody may."""
    named, config = _named(job), configs.load(data_dir, rpc_url=rpc, wallet=wallet)
    desk = wiring.open_disputes(config, passphrase_file)
    found = _found(desk, named)
    shown.sent("paid the award", desk.pay_award(found), {"node_id": found.node_id}, json=json)


def _opened(what: str, case_id: bytes, record: Any, *, json: bool) -> None:
    from marketplace.protocol.hexes import to_hex

    shown.sent(what, record, {"case": to_hex(case_id)}, json=json)
    if not json:
        screen.note(f"See how it goes: watt dispute show {to_hex(case_id)}")


def _named(text: str) -> Named:
    """What somebody named, read before anything is opened."""
    claimed = inputs.claimed_name(text)
    if claimed is not None:
        return claimed
    return inputs.digest(text, "case") if text.startswith("0x") else inputs.bundle_of(Path(text))


def _found(desk: Disputes, named: Named) -> Job:
    """A job by its bundle, or by session and seq."""
    if isinstance(named, bytes):
        raise typer.BadParameter("this is a case; name its job", param_hint="JOB")
    if isinstance(named, tuple):
        session_id, seq = named
        return desk.claims(session_id).job(seq)
    return named


def _case_id(desk: Disputes, named: Named) -> bytes:
    """A case by its id, or by the job that it is about."""
    return named if isinstance(named, bytes) else desk.case_id(_found(desk, named))


def _with_offer(named: Named) -> Bundle:
    """A bundle, because only there is the offer."""
    if isinstance(named, bytes | tuple):
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            "An overcharge is proven with the offer, which is not on the chain.",
            hint="Name the receipt's bundle: watt receipt get ID --save FILE",
        )
    return named


def _claimed_as_json(job: ClaimedJob) -> dict[str, Any]:
    from marketplace.protocol.hexes import to_hex

    return {
        "seq": job.order.seq,
        "amount_atoms": str(job.receipt.amount_atoms),
        "journal": job.known.value,
        "disputable_until": job.disputable_until,
        "case": to_hex(job.digest) if job.is_disputed else None,
        "receipt": to_hex(job.digest),
    }


def _claimed_row(job: ClaimedJob, money: screen.Currency) -> list[str]:
    from marketplace.protocol.hexes import to_hex

    until = screen.when(job.disputable_until) if job.disputable_until else "-"
    case = to_hex(job.digest) if job.is_disputed else "-"
    return [str(job.order.seq), money.bare(job.receipt.amount_atoms), job.known.value, until, case]


def _as_json(found: CaseFile, fits: bool | None) -> dict[str, Any]:
    from marketplace.protocol.hexes import to_hex

    view = found.view
    seats = [{"juror": seat.juror, "verdict": seat.verdict.name.lower()} for seat in found.seats]
    return {
        "case": to_hex(found.case_id),
        "state": view.state.name.lower(),
        "round": view.round,
        "phase_ends": view.phase_ends,
        "node_id": view.node_id,
        "owner": view.owner,
        "buyer": view.buyer,
        "challenger": view.challenger,
        "session_id": to_hex(view.session_id),
        "amount_atoms": str(view.amount_atoms),
        "held_atoms": str(view.held_atoms),
        "evidence_hash": to_hex(view.evidence_hash),
        "evidence_fits": fits,
        "seats": seats,
    }
