"""What one rank holds and computes of a model that is split by TP and PP."""

from dataclasses import dataclass

from pdserve.errors import ConfigError
from pdserve.models.config import DTYPE_BYTES, ModelConfig

_FLOAT32_BYTES = 4
# Rows of float32 logits that are alive at once: one of every sequence in a pass.
_LOGIT_ROWS = 64


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's part. Norms and biases, under a thousandth of the weights, are left out.

    Attention heads, MLP columns and tables are divided by `tp` and layers by `pp`; where there are
    fewer KV heads than `tp` ranks each rank holds one, so that KV is stored more than once. Raises
    `ConfigError` where heads or layers cannot be divided so.
    """

    config: ModelConfig
    dtype: str
    tp: int
    pp: int

    def __post_init__(self) -> None:
        heads, kv_heads, layers = self.config.heads, self.config.kv_heads, self.config.layers
        if self.tp < 1 or heads % self.tp:
            raise ConfigError(
                f"tp is {self.tp}; it must divide the model's {heads} attention heads",
                field="tp",
                limit=str(heads),
            )
        if kv_heads % self.tp and self.tp % kv_heads:
            raise ConfigError(
                f"tp is {self.tp}; it must divide the model's {kv_heads} KV heads or be a "
                "multiple of them",
                field="tp",
                limit=str(kv_heads),
            )
        if self.pp < 1 or layers % self.pp:
            raise ConfigError(
                f"pp is {self.pp}; it must divide the model's {layers} layers",
                field="pp",
                limit=str(layers),
            )

    @property
    def kv_heads(self) -> int:
        """KV heads of one rank."""
        return max(1, self.config.kv_heads // self.tp)

    @property
    def layer_weights(self) -> float:
        """Weights of one layer's matrices on one rank."""
        config = self.config
        heads = 2 * (config.heads // self.tp) + 2 * self.kv_heads
        mlp = config.intermediate_size * (3 if config.gated_mlp else 2) / self.tp
        return config.hidden_size * (heads * config.head_dim + mlp)

    @property
    def head_weights(self) -> float:
        """Weights of the output layer on one rank."""
        return self.config.vocab_size * self.config.hidden_size / self.tp

    @property
    def read_bytes(self) -> float:
        """Bytes of weights that a step reads, over all stages and on one rank of each."""
        weights = self.config.layers * self.layer_weights + self.head_weights
        return weights * DTYPE_BYTES[self.dtype]

    @property
    def flops_per_token(self) -> float:
        """FLOPs of the layers' matrix products per token, over all stages, on one rank of each."""
        return 2 * self.config.layers * self.layer_weights

    @property
    def head_flops(self) -> float:
        """FLOPs of one row of logits on one rank."""
        return 2 * self.head_weights

    @property
    def attention_flops_per_pair(self) -> float:
        """FLOPs of one query token seeing one other token: two products over all heads."""
        return 4 * self.config.layers * (self.config.heads // self.tp) * self.config.head_dim

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's hidden state: what an all-reduce or a stage's output carries."""
        return self.config.hidden_size * DTYPE_BYTES[self.dtype]

    @property
    def kv_read_bytes(self) -> int:
        """Bytes of KV per context token, over all stages, on one rank of each."""
        per_head = 2 * self.config.head_dim * DTYPE_BYTES[self.dtype]
        return self.config.layers * self.kv_heads * per_head

    @property
    def weight_bytes(self) -> float:
        """Bytes of weights on a rank of the fullest stage.

        With one stage, tied tables are held once; the first and the last of several hold one each.
        """
        config = self.config
        tables = config.vocab_size * (1 if config.tie_embeddings or self.pp > 1 else 2)
        if config.positions == "learned":
            tables += config.max_position + config.position_offset
        layers = config.layers // self.pp
        weights = layers * self.layer_weights + tables * config.hidden_size / self.tp
        return weights * DTYPE_BYTES[self.dtype]

    def activation_bytes(self, tokens: int) -> float:
        """Bytes of activations at a layer's widest point, and of logits, in a pass of `tokens`."""
        config = self.config
        wide = config.intermediate_size * (2 if config.gated_mlp else 1) / self.tp
        rows = tokens * (2 * config.hidden_size + wide) * DTYPE_BYTES[self.dtype]
        return rows + min(tokens, _LOGIT_ROWS) * config.vocab_size * _FLOAT32_BYTES

    def kv_tokens(self, memory_bytes: float, pass_tokens: int) -> int:
        """Tokens whose KV fits into `memory_bytes` of each rank besides weights and activations.

        `pass_tokens` is the largest pass. Negative where the weights alone do not fit.
        """
        free = memory_bytes - self.weight_bytes - self.activation_bytes(pass_tokens)
        return int(free // (self.kv_read_bytes / self.pp))
