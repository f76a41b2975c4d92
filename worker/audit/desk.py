"""From receipt bundles to verdicts: reads what was signed, opens traces, replays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from marketplace.protocol.annex import Annex, exec_hash, read_annex
from marketplace.protocol.bundle import Bundle
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.merkle import request_hash, response_hash
from marketplace.protocol.messages import ReceiptStatus
from marketplace.protocol.payloads import Answer, ChatPayload, parse_payload, token_logprobs
from marketplace.protocol.trace import OpenBlock, decode_blocks, open_block
from worker.inference.engine import EngineSettings
from worker.ledger import Ledger
from worker.proofs.calibration import Calibration, read, shipped
from worker.proofs.replay import Claim, Replayer, audit_batch, audit_exactly, is_same_class
from worker.proofs.verdict import Tier, Verdict, pool_verdict

_MOST_ROWS = 4096
_MOST_THREADS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Verdicts on receipts, in order, and on all together when there are several in the tolerance tier."""

    jobs: tuple[Verdict, ...]
    pooled: Verdict | None

    def to_json(self) -> dict[str, Any]:
        """As `watt audit replay --json` prints it."""
        pooled = self.pooled.to_json() if self.pooled else None
        return {"jobs": [job.to_json() for job in self.jobs], "pooled": pooled}


def claim_of(bundle: Bundle, opened: Sequence[OpenBlock] = ()) -> Claim:
    """What can be audited of a bundle; signatures and prices are `watt receipt verify`'s business.

    Raises:
        BadRequest: parts that are not what was signed, or a job whose work cannot be computed again.
    """
    receipt = bundle.receipt
    _check_hashes(bundle)
    if receipt.status == ReceiptStatus.FAILED:
        raise BadRequest(ErrorCode.UNSUPPORTED, "a failed job has no work to check; it is free")
    try:
        annex, answer = read_annex(bundle.annex), Answer(bundle.chunks)
        told = tuple(token_logprobs(answer))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRequest(ErrorCode.RECEIPT_INVALID, f"annex or answer cannot be read: {error}") from error
    if not isinstance(annex, Annex):
        raise BadRequest(
            ErrorCode.UNSUPPORTED, "annexes of version 1 commit to nothing that could be computed again"
        )
    payload = parse_payload(bundle.payload)
    if not isinstance(payload, ChatPayload):
        raise BadRequest(ErrorCode.UNSUPPORTED, f"only chat jobs are replayed, this is {payload.task}")
    return Claim(
        order_hash=receipt.order_hash,
        payload=payload,
        annex=annex,
        text=answer.text,
        logprobs=told,
        opened=tuple(opened),
    )


def settings_for(claim: Claim, settings: EngineSettings) -> EngineSettings:
    """Settings with the shapes a node says it used, so that its bits can be compared.

    Its threads too, where the settings leave them open (0).
    """
    profile = claim.annex.profile
    threads = settings.threads or max(1, min(profile.threads, _MOST_THREADS))
    settings = replace(settings, threads=threads)
    # Shapes come from the node; nonsense would only make this machine run out of memory.
    if not (0 <= profile.tile_rows <= _MOST_ROWS and 1 <= profile.prompt_block <= _MOST_ROWS):
        return settings
    return replace(settings, tile_rows=profile.tile_rows, prompt_block=profile.prompt_block)


def report(
    claims: Sequence[Claim], model: Replayer, limits: Calibration | None, *, tier: Tier | None = None
) -> Report:
    """Verdicts on jobs of one node and profile.

    Args:
        claims: at least one.
        model: the auditor's copy of the model they name.
        limits: of the tolerance tier; by default those shipped for the profile.
        tier: by default the closest that the profiles allow.

    Raises:
        BadRequest: jobs of several profiles.
    """
    profile = claims[0].annex.profile
    if any(claim.annex.profile != profile for claim in claims):
        raise BadRequest(ErrorCode.INVALID_REQUEST, "the receipts are of several profiles; audit them apart")
    chosen = tier or (Tier.EXACT if is_same_class(profile, model.profile) else Tier.TOLERANCE)
    if chosen is Tier.EXACT:
        return Report(jobs=tuple(audit_exactly(claim, model) for claim in claims), pooled=None)
    limits = limits or shipped(claims[0].annex.model, profile)
    found = audit_batch(claims, model, limits)
    pooled = pool_verdict([measured for _, measured in found], limits) if len(found) > 1 else None
    return Report(jobs=tuple(verdict for verdict, _ in found), pooled=pooled)


def limits_of(data: bytes) -> Calibration:
    """Calibration of a file's bytes. Raises `BadRequest`."""
    try:
        return read(data)
    except ValueError as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "this is not a calibration file") from error


def read_trace(data: bytes) -> tuple[bytes, tuple[OpenBlock, ...]]:
    """Order hash and opened blocks of what `watt audit open` wrote. Raises `BadRequest`."""
    try:
        found = json.loads(data)
        order_hash = from_hex(found["order_hash"], 32)
        return order_hash, tuple(OpenBlock.from_json(row) for row in found["blocks"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"this is not an opened trace: {error}") from error


def open_trace(ledger: Ledger, order_hash: bytes, numbers: Sequence[int]) -> dict[str, Any]:
    """Blocks of one of our own jobs with their paths; all of them when no numbers are given.

    Raises:
        BadRequest: no trace of this order is kept here, or it has no such block.
    """
    body = ledger.traces.get(order_hash)
    if body is None:
        raise BadRequest(ErrorCode.UNKNOWN_JOB, f"no trace of order {to_hex(order_hash)} is kept here")
    blocks = decode_blocks(body)
    try:
        opened = [open_block(order_hash, blocks, number) for number in numbers or range(len(blocks))]
    except ValueError as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"there is no {error}") from error
    return {"order_hash": to_hex(order_hash), "blocks": [block.to_json() for block in opened]}


def _check_hashes(bundle: Bundle) -> None:
    order, receipt = bundle.order, bundle.receipt
    rules = (
        (receipt.order_hash == order.digest(bundle.domain), "the receipt is for another order"),
        (order.request_hash == request_hash(bundle.salt, bundle.payload), "the payload was not ordered"),
        (receipt.response_hash == response_hash(bundle.salt, bundle.chunks), "the answer was not signed"),
        (receipt.exec_hash == exec_hash(bundle.annex), "the annex was not signed"),
    )
    for holds, complaint in rules:
        if not holds:
            raise BadRequest(ErrorCode.RECEIPT_INVALID, complaint)
