"""`Wattline`: the blocking face of `AsyncWattline`, on a private event loop. It holds no logic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from anyio.from_thread import BlockingPortal, start_blocking_portal

from marketplace.client.aio import AsyncChatStream, AsyncWattline, ChatOptions, Messages
from marketplace.client.results import ChatResult

P = ParamSpec("P")
R = TypeVar("R")


class ChatStream:
    """Pieces of text as they are generated; `result` once they have ended."""

    def __init__(self, portal: BlockingPortal, stream: AsyncChatStream) -> None:
        self._portal, self._stream = portal, stream

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return self._portal.call(self._stream.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    @property
    def result(self) -> ChatResult:
        """The verified result; only after the last piece."""
        return self._stream.result

    def close(self) -> None:
        """Stops reading; the node is still paid for what it delivers by the deadline."""
        self._portal.call(self._stream.aclose)


def _blocking(
    method: Callable[Concatenate[AsyncWattline, P], Awaitable[R]],
) -> Callable[Concatenate[Wattline, P], R]:
    @wraps(method)
    def call(self: Wattline, /, *arguments: P.args, **options: P.kwargs) -> R:
        return self.run(method, *arguments, **options)

    return call


class Wattline:
    """One buyer key at one gateway, for code that does not use asyncio. Threads may share it."""

    def __init__(self, make: Callable[[], Awaitable[AsyncWattline]]) -> None:
        self._running = start_blocking_portal()
        self._portal = self._running.__enter__()
        try:
            self.core = self._portal.call(make)
        except BaseException as error:
            self._running.__exit__(type(error), error, error.__traceback__)
            raise

    @classmethod
    def open(cls, **options: Any) -> Self:
        """A client as `AsyncWattline.open` makes it, with the same arguments."""
        return cls(partial(AsyncWattline.open, **options))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._portal.call(self.core.aclose)
        finally:
            # With an error, as on Ctrl-C, calls still under way are cancelled instead of waited for.
            self._running.__exit__(kind, error, trace)

    def close(self) -> None:
        """Closes connections, journal and event loop, after calls under way."""
        self.__exit__(None, None, None)

    def run(
        self,
        method: Callable[Concatenate[AsyncWattline, P], Awaitable[R]],
        *args: P.args,
        **options: P.kwargs,
    ) -> R:
        """Result of an `AsyncWattline` method."""
        return self._portal.call(partial(method, self.core, *args, **options))

    set_budget = _blocking(AsyncWattline.set_budget)
    spending = _blocking(AsyncWattline.spending)
    models = _blocking(AsyncWattline.models)
    nodes = _blocking(AsyncWattline.nodes)
    quote = _blocking(AsyncWattline.quote)
    quote_embed = _blocking(AsyncWattline.quote_embed)
    quote_task = _blocking(AsyncWattline.quote_task)
    embed = _blocking(AsyncWattline.embed)
    ask = _blocking(AsyncWattline.ask)
    job = _blocking(AsyncWattline.job)
    cancel = _blocking(AsyncWattline.cancel)
    jobs = _blocking(AsyncWattline.jobs)
    receipt = _blocking(AsyncWattline.receipt)
    verify = _blocking(AsyncWattline.verify)
    sessions = _blocking(AsyncWattline.sessions)
    open_session = _blocking(AsyncWattline.open_session)
    top_up = _blocking(AsyncWattline.top_up)
    create_key = _blocking(AsyncWattline.create_key)

    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> ChatResult: ...
    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> ChatStream: ...
    def chat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> ChatResult | ChatStream:
        """Generated text, whole or as a stream; see `AsyncWattline.chat`."""
        if stream:
            return ChatStream(self._portal, self._portal.call(self._start, messages, options))
        return self._portal.call(partial(self.core.chat, messages, **options))

    async def _start(self, messages: Messages, options: ChatOptions) -> AsyncChatStream:
        return await self.core.chat(messages, stream=True, **options)
