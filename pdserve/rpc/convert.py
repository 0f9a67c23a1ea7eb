"""Sampling parameters and tokens, to and from their messages."""

from pdserve.rpc.v1 import types_pb2
from pdserve.sampling import SamplingParams


def sampling_to_proto(params: SamplingParams) -> types_pb2.Sampling:
    """The message with every field set."""
    return types_pb2.Sampling(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        logit_bias=params.logit_bias,
        seed=params.seed,
        stop_token_ids=params.stop_token_ids,
        ignore_eos=params.ignore_eos,
        min_tokens=params.min_tokens,
        max_tokens=params.max_tokens,
        logprobs=params.logprobs,
    )


def sampling_from_proto(
    message: types_pb2.Sampling, *, default_seed: int, default_max_tokens: int
) -> SamplingParams:
    """The parameters, unvalidated; unset fields take their defaults."""

    def optional(name: str, default: float) -> float:
        return float(getattr(message, name)) if message.HasField(name) else default  # type: ignore[arg-type]

    return SamplingParams(
        temperature=optional("temperature", 1.0),
        top_k=message.top_k,
        top_p=optional("top_p", 1.0),
        min_p=message.min_p,
        repetition_penalty=optional("repetition_penalty", 1.0),
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        logit_bias=dict(message.logit_bias),
        seed=message.seed if message.HasField("seed") else default_seed,
        stop_token_ids=tuple(message.stop_token_ids),
        ignore_eos=message.ignore_eos,
        min_tokens=message.min_tokens,
        max_tokens=message.max_tokens if message.HasField("max_tokens") else default_max_tokens,
        logprobs=message.logprobs if message.HasField("logprobs") else None,
    )
