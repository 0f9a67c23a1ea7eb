"""What ranks hold, against the whole model."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_models import LLAMA_8B, OPT_13B, OPT_66B

from pdserve.errors import ConfigError
from pdserve.latency.shard import Shard

bounded = settings(max_examples=40, deadline=None)
degrees = st.sampled_from([1, 2, 4, 8])


@pytest.mark.parametrize("config", [OPT_13B, OPT_66B, LLAMA_8B])
def test_one_rank_holds_the_whole_model(config):
    shard = Shard(config, "float16", 1, 1)
    assert shard.weight_bytes == pytest.approx(config.weight_bytes("float16"), rel=2e-3)
    assert shard.kv_read_bytes == config.kv_bytes_per_token("float16")


def test_matrix_flops_are_twice_the_weights():
    """Within the share of tables: 2 FLOPs a weight and token (Kaplan et al. 2020, section 2.1)."""
    shard = Shard(OPT_13B, "float16", 1, 1)
    assert shard.flops_per_token == pytest.approx(2 * 12.85e9, rel=0.03)


@bounded
@given(st.sampled_from([OPT_13B, LLAMA_8B]), degrees, degrees)
def test_ranks_together_hold_at_least_the_model(config, tp, pp):
    shard = Shard(config, "bfloat16", tp, pp)
    assert tp * pp * shard.weight_bytes >= 0.998 * config.weight_bytes("bfloat16")
    assert tp * shard.kv_read_bytes >= config.kv_bytes_per_token("bfloat16")


def test_kv_heads_are_replicated_where_there_are_fewer_than_ranks():
    config = replace(LLAMA_8B, kv_heads=2)
    two, eight = Shard(config, "bfloat16", 2, 1), Shard(config, "bfloat16", 8, 1)
    assert eight.kv_read_bytes == two.kv_read_bytes
    assert eight.layer_weights > two.layer_weights / 4


def test_the_ends_of_a_pipeline_each_hold_a_table():
    """Layers halve; of the two tables one stays."""
    one, two = (Shard(LLAMA_8B, "bfloat16", 1, pp) for pp in (1, 2))
    assert two.weight_bytes == pytest.approx(one.weight_bytes / 2)
    tied = replace(LLAMA_8B, tie_embeddings=True)
    one, two = (Shard(tied, "bfloat16", 1, pp) for pp in (1, 2))
    assert two.weight_bytes > one.weight_bytes / 2


def test_more_memory_holds_more_tokens_and_too_little_none():
    shard = Shard(OPT_13B, "float16", 1, 1)
    tokens = shard.kv_tokens(60e9, 2048)
    assert shard.kv_tokens(60e9 + 1000 * 819200, 2048) == pytest.approx(tokens + 1000, abs=1)
    assert shard.kv_tokens(60e9, 8192) < tokens
    assert shard.kv_tokens(20e9, 2048) < 0


@pytest.mark.parametrize(
    ("config", "tp", "pp", "field"),
    [
        (OPT_13B, 3, 1, "tp"),
        (OPT_13B, 0, 1, "tp"),
        (replace(LLAMA_8B, heads=36, kv_heads=6), 4, 1, "tp"),
        (OPT_13B, 1, 3, "pp"),
    ],
)
def test_what_does_not_divide_is_refused(config, tp, pp, field):
    with pytest.raises(ConfigError) as caught:
        Shard(config, "float16", tp, pp)
    assert caught.value.field == field
