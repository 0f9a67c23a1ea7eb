"""What a decoder model is made of, without its weights."""

from dataclasses import dataclass
from typing import Literal

from pdserve.errors import ConfigError, UnsupportedModelError

Activation = Literal["silu", "relu", "gelu", "gelu_tanh"]

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched for longer contexts.

    `linear` divides every frequency by `factor` (Chen et al. 2023, "Extending Context Window of
    Large Language Models via Positional Interpolation"). `llama3` divides the low ones, keeps the
    high ones and blends those between (`use_scaled_rope` of Meta's llama-models); only it reads the
    last three fields.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Architecture and sizes of one decoder.

    `max_position` is the model's context length in tokens. `position_offset` is the number of
    leading rows of a learned position table that no token uses. With a `sliding_window`, a token
    sees at most that many tokens, itself included.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    max_position: int
    norm: Literal["rms", "layer"]
    norm_eps: float
    positions: Literal["rope", "learned"]
    activation: Activation
    tie_embeddings: bool
    gated_mlp: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    position_offset: int = 0
    sliding_window: int | None = None
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise UnsupportedModelError(
                f"{self.heads} attention heads cannot share {self.kv_heads} KV heads evenly",
                field="num_key_value_heads",
            )
        if self.positions == "rope" and self.head_dim % 2:
            raise UnsupportedModelError(
                f"head_dim is {self.head_dim}; rotary positions need an even one", field="head_dim"
            )

    @property
    def parameter_count(self) -> int:
        """Number of distinct weights; tied embeddings count once."""
        norm = self.hidden_size * (2 if self.norm == "layer" else 1)
        tables = self.vocab_size * (1 if self.tie_embeddings else 2)
        if self.positions == "learned":
            tables += self.max_position + self.position_offset
        return tables * self.hidden_size + self.layers * (self._layer_parameters + 2 * norm) + norm

    @property
    def _layer_parameters(self) -> int:
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
        ups = self.intermediate_size * (2 if self.gated_mlp else 1)
        weights = self.hidden_size * (
            qkv + self.heads * self.head_dim + ups + self.intermediate_size
        )
        biases = (
            self.qkv_bias * qkv
            + self.output_bias * self.hidden_size
            + self.mlp_bias * (ups + self.hidden_size)
            + self.qk_norm * 2 * self.head_dim
        )
        return weights + biases

    def weight_bytes(self, dtype: str) -> int:
        """Bytes of all weights in `dtype`, one of `DTYPE_BYTES`."""
        return self.parameter_count * DTYPE_BYTES[dtype]

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Bytes that one token's keys and values take over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * DTYPE_BYTES[dtype]

    def served_length(self, requested: int = 0) -> int:
        """The longest prompt + output to serve, in tokens; 0 asks for the longest possible.

        Attention here sees every earlier token, which equals a sliding window only while the text
        is not longer than that. Raises `ConfigError` when `requested` exceeds the context length
        and `UnsupportedModelError` when it exceeds the window.
        """
        if requested > self.max_position:
            raise ConfigError(
                f"max_model_len is {requested}; the model's context length is {self.max_position}",
                field="max_model_len",
                limit=str(self.max_position),
            )
        if self.sliding_window is None:
            return requested or self.max_position
        if requested > self.sliding_window:
            raise UnsupportedModelError(
                f"max_model_len is {requested}, but the model's sliding_window is "
                f"{self.sliding_window} and windowed attention is not supported: set "
                f"--max-model-len to {self.sliding_window} or less",
                field="max_model_len",
                limit=str(self.sliding_window),
            )
        return requested or min(self.max_position, self.sliding_window)
