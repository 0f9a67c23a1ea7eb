"""A request that has been found valid: nothing in it changes any more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pdserve.rpc.convert import sampling_to_proto
from pdserve.rpc.v1 import types_pb2
from pdserve.sampling import SamplingParams

FinishReason: TypeAlias = types_pb2.FinishReason.ValueType


@dataclass(frozen=True, slots=True)
class Generation:
    """What a client wants generated, in tokens.

    `run_id` names this run to the instances: an id that a client chose may come back through
    another router, or before an instance has forgotten its last bearer. `continues_prompt` tells
    text that goes on where the prompt ends from an answer to it. `slo` and `priority` are those
    that apply, defaults included: `slo.hard` is set, the priority is one of the three classes.
    `end_token_ids` end the output, once it has `min_tokens` tokens.
    """

    request_id: str
    run_id: str
    prompt_token_ids: Sequence[int]
    sampling: SamplingParams
    slo: types_pb2.Slo
    priority: types_pb2.Priority.ValueType
    stops: tuple[str, ...]
    continues_prompt: bool
    end_token_ids: frozenset[int]

    @property
    def total_tokens(self) -> int:
        """Longest context that the request may reach."""
        return len(self.prompt_token_ids) + self.sampling.max_tokens

    def sampling_message(self) -> types_pb2.Sampling:
        """The sampling parameters for an instance; max_tokens counts the output of all attempts."""
        return sampling_to_proto(self.sampling)

    def reason_to_end(self, output: Sequence[int]) -> FinishReason | None:
        """Why an output ends here, as its tokens alone tell; None when it goes on."""
        if not output:
            return None
        if len(output) >= self.sampling.min_tokens and output[-1] in self.end_token_ids:
            return types_pb2.FINISH_REASON_STOP
        if len(output) >= self.sampling.max_tokens:
            return types_pb2.FINISH_REASON_LENGTH
        return None
