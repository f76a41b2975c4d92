"""The register of models: publishing, naming, and what a name means now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from marketplace.chain.calls import Call
from marketplace.chain.client import ChainClient
from marketplace.chain.codec import decode_result, encode_call
from marketplace.chain.deployment import Deployment
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import ZERO32, ZERO_ADDRESS, checksum, to_hex

_REGISTER: Final = "ModelRegistry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What an alias means now; `fixed` is whether it is a version, which never moves."""

    model_id: bytes
    fixed: bool


def publish(deployment: Deployment, model_id: bytes, uri: str) -> Call:
    """Says where a model is."""
    return _call(deployment, "publish", model_id, uri, what=f"publish model {to_hex(model_id)[:10]}")


def release(deployment: Deployment, name: str, version: str, model_id: bytes) -> Call:
    """Lets a version mean a published model, for good."""
    return _call(deployment, "release", name, version, model_id, what=f"release {name}@{version}")


def point(deployment: Deployment, name: str, channel: str, model_id: bytes) -> Call:
    """Lets a channel mean a published model from now on."""
    return _call(deployment, "point", name, channel, model_id, what=f"point {name}@{channel}")


def is_published(chain: ChainClient, model_id: bytes) -> bool:
    """Whether anyone ever published a model."""
    return bool(_view(chain, "isPublished", model_id)[0])


def publisher_of(chain: ChainClient, name: str) -> str | None:
    """Whose a name is; None: nobody's yet."""
    (found,) = _view(chain, "publisherOf", name)
    return None if found == ZERO_ADDRESS else checksum(found)


def resolve(chain: ChainClient, name: str, label: str) -> Meaning | None:
    """What `name@label` means now; None: nothing."""
    model_id, fixed = _view(chain, "resolve", name, label)
    return None if model_id == ZERO32 else Meaning(model_id=model_id, fixed=fixed)


def _call(deployment: Deployment, function: str, *values: Any, what: str) -> Call:
    return Call(to=_place(deployment), data=encode_call(_REGISTER, function, *values), what=what)


def _view(chain: ChainClient, function: str, *values: Any) -> tuple[Any, ...]:
    data = chain.call(_place(chain.deployment), encode_call(_REGISTER, function, *values))
    return decode_result(_REGISTER, function, data)


def _place(deployment: Deployment) -> str:
    if not deployment.has_models:
        raise BadRequest(
            ErrorCode.UNSUPPORTED,
            "these contracts were deployed without a register of models",
            hint="Name models by id here; the contracts of `watt deploy` have a register.",
        )
    return deployment.models
