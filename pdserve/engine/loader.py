"""From the files of a model to a decoder that computes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pdserve.engine.attention import Heads, SelfAttention
from pdserve.engine.checkpoint import Checkpoint, Progress
from pdserve.engine.families import naming
from pdserve.engine.layers import (
    Embedding,
    GatedMlp,
    HeadNorm,
    LayerNorm,
    Module,
    PlainMlp,
    RmsNorm,
)
from pdserve.engine.linear import Linear, make_linear
from pdserve.engine.model import Decoder, DecoderLayer
from pdserve.engine.rotary import Rotary, rotary_frequencies
from pdserve.engine.weights import GgufStore, SafetensorsStore, TensorStore
from pdserve.models.config import ModelConfig
from pdserve.models.gguf import GgufFile
from pdserve.models.read import gguf_config, read_config
from pdserve.models.source import ModelSource


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A decoder, ready to compute.

    `fingerprint` is equal for two instances only if they have the same model, whatever their dtype.
    """

    config: ModelConfig
    decoder: Decoder
    fingerprint: str


def load_model(
    source: ModelSource,
    dtype: torch.dtype,
    device: torch.device,
    progress: Progress | None = None,
    *,
    layer_group: int = 0,
) -> LoadedModel:
    """Loads the model in `source`.

    `progress(done, total)` is called with the number of parameters read, after each tensor.
    `layer_group` is the decoder's. Raises `UnsupportedModelError` naming what is not supported,
    missing, of a wrong shape or superfluous.
    """
    if device.type == "cuda":
        # cuDNN's attention makes a plan, tens of milliseconds, for every new batch size and length;
        # no two steps of an engine are alike. The kernels that are left take any.
        torch.backends.cuda.enable_cudnn_sdp(False)
    config, store = _open(source)
    checkpoint = Checkpoint(
        config,
        store,
        naming(source.kind, config.family),
        dtype=dtype,
        device=device,
        progress=progress,
    )
    decoder = _Builder(config, checkpoint, dtype, device).decoder(layer_group)
    return LoadedModel(config, decoder, checkpoint.finish())


def _open(source: ModelSource) -> tuple[ModelConfig, TensorStore]:
    if source.kind == "gguf":
        file = GgufFile(source.path)
        return gguf_config(file), GgufStore(file)
    return read_config(source), SafetensorsStore(source.path)


class _Builder:
    """Puts a decoder together from a checkpoint, the pieces chosen by the configuration."""

    def __init__(
        self, config: ModelConfig, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._config = config
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._device = device

    def decoder(self, layer_group: int) -> Decoder:
        """The decoder; every tensor that it needs is taken from the checkpoint."""
        config = self._config
        tokens = self._checkpoint.weight("embedding", (config.vocab_size, config.hidden_size))
        return Decoder(
            embedding=Embedding(tokens, self._positions()),
            rotary=self._rotary() if config.positions == "rope" else None,
            layers=tuple(self._layer(index) for index in range(config.layers)),
            norm=self._norm("norm"),
            head=make_linear(self._head(tokens), None),
            heads=Heads(config.heads, config.kv_heads, config.head_dim),
            layer_group=layer_group,
        )

    def _head(self, tokens: Tensor) -> Tensor:
        if not self._config.tie_embeddings:
            return self._checkpoint.weight("head", tuple(tokens.shape))
        self._checkpoint.discard("head")  # some files repeat the embedding under this name
        return tokens

    def _positions(self) -> Tensor | None:
        config = self._config
        if config.positions != "learned":
            return None
        rows = config.position_offset + config.max_position
        table = self._checkpoint.weight("positions", (rows, config.hidden_size))
        return table[config.position_offset :]

    def _rotary(self) -> Rotary:
        frequencies = rotary_frequencies(self._config).to(self._device)
        if self._checkpoint.has("rope_factors"):
            factors = self._checkpoint.weight("rope_factors", tuple(frequencies.shape))
            frequencies = frequencies / factors.float()
        return Rotary(frequencies, self._dtype)

    def _layer(self, layer: int) -> DecoderLayer:
        return DecoderLayer(
            attention_norm=self._norm("attention_norm", layer),
            attention=self._attention(layer),
            mlp_norm=self._norm("mlp_norm", layer),
            mlp=self._mlp(layer),
        )

    def _norm(self, module: str, layer: int = 0) -> Module:
        config, size = self._config, self._config.hidden_size
        weight = self._checkpoint.weight(module, (size,), layer)
        if config.norm == "rms":
            return RmsNorm(weight, config.norm_eps)
        return LayerNorm(weight, self._checkpoint.bias(module, size, layer), config.norm_eps)

    def _attention(self, layer: int) -> SelfAttention:
        config = self._config
        heads = Heads(config.heads, config.kv_heads, config.head_dim)
        size, kv_size = heads.query * heads.dim, heads.kv * heads.dim
        if self._checkpoint.naming.fused_qkv:
            parts = {"qkv": size + 2 * kv_size}
        else:
            parts = {"q": size, "k": kv_size, "v": kv_size}
        return SelfAttention(
            self._linear(parts, config.hidden_size, config.qkv_bias, layer),
            self._linear({"output": config.hidden_size}, size, config.output_bias, layer),
            self._head_norm(heads, layer) if config.qk_norm else None,
            heads,
        )

    def _head_norm(self, heads: Heads, layer: int) -> HeadNorm:
        q = self._checkpoint.weight("q_norm", (heads.dim,), layer)
        k = self._checkpoint.weight("k_norm", (heads.dim,), layer)
        weight = torch.cat((q.expand(heads.query, -1), k.expand(heads.kv, -1)))
        return HeadNorm(weight, self._config.norm_eps)

    def _mlp(self, layer: int) -> Module:
        config = self._config
        hidden, inner = config.hidden_size, config.intermediate_size
        ups = {"gate": inner, "up": inner} if config.gated_mlp else {"up": inner}
        up = self._linear(ups, hidden, config.mlp_bias, layer)
        down = self._linear({"down": hidden}, inner, config.mlp_bias, layer)
        mlp = GatedMlp if config.gated_mlp else PlainMlp
        return mlp(up, down, config.activation)

    def _linear(self, parts: dict[str, int], inputs: int, bias: bool, layer: int) -> Linear:
        """One linear layer from `parts` (module -> output size), their outputs side by side."""
        take = self._checkpoint
        weights = [take.weight(part, (size, inputs), layer) for part, size in parts.items()]
        biases = [take.bias(part, size, layer) for part, size in parts.items() if bias]
        return make_linear(torch.cat(weights), torch.cat(biases) if biases else None)
