"""What an engine refuses or fails at; each carries a code, and with it status and remedy."""

from __future__ import annotations

from marketplace.protocol.errors import BadRequest, Broken, ErrorCode


class OutOfContext(BadRequest):
    """The prompt leaves no room for an answer."""

    def __init__(self, units_in: int, context_tokens: int) -> None:
        detail = f"the input is {units_in} tokens, this node reads at most {context_tokens - 1}"
        super().__init__(ErrorCode.INPUT_TOO_LONG, detail, units_in=units_in, context_tokens=context_tokens)


class EmptyInput(BadRequest):
    """There is nothing to work on."""

    def __init__(self, where: str) -> None:
        super().__init__(ErrorCode.INVALID_REQUEST, f"{where} holds no text")


class WrongTask(BadRequest):
    """The model does not do what is asked."""

    def __init__(self, asked: str, does: str) -> None:
        super().__init__(ErrorCode.UNSUPPORTED, f"this model does {does}, not {asked}")


class TemplateRefused(BadRequest):
    """The model's chat template does not take these messages."""

    def __init__(self, reason: str) -> None:
        super().__init__(ErrorCode.INVALID_REQUEST, f"messages do not fit the model's template: {reason}")


class ModelNotServed(BadRequest):
    """No engine of this node serves the model."""

    def __init__(self, model: str) -> None:
        super().__init__(ErrorCode.UNKNOWN_MODEL, f"model {model} is not served here", model=model)


class ResumeMismatch(Broken):
    """Kept chunks do not continue this job."""

    def __init__(self, job: str, reason: str) -> None:
        super().__init__(ErrorCode.INTERNAL, f"job {job} cannot be resumed: {reason}", job=job)


class EngineFailed(Broken):
    """The engine stopped; the job may be run again on a fresh one."""

    def __init__(self, reason: str) -> None:
        super().__init__(ErrorCode.NODE_FAILED, f"the engine stopped: {reason}")


class BadImage(BadRequest):
    """An image that is none, or too large."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(ErrorCode.INVALID_REQUEST, f"{where}: {reason}", param=where)


class UpstreamRefused(BadRequest):
    """The server that runs the model does not take this request."""

    def __init__(self, status: int) -> None:
        super().__init__(ErrorCode.UNSUPPORTED, f"the model's server refused the request ({status})")


class NoLogprobs(BadRequest):
    """The server that runs the model writes text; log-probabilities of it would be hearsay."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.UNSUPPORTED,
            "this node hands chat to a server and signs no log-probabilities",
            param="logprobs",
        )


class ModelChanged(Broken):
    """The model's files are not the ones its id stands for; nothing more is run on them."""

    def __init__(self, model: str, why: str) -> None:
        super().__init__(ErrorCode.NODE_FAILED, f"model {model} is not run any more: {why}", model=model)


class ModelRefused(EngineFailed):
    """A model that would not be run right; serve another, or this one from a server of its own."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"this model has {found}, which is not supported; serve a decoder with full or sliding attention"
        )
