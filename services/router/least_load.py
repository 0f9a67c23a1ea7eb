"""The placer that takes whichever compatible pair has the least to do."""

from collections.abc import Sequence

from pdserve.errors import IncompatibleLayoutError
from pdserve.kv.layout import check_compatible
from services.router.placer import Placement, PlacementRequest, Refusal, Rung
from services.router.view import Candidate, FleetView


class LeastLoad:
    """Prefill where the fewest prompt tokens wait, decode where the fewest requests are.

    Both phases run on decode when `colocated`, or when no prefill instance is left for the request;
    a prefill instance that is merely overloaded is a reason to refuse, not to burden decode.
    """

    def __init__(self, *, colocated: bool) -> None:
        self._colocated = colocated

    def place(self, request: PlacementRequest, view: FleetView) -> Placement | Refusal:
        """The least loaded placement, or why there is none."""
        decodes = _by_requests(request, view.decode)
        if not decodes:
            return Refusal(_nobody("decode", view))
        if self._colocated:
            return _local(decodes, "colocated")
        prefills = _by_tokens(request, view.prefill)
        pair = _first_pair(prefills, decodes)
        if pair:
            return _remote(*pair, view)
        unlike = _mismatch(prefills[0], decodes[0]) if prefills else ""
        return _overload(request, view) or _local(decodes, unlike or _nobody("prefill", view))


def _by_tokens(request: PlacementRequest, candidates: Sequence[Candidate]) -> list[Candidate]:
    # One more: prefill holds the KV of the prompt and samples the token after it.
    able = [each for each in candidates if each.fits(request.tokens + 1) and _open(request, each)]
    return sorted(
        able, key=lambda each: (_avoided(request, each), each.load.tokens, each.load.requests)
    )


def _by_requests(request: PlacementRequest, candidates: Sequence[Candidate]) -> list[Candidate]:
    able = [each for each in candidates if each.fits(request.total_tokens) and _open(request, each)]
    return sorted(
        able, key=lambda each: (_avoided(request, each), each.load.requests, each.load.tokens)
    )


def _open(request: PlacementRequest, candidate: Candidate) -> bool:
    exclusion = request.exclusions.get(candidate.incarnation)
    if exclusion is None:
        return True
    return candidate.reported_at > exclusion.until_report_after


def _avoided(request: PlacementRequest, candidate: Candidate) -> bool:
    return candidate.incarnation in request.exclusions


def _overload(request: PlacementRequest, view: FleetView) -> Refusal | None:
    """Refuses while prefill is overloaded: for good if all of it is."""
    full = [each for each in view.prefill if _overloaded(request, each)]
    if not full:
        return None
    if len(full) == len(view.prefill):
        return Refusal("every prefill instance is overloaded", overloaded=True)
    names = ", ".join(each.name for each in full)
    return Refusal(f"{names} is overloaded and the other prefill instances failed")


def _overloaded(request: PlacementRequest, candidate: Candidate) -> bool:
    exclusion = request.exclusions.get(candidate.incarnation)
    return exclusion is not None and exclusion.overloaded


def _first_pair(
    prefills: Sequence[Candidate], decodes: Sequence[Candidate]
) -> tuple[Candidate, Candidate] | None:
    return next(
        (
            (prefill, decode)
            for prefill in prefills
            for decode in decodes
            if not _mismatch(prefill, decode)
        ),
        None,
    )


def _mismatch(prefill: Candidate, decode: Candidate) -> str:
    """Why the first cannot hand KV to the second; empty where it can."""
    try:
        check_compatible(prefill.layout, decode.layout)
    except IncompatibleLayoutError as error:
        return f"{prefill.name} cannot hand KV to {decode.name}: {error}"
    return ""


def _remote(prefill: Candidate, decode: Candidate, view: FleetView) -> Placement:
    reason = (
        f"{prefill.name} has {prefill.load.tokens} prompt tokens to do (of {len(view.prefill)}), "
        f"{decode.name} has {_requests(decode)} (of {len(view.decode)})"
    )
    return Placement(Rung.REMOTE, prefill, decode, reason)


def _local(decodes: Sequence[Candidate], why: str) -> Placement:
    decode = decodes[0]
    reason = f"{why}; {decode.name} has {_requests(decode)}"
    return Placement(Rung.LOCAL, None, decode, reason)


def _requests(candidate: Candidate) -> str:
    count = candidate.load.requests
    return "1 request" if count == 1 else f"{count} requests"


def _nobody(role: str, view: FleetView) -> str:
    absent = "; ".join(view.absent)
    return f"no {role} instance can take it" + (f": {absent}" if absent else "")
