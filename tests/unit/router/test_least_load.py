"""The least-load policy, from plain data."""

from pdserve.kv.layout import KvLayout
from services.router.placement.least_load import LeastLoad
from services.router.placement.ranked import RankedPlacer
from services.router.placer import Exclusion, Placement, PlacementRequest, Refusal, Rung
from services.router.view import Candidate, FleetView, Load

LAYOUT = KvLayout("f", "float32", 2, 1, 4, 16)
OTHER = KvLayout("g", "float32", 2, 1, 4, 16)
REQUEST = PlacementRequest(tokens=10, total_tokens=20)


def candidate(
    name: str,
    *,
    requests: int = 0,
    tokens: int = 0,
    longest: int = 0,
    layout: KvLayout = LAYOUT,
    reported_at: float = 0.0,
) -> Candidate:
    return Candidate(name, f"life of {name}", layout, longest, Load(requests, tokens), reported_at)


def placed(prefill, decode, request=REQUEST, *, colocated: bool = False) -> tuple[str, ...] | str:
    """The names that were chosen, or the reason of the refusal."""
    view = FleetView(tuple(prefill), tuple(decode), ("decode-9 is down (refused)",))
    answer = RankedPlacer(LeastLoad(), colocated=colocated).place(request, view)
    if isinstance(answer, Refusal):
        return answer.reason
    assert (answer.rung is Rung.LOCAL) == (answer.prefill is None)
    return tuple(each.name for each in (answer.prefill, answer.decode) if each)


def avoiding(**exclusions: Exclusion) -> PlacementRequest:
    lives = {f"life of {name}": exclusion for name, exclusion in exclusions.items()}
    return PlacementRequest(tokens=10, total_tokens=20, exclusions=lives)


def test_prefill_goes_where_the_fewest_tokens_wait() -> None:
    prefill = [candidate("p", tokens=30, requests=1), candidate("q", tokens=20, requests=9)]
    assert placed(prefill, [candidate("d")]) == ("q", "d")


def test_decode_goes_where_the_fewest_requests_are() -> None:
    decode = [candidate("d", requests=3, tokens=10), candidate("e", requests=2, tokens=99)]
    assert placed([candidate("p")], decode) == ("p", "e")


def test_only_compatible_layouts_pair() -> None:
    prefill = [candidate("p", layout=OTHER), candidate("q", tokens=99)]
    assert placed(prefill, [candidate("d")]) == ("q", "d")
    assert placed(prefill[:1], [candidate("d")]) == ("d",)
    decode = [candidate("d"), candidate("e", requests=9, layout=OTHER)]
    assert placed(prefill[:1], decode) == ("p", "e")


def test_why_a_pair_is_not_one_is_explained() -> None:
    view = FleetView((candidate("p", layout=OTHER),), (candidate("d"),))
    answer = RankedPlacer(LeastLoad(), colocated=False).place(REQUEST, view)
    assert isinstance(answer, Placement)
    assert answer.reason == (
        "p cannot hand KV to d: KV layouts differ: "
        "fingerprint is 'g' at prefill and 'f' at decode; d has 0 requests"
    )


def test_what_cannot_hold_the_request_is_out() -> None:
    decode = [candidate("d", longest=19), candidate("e", longest=20, requests=5)]
    assert placed([candidate("p", longest=11)], decode) == ("p", "e")
    assert placed([candidate("p", longest=10)], decode) == ("e",)
    assert placed([], decode[:1]).startswith("no decode instance can take it")


def test_the_reason_of_a_refusal_names_who_is_absent() -> None:
    assert placed([candidate("p")], []) == (
        "no decode instance can take it: decode-9 is down (refused)"
    )


def test_colocated_never_uses_prefill() -> None:
    assert placed([candidate("p")], [candidate("d")], colocated=True) == ("d",)


def test_an_excluded_instance_is_avoided_while_there_is_another() -> None:
    busy = [candidate("p"), candidate("q", tokens=99)]
    request = avoiding(p=Exclusion(until_report_after=-1.0))
    assert placed(busy, [candidate("d")], request) == ("q", "d")
    assert placed(busy[:1], [candidate("d")], request) == ("p", "d")


def test_the_last_instance_is_tried_again_only_after_a_report_that_proves_it_lives() -> None:
    request = avoiding(d=Exclusion(until_report_after=5.0))
    assert isinstance(placed([candidate("p")], [candidate("d", reported_at=5.0)], request), str)
    assert placed([candidate("p")], [candidate("d", reported_at=5.1)], request) == ("p", "d")


def test_without_living_prefill_decode_does_both() -> None:
    request = avoiding(p=Exclusion(until_report_after=5.0))
    assert placed([candidate("p")], [candidate("d")], request) == ("d",)


def test_overloaded_prefill_is_no_reason_to_burden_decode() -> None:
    request = avoiding(p=Exclusion(float("inf"), overloaded=True))
    view = FleetView((candidate("p"),), (candidate("d"),))
    answer = RankedPlacer(LeastLoad(), colocated=False).place(request, view)
    assert answer == Refusal("every prefill instance is overloaded", overloaded=True)


def test_prefill_that_may_come_back_is_waited_for_while_the_other_is_overloaded() -> None:
    full, failed = Exclusion(float("inf"), overloaded=True), Exclusion(until_report_after=5.0)
    request = avoiding(p=full, q=failed)
    view = FleetView((candidate("p"), candidate("q")), (candidate("d"),))
    answer = RankedPlacer(LeastLoad(), colocated=False).place(request, view)
    assert answer == Refusal("p is overloaded and the other prefill instances failed")


def test_the_decision_is_explained() -> None:
    view = FleetView((candidate("p", tokens=7),), (candidate("d", requests=2),))
    answer = RankedPlacer(LeastLoad(), colocated=False).place(REQUEST, view)
    assert isinstance(answer, Placement)
    assert answer.reason == "p has 7 prompt tokens to do (of 1), d has 2 requests (of 1)"


def test_the_context_limit_is_that_of_the_longest_decode() -> None:
    assert (
        FleetView((), (candidate("d", longest=10), candidate("e", longest=20))).context_limit == 20
    )
    assert FleetView((), (candidate("d", longest=10), candidate("e"))).context_limit == 0
    assert FleetView((), ()).context_limit == 0
