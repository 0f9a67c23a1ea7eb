"""When the router itself can tell that an output is complete."""

import pytest

from pdserve.rpc.v1 import types_pb2
from pdserve.sampling import SamplingParams
from services.router.generation import Generation

EOS = 2


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ([], None),
        ([5], None),
        ([EOS], None),
        ([5, EOS], types_pb2.FINISH_REASON_STOP),
        ([5, 6, 7], None),
        ([5, 6, 7, 8], types_pb2.FINISH_REASON_LENGTH),
    ],
)
def test_the_engines_own_rule(output, reason):
    """As the engine ends: an end token counts from the `min_tokens`-th on."""
    sampling = SamplingParams(min_tokens=2, max_tokens=4)
    ends = frozenset({EOS})
    generation = Generation("r", "r.1", [1], sampling, types_pb2.Slo(), (), False, ends)
    assert generation.reason_to_end(output) == reason
