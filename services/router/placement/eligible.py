"""Which instances a request may go to at all, and what to say where there is none."""

from collections.abc import Iterable, Sequence, Set
from functools import lru_cache

from pdserve.errors import IncompatibleLayoutError
from pdserve.kv.layout import KvLayout, check_compatible
from services.router.placer import PlacementRequest, Refusal
from services.router.view import Candidate, FleetView


def able_prefills(request: PlacementRequest, view: FleetView) -> list[Candidate]:
    """Prefill instances that can take the request."""
    # One more: prefill holds the KV of the prompt and samples the token after it.
    return _able(request, view.prefill, request.tokens + 1)


def able_decodes(request: PlacementRequest, view: FleetView) -> list[Candidate]:
    """Decode instances that can take the request."""
    return _able(request, view.decode, request.total_tokens)


def _able(request: PlacementRequest, all_of: Iterable[Candidate], tokens: int) -> list[Candidate]:
    # Written out, for this is asked of every instance for every request.
    fitting = [each for each in all_of if not each.max_model_len or each.max_model_len >= tokens]
    able = [each for each in fitting if _open(request, each)] if request.exclusions else fitting
    if not request.fingerprint:
        return able
    same = [each for each in able if each.layout.fingerprint == request.fingerprint]
    # A stream that goes on with another revision of the model is better than one that ends.
    return same or able


def _open(request: PlacementRequest, candidate: Candidate) -> bool:
    """Whether the request has not failed there, or the instance has been heard of since."""
    exclusion = request.exclusions.get(candidate.incarnation)
    return exclusion is None or candidate.reported_at > exclusion.until_report_after


def overload(request: PlacementRequest, view: FleetView) -> Refusal | None:
    """Refuses while prefill is overloaded, rather than burden decode: for good if all of it is."""
    full = [each for each in view.prefill if _refused_for_load(request, each)]
    if not full:
        return None
    if len(full) == len(view.prefill):
        return Refusal("every prefill instance is overloaded", overloaded=True)
    names = ", ".join(each.name for each in full)
    return Refusal(f"{names} is overloaded and the other prefill instances failed")


def nobody(role: str, view: FleetView) -> str:
    """That no instance of `role` can take the request, and what the absent ones lack."""
    absent = "; ".join(view.absent)
    return f"no {role} instance can take it" + (f": {absent}" if absent else "")


@lru_cache(maxsize=4096)
def mismatch(prefill: KvLayout, decode: KvLayout) -> str:
    """Why the first cannot hand KV to the second; empty where it can."""
    try:
        check_compatible(prefill, decode)
    except IncompatibleLayoutError as error:
        return str(error)
    return ""


def no_pair(prefills: Sequence[Candidate], decodes: Sequence[Candidate], view: FleetView) -> str:
    """Why none of `prefills` can hand KV to any of `decodes`; there is one of those at least."""
    if not prefills:
        return nobody("prefill", view)
    prefill, decode = prefills[0], decodes[0]
    if why := mismatch(prefill.layout, decode.layout):
        return f"{prefill.name} cannot hand KV to {decode.name}: {why}"
    return "hand-offs fail between every pair"


def first_pair(
    prefills: Sequence[Candidate], decodes: Sequence[Candidate], open_pairs: Set[tuple[str, str]]
) -> tuple[Candidate, Candidate] | None:
    """The first prefill instance that can hand KV to any of `decodes`, and the first of those; but
    none of `open_pairs`.
    """
    return next(
        (
            (prefill, decode)
            for prefill in prefills
            for decode in decodes
            if not mismatch(prefill.layout, decode.layout)
            and (prefill.incarnation, decode.incarnation) not in open_pairs
        ),
        None,
    )


def _refused_for_load(request: PlacementRequest, candidate: Candidate) -> bool:
    exclusion = request.exclusions.get(candidate.incarnation)
    return exclusion is not None and exclusion.overloaded
