"""Published models, and costs put together by hand."""

from pdserve.latency.cost import DecodeCost, Dispatch, InstanceCost, PrefillCost
from pdserve.models.config import ModelConfig


def opt(layers: int, hidden: int, heads: int) -> ModelConfig:
    """An OPT model: Zhang et al. 2022, table 1."""
    return ModelConfig(
        family="opt",
        vocab_size=50272,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=4 * hidden,
        max_position=2048,
        norm="layer",
        norm_eps=1e-5,
        positions="learned",
        position_offset=2,
        activation="relu",
        tie_embeddings=True,
        gated_mlp=False,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
    )


OPT_13B = opt(40, 5120, 40)
OPT_66B = opt(64, 9216, 72)
LLAMA_8B = ModelConfig(
    family="llama",
    vocab_size=128256,
    hidden_size=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate_size=14336,
    max_position=131072,
    norm="rms",
    norm_eps=1e-5,
    positions="rope",
    activation="silu",
    tie_embeddings=False,
)


def instance(
    prefill: tuple[float, float, float] = (1.0, 0.0, 0.0),
    decode: tuple[float, float, float] = (1.0, 0.0, 0.0),
    decode_large: tuple[float, float, float] | None = None,
    *,
    pp: int = 1,
    large_from: int = 1000,
    stage_s: float = 0.0,
    dispatch: Dispatch | None = None,
) -> InstanceCost:
    """An instance with these coefficients."""
    return InstanceCost(
        tp=1,
        pp=pp,
        prefill=PrefillCost(*prefill),
        decode=DecodeCost(*decode),
        decode_large=DecodeCost(*(decode_large or decode)),
        large_from=large_from,
        kv_tokens=1000,
        prefill_stage_s=stage_s,
        dispatch=dispatch or Dispatch(),
    )
