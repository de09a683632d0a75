"""What asyncio adds to `Model` and `Chat`. asyncio is imported by the first call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from .adapter import Adapter
    from .async_stream import AsyncTokenStream
    from .chat_template import Message
    from .options import GenerateArguments
    from .results import Generation
    from .stream import TokenStream


class AsyncModel(ABC):
    """Texts of prompts."""

    @abstractmethod
    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        adapter: Adapter | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> TokenStream:
        """Token by token."""

    def astream(
        self,
        prompt: str | Sequence[int],
        *,
        adapter: Adapter | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> AsyncTokenStream:
        """`stream()` for asyncio: `async for token in model.astream(...)`. It is computed in a
        thread of its own, where the arguments are checked, too; texts of several tasks share the
        model's steps. A cancelled task cancels its text. docs/ASYNC.md."""
        from .async_stream import AsyncTokenStream

        return AsyncTokenStream(lambda: self.stream(prompt, adapter=adapter, **arguments))

    async def agenerate(
        self,
        prompt: str | Sequence[int],
        *,
        adapter: Adapter | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> Generation:
        """`generate()` for asyncio; see `astream()`."""
        return await self.astream(prompt, adapter=adapter, **arguments).result()


class AsyncChat(ABC):
    """Turns of a chat."""

    @abstractmethod
    def stream(self, message: str | Message, **sampling: Any) -> TokenStream:
        """The reply, token by token."""

    def astream(self, message: str | Message, **sampling: Any) -> AsyncTokenStream:
        """`stream()` for asyncio; see `Model.astream()`."""
        from .async_stream import AsyncTokenStream

        return AsyncTokenStream(lambda: self.stream(message, **sampling))

    async def asend(self, message: str | Message, **sampling: Any) -> Generation:
        """`send()` for asyncio."""
        return await self.astream(message, **sampling).result()
