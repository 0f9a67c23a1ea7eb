"""Reads the configuration of a model that `resolve_model` has found."""

import json
from pathlib import Path
from typing import Any

from pdserve.errors import UnsupportedModelError
from pdserve.models.config import ModelConfig
from pdserve.models.gguf import GgufFile
from pdserve.models.gguf_config import parse_gguf_config
from pdserve.models.hf_config import parse_hf_config
from pdserve.models.source import ModelSource


def read_config(source: ModelSource) -> ModelConfig:
    """The architecture and sizes of the model in `source`, read without its weights.

    Raises `UnsupportedModelError` naming what is wrong or not supported.
    """
    if source.kind == "gguf":
        return gguf_config(GgufFile(source.path))
    config = _read_json(source.path / "config.json")
    generation = source.path / "generation_config.json"
    if generation.is_file():
        # The chat variants of some models list their end-of-turn tokens only here.
        eos = _read_json(generation).get("eos_token_id")
        config |= {} if eos is None else {"eos_token_id": eos}
    return parse_hf_config(config)


def gguf_config(file: GgufFile) -> ModelConfig:
    """The architecture and sizes of the model in an open GGUF file."""
    tied = "output.weight" not in file.tensors
    return parse_gguf_config(file.metadata, tie_embeddings=tied)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise UnsupportedModelError(f"{path} is not a JSON object")
    return document
