"""How sure a share is that was counted."""

import math

# The 97.5th percentile of the standard normal distribution.
Z95 = 1.959963984540054


def wilson_interval(hits: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share (JASA 22, 1927); 0 to 1 where nothing was tried.

    Unlike the normal approximation it is right near 0 and 1 and for few trials. It takes the trials
    for independent; requests that wait in the same queue are less so, and the truth is wider.
    """
    if trials == 0:
        return 0.0, 1.0
    share, square = hits / trials, z * z / trials
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square * square / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)
