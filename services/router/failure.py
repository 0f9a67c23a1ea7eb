"""What may go wrong with an attempt, whose fault it is, and what the next attempt avoids."""

import time
from collections.abc import Mapping

from grpc import aio

from pdserve import errors
from pdserve.errors import PdserveError
from pdserve.rpc.errors import from_rpc_error, is_cut
from services.router.instance import Instance
from services.router.placer import Exclusion

# The cause of a failure that the instance itself did not live to report.
LOST = "lost"
# The cause of one of which nobody can say more than that nothing comes: the instance may be
# stopped, its host or the network gone, or all of it merely starved.
SILENT = "silent"
# The cause of one that answered what makes no sense.
PROTOCOL = "protocol"
# Another instance would answer the same.
_FINAL = (errors.InvalidRequestError, errors.DeadlineError)
# Decode reports these when it could not get the KV: the fault may be on either side.
_SHARED = (
    errors.TransferError,
    errors.UnknownRequestError,
    errors.StaleIncarnationError,
    errors.IncompatibleLayoutError,
)
# Of those, the ones that the way between the two is to blame for, and not what either has to do.
_HAND_OFF = (errors.TransferError, errors.IncompatibleLayoutError)
_ANY_REPORT = float("-inf")
_NO_REPORT = float("inf")


class InstanceFailure(Exception):  # noqa: N818 - it fails an attempt, not the request
    """An instance failed one attempt. `cause` is short and stable, for metrics."""

    def __init__(self, instance: Instance, error: PdserveError, cause: str = "") -> None:
        super().__init__(f"{instance.name}: {error}")
        self.instance = instance
        self.error = error
        self.cause = cause or error.reason


class AttemptFailed(Exception):  # noqa: N818 - the request may go on
    """An attempt ended without a result, because of one instance or more at the same moment."""

    def __init__(self, failures: list[InstanceFailure]) -> None:
        super().__init__("; ".join(str(failure) for failure in failures))
        self.failures = failures
        self.cause = failures[0].cause

    @property
    def of_hand_off(self) -> bool:
        """Whether the KV did not get through although both instances live."""
        alive = all(failure.cause not in (LOST, SILENT) for failure in self.failures)
        return alive and any(isinstance(each.error, _HAND_OFF) for each in self.failures)

    def final_error(self) -> PdserveError | None:
        """The error that ends the request, if another attempt cannot help."""
        return next((each.error for each in self.failures if isinstance(each.error, _FINAL)), None)

    def exclusions(self, prefill: Instance | None) -> dict[str, Exclusion]:
        """What the next attempts avoid, by incarnation, when `prefill` took part in this one."""
        avoided: dict[str, Exclusion] = {}
        for failure in self.failures:
            avoided |= _exclusions(failure, prefill)
        return avoided


def rpc_failure(instance: Instance, error: aio.AioRpcError) -> InstanceFailure:
    """The failure of `instance` that ended one of its calls."""
    if is_cut(error):
        # Not the instance says so but gRPC, whose connection to it is gone.
        return lost(instance, error.details() or "its connection broke")
    return InstanceFailure(instance, from_rpc_error(error))


def lost(instance: Instance, reason: str, cause: str = LOST) -> InstanceFailure:
    """The failure of an instance that is gone, or as good as gone."""
    return InstanceFailure(instance, errors.UnavailableError(f"lost: {reason}"), cause)


def must_prove_itself(exclusions: Mapping[str, Exclusion], instance: Instance) -> bool:
    """Whether an attempt failed on `instance` that it was to blame for."""
    exclusion = exclusions.get(instance.incarnation)
    return exclusion is not None and exclusion.until_report_after != _ANY_REPORT


def _exclusions(failure: InstanceFailure, prefill: Instance | None) -> dict[str, Exclusion]:
    now = time.monotonic()
    culprit = failure.instance.incarnation
    if prefill and failure.instance is not prefill and isinstance(failure.error, _SHARED):
        # Decode has just answered, so it lives; prefill has yet to show that it does.
        return {prefill.incarnation: Exclusion(now), culprit: Exclusion(_ANY_REPORT)}
    if failure.instance is prefill and isinstance(failure.error, errors.OverloadedError):
        return {culprit: Exclusion(_NO_REPORT, overloaded=True)}
    return {culprit: Exclusion(now)}
