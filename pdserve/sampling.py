"""How the next token is chosen: the parameters of a request, validated once at the edge."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pdserve.errors import InvalidRequestError

MAX_COUNT = 2**31 - 1
MAX_LOGPROBS = 20
MAX_STOP_TOKEN_IDS = 64
MAX_LOGIT_BIAS = 1024


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling parameters of one request.

    A temperature of 0 is greedy. `top_k` 0, `top_p` 1 and `min_p` 0 keep every token. `logprobs`
    None reports none; n reports the sampled token's and the n most likely ones'. The random number
    for output token i is a function of (`seed`, i) alone.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    max_tokens: int = 16
    logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0.0

    @property
    def penalized(self) -> bool:
        """Whether earlier tokens change the logits."""
        return (
            self.repetition_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )

    def validate(self, vocab_size: int) -> None:
        """Raises `InvalidRequestError` naming the first field that is out of its range."""
        _within("temperature", self.temperature, 0.0, 100.0)
        _within("top_k", self.top_k, 0, MAX_COUNT)
        _within("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("repetition_penalty", self.repetition_penalty, 0.0, 100.0, open_low=True)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _within("seed", self.seed, 0, 2**64 - 1)
        _within("max_tokens", self.max_tokens, 1, MAX_COUNT)
        _within("min_tokens", self.min_tokens, 0, self.max_tokens)
        if self.logprobs is not None:
            _within("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        _within("stop_token_ids (count)", len(self.stop_token_ids), 0, MAX_STOP_TOKEN_IDS)
        for token_id in self.stop_token_ids:
            _within("stop_token_ids", token_id, 0, vocab_size - 1)
        _within("logit_bias (count)", len(self.logit_bias), 0, MAX_LOGIT_BIAS)
        for token_id, bias in self.logit_bias.items():
            _within("logit_bias (token id)", token_id, 0, vocab_size - 1)
            _within("logit_bias", bias, -100.0, 100.0)


def _within(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    above = value > low if open_low else value >= low
    if above and value <= high:  # NaN fails both comparisons
        return
    limit = f"{'(' if open_low else '['}{low}, {high}]"
    raise InvalidRequestError(
        f"{name} is {value}; it must lie in {limit}", field=name.split(" ")[0], limit=limit
    )
