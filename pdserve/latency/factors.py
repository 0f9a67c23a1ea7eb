"""How much of a GPU's figures a serving engine gets, as named factors of the roofline."""

import math
from dataclasses import dataclass, fields

from pdserve.errors import ConfigError

_SHARES = ("linear", "attention", "weights", "kv", "link", "memory")


@dataclass(frozen=True, slots=True)
class RooflineFactors:
    """Shares of peak figures, and overheads in seconds.

    Unless said otherwise a default is fitted to DistServe's profiles of OPT-13B and OPT-66B on A100
    with TP 1, 2, 3, 4 and 8 (`pdserve/latency/profiles`; the least squares of relative residuals)
    and rounded. Raises `ConfigError` for a share outside (0, 1] or a negative overhead.
    """

    linear: float = 0.65
    """Linear layers, of the GPU's FLOP/s. A fit to passes of 128 to 2,048 tokens gives 0.68; a
    little less, because a roofline underestimates the shorter ones."""

    attention: float = 0.50
    """Attention of a prefill pass, of FLOP/s. Not fitted: the quadratic coefficients of the
    profiles, from prompts of at most 2,048 tokens, give anything from under 0.1 to over 0.6. The
    lower end of the 50 to 73 % of peak that FlashAttention-2 reaches on A100 (Dao 2023,
    abstract)."""

    weights: float = 0.80
    """Reading weights in a decode step, of memory bandwidth. Fitted with `layer_s` and
    `ring_step_s` to the seven base times of small batches, which then agree within 2 %, and within
    6 % as rounded here and with `pass_s`."""

    kv: float = 0.62
    """Reading KV in a decode step, of memory bandwidth: paged blocks are gathered. The seven
    slopes give 0.53 to 0.65."""

    link: float = 0.45
    """All-reduce, of a link's bandwidth in one direction. The prefill slopes at TP > 1 give 0.46,
    which holds the norms as well that every rank computes in full."""

    ring_step_s: float = 3e-6
    """Latency of each of the 2 (TP − 1) steps of an all-reduce in a ring."""

    layer_s: float = 125e-6
    """Launching a layer's kernels from the host, as an engine without CUDA graphs does."""

    pass_s: float = 0.5e-3
    """Scheduling and sampling, per pass and stage. An assumption: the profiles leave them out."""

    memory: float = 0.90
    """Share of the GPU's memory that weights, activations and KV may take: what vLLM and DistServe
    set by default. The rest is the CUDA context, communication buffers and fragmentation."""

    activation_tokens: int = 2048
    """The largest pass for whose activations memory is set aside, in tokens."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            share = field.name in _SHARES
            if not math.isfinite(value) or value < 0 or (share and not 0 < value <= 1):
                limit = "above 0 and at most 1" if share else "at least 0"
                raise ConfigError(
                    f"{field.name} is {value}; it must be {limit}", field=field.name, limit=limit
                )
