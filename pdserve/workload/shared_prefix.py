"""What a prefix cache could save."""

import numpy as np

from pdserve.workload.workload import Ints, Workload


def cacheable_tokens(workload: Workload) -> Ints:
    """How many tokens of each prompt, `[requests]`, a cache that forgets nothing would hold.

    These are the blocks from the beginning of the prompt that prompts of earlier requests had too;
    requests that arrive together count in their order. Outputs are not in the cache: a trace has no
    ids of their blocks. 0 everywhere in a workload without prefixes.
    """
    prefix = workload.prefix
    if prefix is None or not len(prefix.ids):
        return np.zeros(len(workload), dtype=np.int64)
    counts = np.diff(prefix.offsets)
    request = np.repeat(np.arange(len(workload)), counts)
    # Of assignments to one place the last stays, which here is the first request with the block.
    first_request = np.zeros(prefix.count, dtype=np.int64)
    first_request[prefix.ids[::-1]] = request[::-1]
    seen = first_request[prefix.ids] < request
    # The first miss of each request, or its end: hits behind a miss are of no use.
    misses = np.append(np.flatnonzero(~seen), len(prefix.ids))
    stop = np.minimum(misses[np.searchsorted(misses, prefix.offsets[:-1])], prefix.offsets[1:])
    hits = stop - prefix.offsets[:-1]
    # The last block of a prompt is rarely full.
    cached: Ints = np.minimum(hits * prefix.block_tokens, workload.prompt_tokens)
    return cached
