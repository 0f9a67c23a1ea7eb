"""The sampling parameters that both endpoints take."""

import re

from pdserve.rpc.http_errors import ParameterError
from pdserve.rpc.v1 import types_pb2
from pdserve.sampling import MAX_COUNT
from services.router.http.fields import Fields, as_number, as_text, wrong_type

_MAX_TOKEN_ID = 2**32 - 1
_TOKEN_ID = re.compile(r"[0-9]{1,10}")


def sampling_of(fields: Fields, max_tokens: int | None, logprobs: int | None) -> types_pb2.Sampling:
    """The parameters; ranges that depend on the model are checked where all APIs meet.

    Raises `ParameterError`.
    """
    top_k = fields.whole("top_k", -1, MAX_COUNT) or 0
    return types_pb2.Sampling(
        temperature=fields.number("temperature"),
        # -1 is how vLLM writes "all of them".
        top_k=max(0, top_k),
        top_p=fields.number("top_p"),
        min_p=fields.number("min_p") or 0.0,
        repetition_penalty=fields.number("repetition_penalty"),
        presence_penalty=fields.number("presence_penalty") or 0.0,
        frequency_penalty=fields.number("frequency_penalty") or 0.0,
        logit_bias=_logit_bias(fields),
        seed=_seed(fields),
        stop_token_ids=fields.wholes("stop_token_ids", 0, _MAX_TOKEN_ID),
        ignore_eos=fields.flag("ignore_eos") or False,
        min_tokens=fields.whole("min_tokens", 0, MAX_COUNT) or 0,
        max_tokens=max_tokens,
        logprobs=logprobs,
    )


def stops_of(fields: Fields) -> list[str]:
    """The stop strings. Raises `ParameterError`."""
    value = fields.take("stop")
    if value is None:
        return []
    if isinstance(value, str):
        return [as_text(value, "stop")]
    if not isinstance(value, list):
        raise wrong_type("stop", "a string or a list of strings")
    return [as_text(each, f"stop[{place}]") for place, each in enumerate(value)]


def _logit_bias(fields: Fields) -> dict[int, float]:
    value = fields.take("logit_bias")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong_type("logit_bias", "an object that maps token ids to numbers")
    biases: dict[int, float] = {}
    for key, bias in value.items():
        if not _TOKEN_ID.fullmatch(key) or int(key) > _MAX_TOKEN_ID:
            text = f"logit_bias has the key {key!r}; keys must be token ids"
            raise ParameterError(text, field="logit_bias", code="invalid_value")
        biases[int(key)] = as_number(bias, f"logit_bias.{key}")
    return biases


def _seed(fields: Fields) -> int | None:
    # OpenAI's seeds are signed; the 64 bits are what counts.
    seed = fields.whole("seed", -(2**63), 2**64 - 1)
    return None if seed is None else seed % 2**64
