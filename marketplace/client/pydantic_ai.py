"""A model of pydantic-ai that knows what each request cost, so that its `cost_limit` holds.

    from pydantic_ai import Agent, UsageLimits
    from marketplace.client.pydantic_ai import WattlineModel

    agent = Agent(WattlineModel("smollm2-135m-instruct"))
    agent.run_sync("Say hello.", usage_limits=UsageLimits(cost_limit=Decimal("0.01")))

`base_url` is that of `watt proxy`, or of a gateway, with an `api_key` of it. Costs are in the market's token,
which pydantic-ai takes for dollars. The signed receipt is in `provider_details` of the response.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import httpx2
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIStreamedResponse
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.usage import RequestUsage

PROXY_URL: Final = "http://127.0.0.1:8403/v1"


class WattlineProvider(OpenAICompatibleProvider):
    """Where the models are; any key does for `watt proxy`."""

    def __init__(
        self,
        base_url: str = PROXY_URL,
        api_key: str | None = None,
        *,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        super().__init__("wattline", base_url=base_url, api_key=api_key, http_client=http_client)


class WattlineModel(OpenAIChatModel):
    """A chat model of the market, by name, `name@version` or `0x…` id."""

    def __init__(self, model_name: str, *, provider: WattlineProvider | None = None) -> None:
        super().__init__(model_name, provider=provider or WattlineProvider())

    @property
    def _streamed_response_cls(self) -> type[OpenAIStreamedResponse]:
        return _Streamed

    def _map_usage(self, response: ChatCompletion) -> RequestUsage:
        return _priced(super()._map_usage(response), response.usage)

    def _process_provider_details(self, response: ChatCompletion) -> dict[str, Any] | None:
        return (super()._process_provider_details(response) or {}) | _proof(response)


@dataclass
class _Streamed(OpenAIStreamedResponse):
    """The same for streams, whose last chunk has cost and receipt."""

    def _map_usage(self, response: ChatCompletionChunk) -> RequestUsage:
        return _priced(super()._map_usage(response), response.usage)

    def _map_chunk_provider_details(self, chunk: ChatCompletionChunk) -> dict[str, Any] | None:
        return _proof(chunk) or super()._map_chunk_provider_details(chunk)


def _priced(usage: RequestUsage, told: CompletionUsage | None) -> RequestUsage:
    details = (told.model_extra or {}).get("cost_details") if told else None
    if isinstance(details, dict) and isinstance(details.get("amount"), str):
        # The number beside it is rounded to what JSON's readers can hold; this text is exact.
        usage.cost = Decimal(details["amount"])
    return usage


def _proof(response: ChatCompletion | ChatCompletionChunk) -> dict[str, Any]:
    extra = response.model_extra or {}
    return {name: extra[name] for name in ("job_id", "receipt") if name in extra}
