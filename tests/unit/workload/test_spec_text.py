import pytest

from pdserve.errors import ConfigError
from pdserve.workload.arrivals import (
    Arrivals,
    FixedArrivals,
    GammaArrivals,
    OnOffArrivals,
    PoissonArrivals,
)
from pdserve.workload.conversations import Conversations
from pdserve.workload.lengths import FixedLengths, Lengths, LognormalLengths, UniformLengths
from pdserve.workload.spec_text import (
    CONVERSATIONS_FORM,
    parse_arrivals,
    parse_conversations,
    parse_lengths,
)


@pytest.mark.parametrize(
    ("text", "arrivals"),
    [
        ("poisson", PoissonArrivals()),
        ("fixed", FixedArrivals()),
        ("gamma:cv=3", GammaArrivals(3.0)),
        (" gamma: cv = 0.5 ", GammaArrivals(0.5)),
        ("onoff:on=10,off=1,on_s=20,off_s=40", OnOffArrivals(10, 1, 20, 40)),
        ("onoff:off_s=40,on_s=20,off=0,on=1e1", OnOffArrivals(10, 0, 20, 40)),
    ],
)
def test_arrivals(text: str, arrivals: Arrivals) -> None:
    assert parse_arrivals(text) == arrivals


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("512", FixedLengths(512)),
        ("fixed:512", FixedLengths(512)),
        ("uniform:10-200", UniformLengths(10, 200)),
        ("lognormal:mean=755,sigma=1", LognormalLengths(755, 1)),
        ("lognormal:p50=400,p99=4000", LognormalLengths.from_percentiles(400, 4000)),
    ],
)
def test_lengths(text: str, lengths: Lengths) -> None:
    assert parse_lengths(text, "prompt") == lengths


def test_conversations() -> None:
    assert parse_conversations("") == parse_conversations(CONVERSATIONS_FORM) == Conversations()
    assert parse_conversations("turns=2.5,system=700") == Conversations(2.5, system_tokens=700)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "arrivals '': no process is called ''; known forms: poisson"),
        ("posson", "no process is called 'posson'"),
        ("poisson:cv=1", "'cv' is not known; it takes nothing"),
        ("gamma", "arrivals 'gamma': cv is missing"),
        ("gamma:3", "'3' must be KEY=VALUE"),
        ("gamma:shape=3", "'shape' is not known; it takes cv"),
        ("gamma:cv=three", "arrivals 'gamma:cv=three': cv is 'three'; it must be a number"),
        ("gamma:cv=-1", "arrivals 'gamma:cv=-1': cv is -1.0; it must be above 0"),
        ("gamma:cv=1,cv=2", "cv is given twice"),
        ("onoff:on=10,off=1,on_s=20", "off_s is missing"),
    ],
)
def test_the_wrong_piece_of_arrivals_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_arrivals(text)
    assert message in str(raised.value)
    assert raised.value.field == "arrivals"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no distribution is called ''; known forms: 512"),
        ("normal:mean=3", "no distribution is called 'normal'"),
        ("0", "prompt '0': tokens is 0; it must lie in"),
        ("-5", "tokens is -5"),
        ("1.5", "no distribution is called '1.5'"),
        ("fixed:x", "tokens is 'x'; it must be a whole number"),
        ("uniform:10", "high is ''; it must be a whole number"),
        ("uniform:20-10", "low is 20; it must be at most high, 10"),
        ("lognormal:mean=3", "sigma is missing"),
        ("lognormal:p50=3", "p99 is missing"),
        ("lognormal:mean=3,sigma=nan", "sigma is nan; it must be above 0"),
        ("lognormal:mean=3,p99=4", "'mean' is not known; it takes p50, p99"),
    ],
)
def test_the_wrong_piece_of_lengths_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_lengths(text, "prompt")
    assert message in str(raised.value)
    assert raised.value.field == "prompt"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("turns", "conversations 'turns': 'turns' must be KEY=VALUE"),
        ("turns=0", "turns is 0.0; it must lie in [1, 1e+06]"),
        ("system=1.5", "system is '1.5'; it must be a whole number"),
        ("think=3", "'think' is not known; it takes turns, think_s, system, max, block"),
    ],
)
def test_the_wrong_piece_of_conversations_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_conversations(text)
    assert message in str(raised.value)
