"""What people type, read and checked: addresses, ids, durations, files; and whether they are sure."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from marketplace.protocol.errors import BadRequest, ErrorCode

if TYPE_CHECKING:
    from marketplace.client.bundle import Bundle

_DURATION: Final = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
MOST_NODE: Final = (1 << 32) - 1
_NODE_DIGITS: Final = len(str(MOST_NODE))
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)


def address(text: str, option: str) -> str:
    """An address, checksummed; mistyped ones are refused."""
    from marketplace.protocol.hexes import typed_address

    try:
        return typed_address(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no address: {error}", param_hint=option) from error


def digest(text: str, what: str) -> bytes:
    """32 bytes of hex, as ids of sessions and cases are."""
    from marketplace.protocol.hexes import from_hex

    try:
        return from_hex(text, 32)
    except ValueError as error:
        raise typer.BadParameter(f"a {what} id is 0x and 64 hex digits", param_hint=what.upper()) from error


def claimed_name(text: str) -> tuple[bytes, int] | None:
    """Session and sequence number of SESSION:SEQ; None for what is no such name."""
    session_id, colon, seq = text.partition(":")
    if not (colon and session_id.startswith("0x")):
        return None
    if not (seq.isascii() and seq.isdigit() and int(seq)):
        raise typer.BadParameter(f"{seq!r} is no number of an order", param_hint="SESSION:SEQ")
    return digest(session_id, "session"), int(seq)


def seconds(text: str, option: str) -> int:
    """A duration such as 90m, 24h or 7d."""
    found = _DURATION.fullmatch(text.strip())
    if not found or not int(found[1]):
        raise typer.BadParameter(f"{text!r} is no duration; write it as in 24h", param_hint=option)
    return int(found[1]) * _SECONDS[found[2]]


def moment_ms(text: str, option: str) -> int:
    """A day or moment such as 2026-11-01 or 2026-11-01T12:30, in UTC unless it says otherwise; Unix ms."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no moment; write it as in 2026-11-01", param_hint=option
        ) from error
    at_ms = int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    if at_ms < 0:
        raise typer.BadParameter(f"{text!r} is before 1970", param_hint=option)
    return at_ms


def node_ids(text: str | None, option: str) -> tuple[int, ...]:
    """Node ids between commas; none for no text."""
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    # More digits than any id has are not even read: Python refuses very long numbers.
    fit = all(part.isascii() and part.isdigit() and len(part) <= _NODE_DIGITS for part in parts)
    if not fit or not all(1 <= int(part) <= MOST_NODE for part in parts):
        raise typer.BadParameter(f"{text!r} is no list of nodes; write it as in 1,2,3", param_hint=option)
    return tuple(sorted({int(part) for part in parts}))


def patterns(text: str | None, option: str) -> tuple[str, ...]:
    """Patterns of model names between commas; none for no text."""
    from marketplace.protocol.patterns import problem_of

    found = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    if problem := problem_of(found):
        raise typer.BadParameter(f"{text!r}: {problem}", param_hint=option)
    return found


def name(text: str) -> str:
    """A name that is fit for a file."""
    if not _NAME.fullmatch(text):
        raise typer.BadParameter("lower-case letters, digits, - and _; at most 40", param_hint="NAME")
    return text


def segment(text: str) -> str:
    """An id that stays one segment of a path."""
    if not text.replace("_", "").isalnum():
        raise typer.BadParameter(f"{text!r} is no id")
    return text


def text_of(file: str) -> str:
    """Text of a file; - reads stdin.

    Raises:
        BadRequest: it cannot be read, or is no text.
    """
    try:
        return sys.stdin.read() if file == "-" else bytes_of(Path(file)).decode()
    except UnicodeDecodeError as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"{file} is no text in UTF-8.", hint="Check the path."
        ) from error


def passphrase_of(file: Path) -> str:
    """The passphrase in a file, without the end of its line. Raises as `text_of`."""
    return text_of(str(file)).rstrip("\n")


def bytes_of(file: Path) -> bytes:
    """Bytes of a file. Raises as `text_of`."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadRequest(
            ErrorCode.NOT_FOUND, f"{file} cannot be read ({error.strerror}).", hint="Check the path."
        ) from error


def bundle_of(file: Path) -> Bundle:
    """A receipt bundle.

    Raises:
        BadRequest: the file cannot be read, or holds none.
    """
    from marketplace.client.bundle import Bundle

    raw = bytes_of(file)
    try:
        data: Any = json.loads(raw)
    except ValueError as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"{file} is not JSON.", hint="watt receipt get ID --save FILE"
        ) from error
    return Bundle.from_json(data)


def be_sure(question: str, *, yes: bool) -> None:
    """Goes on where `--yes` was given or a person at the terminal says so.

    Raises:
        BadRequest: there is no terminal to ask at.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{question} Nobody is here to ask.", hint="Say --yes.")
    typer.confirm(question, abort=True, err=True)
