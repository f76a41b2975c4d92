"""An error as a body: RFC 9457 and OpenAI's shape at once, always saying whether it was charged."""

from __future__ import annotations

from typing import Any, Final

from marketplace.protocol.errors import WattError

_KINDS: Final = {401: "authentication_error", 402: "insufficient_funds", 429: "rate_limit_error"}


def body_of(
    error: WattError, request_id: str, *, charged: bool = False, param: str | None = None
) -> dict[str, Any]:
    """The body of an error."""
    spec = error.spec
    kind = _KINDS.get(spec.status, "invalid_request_error" if spec.status < 500 else "server_error")
    values = {name: value for name, value in error.values.items() if isinstance(value, str | int)}
    return values | {
        "type": f"urn:wattline:error:{error.code}",
        "title": spec.title,
        "status": spec.status,
        "detail": error.detail,
        "code": error.code.value,
        "hint": spec.hint,
        "charged": charged,
        "request_id": request_id,
        "retryable": spec.retryable and not charged,
        # OpenAI clients keep only this object, so what helps is in it too.
        "error": {
            "message": f"{error.detail} — {spec.hint}",
            "type": kind,
            "code": error.code.value,
            "param": param,
            "hint": spec.hint,
            "charged": charged,
        },
    }
