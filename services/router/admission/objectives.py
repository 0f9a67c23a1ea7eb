"""What applies to a request of SLOs and of class, where it says nothing or asks for too much."""

import math

from pdserve.config import RouterConfig
from pdserve.errors import InvalidRequestError
from pdserve.rpc.v1 import types_pb2
from pdserve.rpc.v1.types_pb2 import Priority

_OBJECTIVES = ("ttft_ms", "tpot_ms")


class Objectives:
    """Completes and checks the objectives of requests by the router's defaults."""

    def __init__(self, config: RouterConfig) -> None:
        # No objective is an unset field, as in a request.
        self._defaults = types_pb2.Slo(
            ttft_ms=config.slo_ttft_ms or None,
            tpot_ms=config.slo_tpot_ms or None,
            hard=config.slo_hard,
        )

    def resolve(self, slo: types_pb2.Slo) -> types_pb2.Slo:
        """The objectives that apply; `hard` is always set, the others where there are any.

        Raises `InvalidRequestError` naming the field that is wrong.
        """
        for name in _OBJECTIVES:
            _check_objective(slo, name)
        resolved = types_pb2.Slo()
        resolved.CopyFrom(self._defaults)
        resolved.MergeFrom(slo)
        return resolved


def resolve_priority(asked: Priority.ValueType, highest: Priority.ValueType) -> Priority.ValueType:
    """The class that applies: the one asked for, normal where none was, `highest` at most.

    A key's class is a ceiling rather than a condition, so that clients need not know theirs.
    Raises `InvalidRequestError` for a number that names no class.
    """
    if asked not in Priority.values():
        limit = "|".join(name.removeprefix("PRIORITY_") for name in Priority.keys()[1:])
        raise InvalidRequestError(
            f"priority is {asked}; it must be one of {limit}", field="priority", limit=limit
        )
    return min(asked or types_pb2.PRIORITY_NORMAL, highest)


def _check_objective(slo: types_pb2.Slo, name: str) -> None:
    if slo.HasField(name) and not 0 < getattr(slo, name) < math.inf:  # type: ignore[arg-type]
        raise InvalidRequestError(
            f"slo.{name} is {getattr(slo, name):g}; it must lie in (0, inf)",
            field=f"slo.{name}",
            limit="(0, inf)",
        )
