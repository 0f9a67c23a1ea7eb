"""The file of API keys: what it may say, what is said of it, and that it is followed."""

import logging
import os
from pathlib import Path

import pytest

from pdserve.api_keys import ApiKeys, read_keys
from pdserve.errors import ConfigError, UnauthenticatedError

SECRET = "a-very-secret-key"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_keys_with_names_and_without(path: Path) -> None:
    path.write_text(f"# who\nalice: {SECRET}\n\n  'quoted-key'\nbob: \"another-key\"\na:b:c:d:e\n")
    assert {key: client.name for key, client in read_keys(path).items()} == {
        SECRET: "alice",
        "quoted-key": "line-4",
        "another-key": "bob",
        "a:b:c:d:e": "line-6",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no key"),
        ("# nothing\n", "there is no key"),
        ("short\n", "line 1"),
        (f"good-enough\n{SECRET} {SECRET}\n", "line 2"),
        (f"{SECRET}ü\n", "line 1"),
        (f"a: {SECRET}\nb: {SECRET}\n", "line 2: this key or its name is there twice"),
        (f"a: {SECRET}\na: {SECRET}2\n", "line 2: this key or its name is there twice"),
    ],
)
def test_what_is_wrong_is_said_without_the_key(path: Path, text: str, words: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as raised:
        ApiKeys(path)
    assert raised.value.field == "api_keys"
    assert str(path) in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_file_that_is_missing_or_no_text(path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        ApiKeys(path)
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(ConfigError, match="not a text file") as raised:
        ApiKeys(path)
    assert raised.value.__cause__ is None


def test_a_key_is_shown_as_a_bearer_token(path: Path) -> None:
    path.write_text(f"alice: {SECRET}\n")
    keys = ApiKeys(path)
    for header in (f"Bearer {SECRET}", f"bearer  {SECRET} "):
        assert keys.authenticate(header).name == "alice"
    wrong = (None, "", SECRET, "Bearer", "Bearer ", f"Basic {SECRET}", f"Bearer {SECRET}x")
    for header in (
        *wrong,
        f"Bearer {SECRET[:-1]}",
        f"Bearer {SECRET} x",
        "Bearer \udcff",
        "Bearer é",
    ):
        with pytest.raises(UnauthenticatedError) as raised:
            keys.authenticate(header)
        assert SECRET not in str(raised.value)


def test_changes_are_taken_over_and_mistakes_are_not(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(f"alice: {SECRET}\n")
    keys = ApiKeys(path)
    other = path.with_name("other")
    other.write_text("bob: bobs-secret\n")
    os.replace(other, path)
    keys.refresh()
    assert keys.authenticate("Bearer bobs-secret").name == "bob"
    with pytest.raises(UnauthenticatedError):
        keys.authenticate(f"Bearer {SECRET}")
    for mistake in ("bobs-secret bobs-secret\n", "", None):
        caplog.clear()
        if mistake is None:
            path.unlink()
        else:
            path.write_text(mistake)
        with caplog.at_level(logging.ERROR):
            keys.refresh()
            keys.refresh()
        assert len(caplog.records) == 1
        assert "bobs-secret" not in str(vars(caplog.records[0]))
        assert keys.authenticate("Bearer bobs-secret").name == "bob"
    path.write_text(f"alice: {SECRET}\n")
    keys.refresh()
    assert keys.authenticate(f"Bearer {SECRET}").name == "alice"
