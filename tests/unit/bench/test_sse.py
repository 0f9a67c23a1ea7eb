"""Server-sent events, however the network cuts them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.bench.sse import EventReader

STREAM = (
    ": keep-alive\n\nevent: message\nid: 7\ndata: {\"a\": 1}\n\n"
    "data:no blank\n\n\n\nretry: 10\n\ndata: two\ndata: lines\n\n: ping\ndata: é€\n\n"
    "data\n\ndata: [DONE]\n\ndata: not ended"
)  # fmt: skip
EVENTS = ['{"a": 1}', "no blank", "two\nlines", "é€", "[DONE]"]


def read(stream: bytes, cuts: list[int]) -> list[str]:
    reader = EventReader()
    events = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += reader.feed(stream[begin:end])
    return [event.decode() for event in events]


@settings(max_examples=300)
@given(
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, len(STREAM.encode()) * 2), max_size=20),
)
def test_events_are_the_same_wherever_the_stream_is_cut(end: str, places: list[int]) -> None:
    stream = STREAM.replace("\n", end).encode()
    assert read(stream, sorted(min(each, len(stream)) for each in places)) == EVENTS


def test_every_byte_by_itself() -> None:
    for end in ("\n", "\r\n", "\r"):
        stream = STREAM.replace("\n", end).encode()
        assert read(stream, list(range(1, len(stream)))) == EVENTS
        # Nothing may come as well.
        assert read(stream, sorted(2 * list(range(1, len(stream))))) == EVENTS
