"""What a gateway can answer instead of a result, as exceptions that carry the remedy."""

from __future__ import annotations

from typing import Any, Literal

from marketplace.protocol.errors import SPECS, ErrorCode, WattError

_BY_STATUS = {
    401: ErrorCode.UNKNOWN_KEY,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.BODY_TOO_LARGE,
    422: ErrorCode.INVALID_REQUEST,
    429: ErrorCode.RATE_LIMITED,
    503: ErrorCode.NOT_READY,
}


class GatewayProblem(WattError):
    """The gateway answered with a problem; `charged` says whether money moved."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str = "",
        *,
        hint: str = "",
        status: int = 0,
        charged: bool | Literal["refunded"] = False,
        request_id: str = "",
        **values: object,
    ) -> None:
        super().__init__(code, detail, **values)
        self.hint = hint or SPECS[code].hint
        self.status = status or SPECS[code].status
        self.charged = charged
        self.request_id = request_id


class GatewayTrouble(WattError):
    """The gateway does not answer; whether an order under way is charged shows later."""

    def __init__(self, detail: str, *, hint: str = "", **values: object) -> None:
        super().__init__(ErrorCode.NOT_READY, detail, **values)
        self.hint = hint or "Start one with `watt up`, or name another: --gateway URL (WATT_GATEWAY_URL)."


def problem_of(body: Any, status: int = 0, request_id: str = "") -> GatewayProblem:
    """Exception of a problem document; tolerates what is no such document."""
    data = body if isinstance(body, dict) else {}
    named = str(data.get("code") or "")
    known = named in ErrorCode.__members__.values()
    code = ErrorCode(named) if known else _BY_STATUS.get(status, ErrorCode.INTERNAL)
    detail = str(data.get("detail") or data.get("sentence") or data.get("title") or "")
    if named and not known:
        detail = f"{named}: {detail}"
    return GatewayProblem(
        code,
        detail,
        hint=str(data.get("hint") or ""),
        status=status or _integer(data.get("status")),
        charged="refunded" if data.get("charged") == "refunded" else data.get("charged") is True,
        request_id=str(data.get("request_id") or request_id),
    )


def hint_of(error: WattError) -> str:
    """The remedy an error carries, else its code's."""
    return str(getattr(error, "hint", "") or error.values.get("hint") or error.spec.hint)


def _integer(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
