"""Reads a Hugging Face `config.json`, refusing whatever would be computed wrong."""

from collections.abc import Callable, Mapping
from typing import Any

from pdserve.errors import UnsupportedModelError
from pdserve.models.config import Activation, ModelConfig, RopeScaling

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def parse_hf_config(config: Mapping[str, Any]) -> ModelConfig:
    """The model that `config` describes; `UnsupportedModelError` names the key that prevents it."""
    keys = _Keys(config)
    family = config.get("model_type")
    parse = _FAMILIES.get(str(family))
    if parse is None:
        supported = ", ".join(_FAMILIES)
        raise UnsupportedModelError(
            f"model_type is {family!r}; supported: {supported}", field="model_type", limit=supported
        )
    keys.refuse("quantization_config", allowed=(None, {}))
    return parse(keys)


class _Keys:
    """Typed access to a JSON object."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def count(self, key: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _wrong(key, value, "a positive whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value = self.get(key, default)
        if not isinstance(value, int | float) or not value > 0:
            raise _wrong(key, value, "a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise _wrong(key, value, "true or false")
        return value

    def mapping(self, key: str) -> "_Keys":
        value = self.get(key, {})
        if not isinstance(value, Mapping):
            raise _wrong(key, value, "an object")
        return _Keys(value)

    def refuse(self, key: str, *, allowed: tuple[Any, ...]) -> None:
        """Raises unless the key is absent or has one of the values that change nothing."""
        value = self.values.get(key, allowed[0])
        if value not in allowed:
            raise UnsupportedModelError(f"{key} = {value!r} is not supported", field=key)

    def activation(self, key: str, default: str) -> Activation:
        value = self.get(key, default)
        if value not in _ACTIVATIONS:
            raise UnsupportedModelError(
                f"{key} = {value!r} is not supported; supported: {', '.join(_ACTIVATIONS)}",
                field=key,
            )
        return _ACTIVATIONS[value]

    def token_id(self, key: str) -> int | None:
        return next(iter(self.token_ids(key)), None)

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One token id or a list of them."""
        value = self.get(key, [])
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(token_id, int) for token_id in ids):
            raise _wrong(key, value, "a token id or a list of them")
        return tuple(ids)


def _wrong(key: str, value: Any, wanted: str) -> UnsupportedModelError:
    problem = "is missing" if value is None else f"is {value!r}"
    return UnsupportedModelError(f"{key} {problem}; it must be {wanted}", field=key)


def _llama(keys: _Keys) -> ModelConfig:
    bias = keys.flag("attention_bias", False)
    mlp_bias = keys.flag("mlp_bias", False)
    return _rotary(keys, "llama", qkv_bias=bias, output_bias=bias, mlp_bias=mlp_bias)


def _mistral(keys: _Keys) -> ModelConfig:
    return _rotary(keys, "mistral", sliding_window=_window(keys, default=4096))


def _qwen2(keys: _Keys) -> ModelConfig:
    window = _window(keys) if keys.flag("use_sliding_window", False) else None
    return _rotary(keys, "qwen2", qkv_bias=True, sliding_window=window)


def _qwen3(keys: _Keys) -> ModelConfig:
    window = _window(keys) if keys.flag("use_sliding_window", False) else None
    bias = keys.flag("attention_bias", False)
    keys.count("head_dim")  # must be stated: it is not hidden_size / heads in this family
    return _rotary(
        keys, "qwen3", qkv_bias=bias, output_bias=bias, qk_norm=True, sliding_window=window
    )


def _window(keys: _Keys, default: int | None = None) -> int | None:
    """The sliding window: null means none, and absent means the family's own default."""
    window = keys.values.get("sliding_window", default)
    return None if window is None else keys.count("sliding_window", default)


def _rotary(
    keys: _Keys,
    family: str,
    *,
    qkv_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
    sliding_window: int | None = None,
) -> ModelConfig:
    """What Llama and its descendants share: RMS norms, rotary positions and a gated MLP."""
    hidden, heads = keys.count("hidden_size"), keys.count("num_attention_heads")
    rope = keys.mapping("rope_parameters" if keys.get("rope_parameters") else "rope_scaling")
    keys.refuse("partial_rotary_factor", allowed=(1.0, None))
    rope.refuse("partial_rotary_factor", allowed=(1.0, None))
    return ModelConfig(
        family=family,
        vocab_size=keys.count("vocab_size"),
        hidden_size=hidden,
        layers=keys.count("num_hidden_layers"),
        heads=heads,
        kv_heads=keys.count("num_key_value_heads", heads),
        head_dim=keys.count("head_dim", hidden // heads),
        intermediate_size=keys.count("intermediate_size"),
        max_position=keys.count("max_position_embeddings"),
        norm="rms",
        norm_eps=keys.number("rms_norm_eps", 1e-6),
        positions="rope",
        activation=keys.activation("hidden_act", "silu"),
        tie_embeddings=keys.flag("tie_word_embeddings", False),
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        mlp_bias=mlp_bias,
        qk_norm=qk_norm,
        rope_theta=rope.number("rope_theta", keys.number("rope_theta", 10000.0)),
        rope_scaling=_rope_scaling(rope),
        sliding_window=sliding_window,
        bos_token_id=keys.token_id("bos_token_id"),
        eos_token_ids=keys.token_ids("eos_token_id"),
    )


def _rope_scaling(rope: _Keys) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", rope.number("factor"))
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            factor=rope.number("factor"),
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_max_position=rope.count("original_max_position_embeddings"),
        )
    raise UnsupportedModelError(
        f"rope_type {kind!r} is not supported; supported: default, linear, llama3",
        field="rope_type",
    )


def _opt(keys: _Keys) -> ModelConfig:
    """OPT (Zhang et al. 2022): learned positions from row 2 on, norm before each sublayer."""
    hidden, heads = keys.count("hidden_size"), keys.count("num_attention_heads")
    keys.refuse("do_layer_norm_before", allowed=(True,))
    keys.refuse("word_embed_proj_dim", allowed=(hidden, None))
    keys.refuse("_remove_final_layer_norm", allowed=(False, None))
    keys.refuse("layer_norm_elementwise_affine", allowed=(True, None))
    bias = keys.flag("enable_bias", True)
    return ModelConfig(
        family="opt",
        vocab_size=keys.count("vocab_size"),
        hidden_size=hidden,
        layers=keys.count("num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=keys.count("ffn_dim"),
        max_position=keys.count("max_position_embeddings"),
        norm="layer",
        norm_eps=1e-5,
        positions="learned",
        position_offset=2,
        activation=keys.activation("activation_function", "relu"),
        tie_embeddings=keys.flag("tie_word_embeddings", True),
        gated_mlp=False,
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bias,
        bos_token_id=keys.token_id("bos_token_id"),
        eos_token_ids=keys.token_ids("eos_token_id"),
    )


def _gpt2(keys: _Keys) -> ModelConfig:
    """GPT-2 (Radford et al. 2019)."""
    hidden, heads = keys.count("n_embd"), keys.count("n_head")
    keys.refuse("scale_attn_weights", allowed=(True, None))
    keys.refuse("scale_attn_by_inverse_layer_idx", allowed=(False, None))
    keys.refuse("add_cross_attention", allowed=(False, None))
    return ModelConfig(
        family="gpt2",
        vocab_size=keys.count("vocab_size"),
        hidden_size=hidden,
        layers=keys.count("n_layer"),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=keys.count("n_inner", 4 * hidden),
        max_position=keys.count("n_positions"),
        norm="layer",
        norm_eps=keys.number("layer_norm_epsilon", 1e-5),
        positions="learned",
        activation=keys.activation("activation_function", "gelu_new"),
        tie_embeddings=keys.flag("tie_word_embeddings", True),
        gated_mlp=False,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        bos_token_id=keys.token_id("bos_token_id"),
        eos_token_ids=keys.token_ids("eos_token_id"),
    )


_FAMILIES: dict[str, Callable[[_Keys], ModelConfig]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "opt": _opt,
    "gpt2": _gpt2,
}
