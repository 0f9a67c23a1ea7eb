"""The call of a pull, seen from prefill."""

from collections.abc import AsyncIterator

from kv_pair import admitted, pair


async def test_what_decode_says_is_read_to_its_end() -> None:
    """gRPC keeps the memory of a call whose pending read was cancelled."""
    ends: list[str] = []

    async def noted(requests: AsyncIterator) -> AsyncIterator:
        try:
            async for request in requests:
                yield request
            ends.append("read to its end")
        finally:
            ends.append("closed")

    async with pair() as it:
        for name in ("a", "b", "c"):
            it.offer(name, range(3), 12)
            await it.pull(name, admitted([5, 6, 7], 0, 12), lambda asked: it.call(noted(asked)))
    assert ends == ["read to its end", "closed"] * 3
