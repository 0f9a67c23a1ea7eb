"""The requests of one simulation: long enough for a deployment to fill up."""

import math

from pdserve.workload.operations import repeat
from pdserve.workload.workload import Workload

_LEAST_S = 60.0
_MOST_REQUESTS = 500_000


def lasting(workload: Workload, rate: float, requests: int) -> Workload:
    """The first `requests` requests at `rate`, or as many more as a minute takes.

    A trace that is too short for that is played over and over.
    """
    count = min(max(requests, math.ceil(rate * _LEAST_S)), max(requests, _MOST_REQUESTS))
    if count > len(workload):
        return repeat(workload, count).at_rate(rate)
    return workload.take(slice(0, count)).at_rate(rate)
