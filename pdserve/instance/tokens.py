"""The engine's tokens and reasons as messages."""

from pdserve.engine.events import Sampled
from pdserve.rpc.v1 import types_pb2
from pdserve.scheduling.sequence import FinishReason

_REASONS = {
    None: types_pb2.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: types_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: types_pb2.FINISH_REASON_LENGTH,
}


def token_to_proto(sampled: Sampled) -> types_pb2.Token:
    """The token with its place in the output and its logprobs."""
    token = sampled.token
    return types_pb2.Token(
        id=token.token_id,
        index=sampled.index,
        logprob=token.logprob,
        top_logprobs=[
            types_pb2.TopLogprob(token_id=token_id, logprob=logprob)
            for token_id, logprob in token.top
        ],
    )


def reason_to_proto(reason: FinishReason | None) -> "types_pb2.FinishReason.ValueType":
    """The reason as a message value; unspecified for None."""
    return _REASONS[reason]
