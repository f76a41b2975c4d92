"""What commands that buy many jobs share: a cap, consent, one statement, and how they end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketplace.cli import config as configs
from marketplace.cli import inputs, screen
from marketplace.cli.exits import Exit, exit_of
from marketplace.protocol.errors import WattError

if TYPE_CHECKING:
    from marketplace.client.statement import Tally

ASK_ABOVE: Final = "0.10"
AskAbove = Annotated[
    str, typer.Option("--ask-above", metavar="AMOUNT", help="Ask first where it may cost more.")
]
Retries = Annotated[
    int, typer.Option("--retries", min=0, max=20, help="How often to order again after a free failure.")
]


def atoms(amount: str | None, config: configs.Config, option: str) -> int | None:
    """Atoms of an amount on the command line."""
    from marketplace.protocol.money import parse_atoms

    if amount is None:
        return None
    try:
        return parse_atoms(amount, config.currency.decimals)
    except WattError as error:
        raise typer.BadParameter(error.detail, param_hint=option) from error


def agreed(
    most_atoms: int, cap_atoms: int | None, ask_above: str, config: configs.Config, *, yes: bool
) -> None:
    """Asks at a terminal before much is spent; elsewhere a cap is consent.

    Raises:
        BadRequest: neither a terminal, nor a cap, nor `--yes`.
    """
    limit = atoms(ask_above, config, "--ask-above") or 0
    may_cost = most_atoms if cap_atoms is None else min(most_atoms, cap_atoms)
    if may_cost <= limit or (cap_atoms is not None and not sys.stdin.isatty()):
        return
    inputs.be_sure(f"This may cost up to {config.currency.show(may_cost)}. Go on?", yes=yes)


def paid(tally: Tally, config: configs.Config) -> dict[str, Any]:
    """Sums of receipts, as JSON."""
    money = config.currency
    return {"paid": money.bare(tally.paid_atoms), "currency": money.symbol, **tally.to_json()}


def lines(tally: Tally, uncertain_atoms: int, config: configs.Config) -> list[tuple[str, str]]:
    """Sums of receipts, for people."""
    money = config.currency
    nodes = ", ".join(f"{node_id} ({share.jobs} jobs)" for node_id, share in sorted(tally.nodes.items()))
    joules, rest = divmod(tally.energy_millijoules, 1000)
    told = [
        ("paid", money.show(tally.paid_atoms)),
        ("not used", f"{money.show(tally.refunded_atoms)} of the maximum"),
        ("units", f"{tally.units_in} in, {tally.units_out} out"),
    ]
    told += [("nodes", nodes)] if nodes else []
    told += [("energy", f"{joules}.{rest // 100} J (as the nodes say)")] if tally.energy_millijoules else []
    if uncertain_atoms:
        told.append(("not certain", f"up to {money.show(uncertain_atoms)} more: orders without a good end"))
    return told


def ending(halted_by: WattError | None, *, interrupted: bool) -> str:
    """How it ended, in one word: complete, interrupted, or the code of what stopped it."""
    if halted_by is not None:
        return "cap" if "cap_atoms" in halted_by.values else halted_by.code.value
    return "interrupted" if interrupted else "complete"


def problem(halted_by: WattError | None, config: configs.Config) -> dict[str, Any] | None:
    """What stopped it, as JSON."""
    if halted_by is None:
        return None
    sentence, hint = _worded(halted_by, config)
    return {"code": halted_by.code.value, "message": sentence, "hint": hint}


def complain(
    halted_by: WattError | None, enough_atoms: int, config: configs.Config, *, as_json: bool
) -> None:
    """Says what stopped it and how to go on; `enough_atoms` is a cap that covers all of it."""
    if halted_by is None or as_json:
        return
    sentence, hint = _worded(halted_by, config)
    if "cap_atoms" in halted_by.values:
        hint = f"The same command goes on with a higher cap; {config.currency.bare(enough_atoms)} is enough."
    screen.failed(sentence, halted_by.code.value, hint)


def exit_code(halted_by: WattError | None, *, interrupted: bool, failed: int) -> int:
    """Exit code of the whole."""
    if halted_by is not None:
        return exit_of(halted_by)
    if interrupted:
        return Exit.INTERRUPTED
    return Exit.FAILED if failed else Exit.OK


def _worded(error: WattError, config: configs.Config) -> tuple[str, str]:
    from marketplace.client.problems import hint_of

    if "cap_atoms" not in error.values:
        return screen.worded(error, config.currency, hint_of(error))
    money = config.currency
    cap, used, need = (int(str(error.values[f"{name}_atoms"])) for name in ("cap", "committed", "need"))
    left = f"{money.bare(used)} are used, the next job may cost {money.bare(need)}"
    return f"The cap is {money.show(cap)}: {left}.", hint_of(error)
