"""How an engine batches: the knobs by which the policies that are simulated differ."""

from dataclasses import dataclass

from pdserve.errors import ConfigError

_UNBOUNDED = 1 << 40
# More sequences than any trace keeps on one instance without being hopelessly overloaded.
_MANY_SEQS = 1 << 14


@dataclass(frozen=True, slots=True)
class Policy:
    """One engine's batching.

    `chunked`: a step has every decoding sequence and fills the token budget with prompts, cut where
    it ends; otherwise whole prompts go first, and decoding waits. `max_batch_tokens` bounds the
    prompt tokens of a step (0: as many as the instance's KV holds), `max_batch_seqs` the sequences
    that run at once. `kv_limit`: sequences take blocks of `block_size` tokens, wait for them, and
    are preempted when they run out. `decode_context` bounds the context of one decode step;
    sequences beyond it take turns. `first_token_decoded`: as many decode steps as output tokens,
    besides the first token, which prefill samples: how DistServe's simulator counts.
    """

    chunked: bool = True
    max_batch_tokens: int = 2048
    max_batch_seqs: int = 256
    kv_limit: bool = True
    block_size: int = 16
    decode_context: int = _UNBOUNDED
    first_token_decoded: bool = False


# What the services run (pdserve.scheduling): decode first, then prompts in chunks.
PDSERVE = Policy()
# DistServe's own simulator: prefill takes all that waits up to the KV capacity, decode steps hold
# 50,000 context tokens, and memory holds nobody back.
DISTSERVE = Policy(
    chunked=False,
    max_batch_tokens=0,
    max_batch_seqs=_MANY_SEQS,
    kv_limit=False,
    decode_context=50_000,
    first_token_decoded=True,
)
# vLLM before chunked prefill (0.2 to 0.4): whole prompts first, 2,560 tokens at once (its default
# max_num_batched_tokens), 256 sequences.
VLLM = Policy(chunked=False, max_batch_tokens=2560, max_batch_seqs=256)
# Sarathi-Serve (OSDI 2024): chunks of 512 tokens, the size that its evaluation uses most.
SARATHI = Policy(max_batch_tokens=512, max_batch_seqs=128)

POLICIES = {"pdserve": PDSERVE, "distserve": DISTSERVE, "vllm": VLLM, "sarathi": SARATHI}


def find_policy(name: str) -> Policy:
    """The policy `name`; `ConfigError` where there is none."""
    if name not in POLICIES:
        known = ", ".join(POLICIES)
        raise ConfigError(
            f"policy is {name!r}; it must be one of {known}", field="policy", limit=known
        )
    return POLICIES[name]
