import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdserve.errors import InvalidRequestError
from pdserve.text.stop import MAX_STOP_CHARS, MAX_STOPS, StopStrings

ALPHABET = "ab\n"


def naive(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Grows the text a character at a time and looks for a stop string at its end."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(
    stops=st.lists(st.text(ALPHABET, min_size=1, max_size=5), max_size=4),
    pieces=st.lists(st.text(ALPHABET, max_size=6), max_size=8),
)
def test_the_result_is_that_of_the_naive_search_however_the_text_is_cut(
    stops: list[str], pieces: list[str]
) -> None:
    guard = StopStrings(stops)
    shown = "".join(guard.push(piece) for piece in pieces)
    shown += guard.flush()
    assert (shown, guard.matched) == naive("".join(pieces), stops)


@given(
    stops=st.lists(st.text(ALPHABET, min_size=1, max_size=5), max_size=4),
    text=st.text(ALPHABET, max_size=30),
)
def test_no_more_is_held_back_than_may_become_a_stop_string(stops: list[str], text: str) -> None:
    guard = StopStrings(stops)
    shown = ""
    for end, character in enumerate(text, 1):
        shown += guard.push(character)
        if guard.matched is not None:
            return
        held = text[len(shown) : end]
        assert not held or any(stop.startswith(held) for stop in stops)


def test_nothing_passes_after_a_match() -> None:
    guard = StopStrings(["END"])
    assert guard.push("one EN") == "one "
    assert guard.push("D two") == ""
    assert guard.matched == "END"
    assert guard.push("three") == ""
    assert guard.flush() == ""


def test_without_stop_strings_text_passes_at_once() -> None:
    guard = StopStrings([])
    assert guard.push("text") == "text"
    assert guard.matched is None


@pytest.mark.parametrize(
    "stops",
    [["a"] * (MAX_STOPS + 1), ["ok", ""], ["x" * (MAX_STOP_CHARS + 1)]],
)
def test_limits_are_named(stops: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match="stop") as caught:
        StopStrings(stops)
    assert caught.value.field == "stop"
    assert caught.value.limit


def test_the_limits_themselves_are_allowed() -> None:
    longest = [chr(0x4E00 + index) * MAX_STOP_CHARS for index in range(MAX_STOPS)]
    guard = StopStrings(longest)
    assert guard.push("x" + longest[3]) == "x"
    assert guard.matched == longest[3]
