"""One name for flag, variable and file key; a clear precedence; errors that name what is wrong."""

import argparse
from dataclasses import dataclass, fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdserve.config import InstanceConfig, RouterConfig
from pdserve.errors import ConfigError
from pdserve.options import add_options, load, option, to_flags


@dataclass(frozen=True, slots=True)
class Options:
    some_name: str = option("", "a name")
    count: int = option(3, "a count")
    share: float = option(0.5, "a share of 100 %")
    enabled: bool = option(True, "a switch")
    level: str = option("low", "a level", choices=("low", "high"))


def read(flags=(), environ=None, file=None, config=Options):
    parser = argparse.ArgumentParser()
    add_options(parser, config)
    given_flags = [*flags, *([f"--config={file}"] if file else [])]
    return load(config, parser.parse_args(given_flags), environ or {})


@pytest.fixture
def config_file(tmp_path):
    def write(text):
        path = tmp_path / "options.yaml"
        path.write_text(text) if isinstance(text, str) else path.write_bytes(text)
        return path

    return write


def test_defaults_without_anything():
    assert read() == Options()


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(config_file):
    file = config_file("count: 10\nshare: 0.1\nlevel: high\n")
    environ = {"PDSERVE_COUNT": "20", "PDSERVE_SHARE": "0.2"}
    assert read(["--count=30"], environ, file) == Options(count=30, share=0.2, level="high")


def test_the_file_may_be_named_by_the_environment(config_file):
    file = config_file("some_name: from file\n")
    assert read(environ={"PDSERVE_CONFIG": str(file)}).some_name == "from file"


def test_the_flag_names_another_file_than_the_environment(config_file):
    file = config_file("count: 8\n")
    assert read(environ={"PDSERVE_CONFIG": "/nowhere"}, file=file).count == 8


@pytest.mark.parametrize("word", ["true", "1", "Yes", "on", "false", "0", "NO", "off"])
def test_words_for_a_switch(word):
    expected = word.lower() in ("true", "1", "yes", "on")
    assert read([f"--enabled={word}"]).enabled is expected
    assert read(environ={"PDSERVE_ENABLED": word}).enabled is expected


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_changes_nothing(config_file, text):
    assert read(file=config_file(text)) == Options()


@pytest.mark.parametrize(
    ("flags", "field", "where"),
    [
        (["--count=many"], "count", "--count is 'many'; it must be a whole number"),
        (["--count=1.5"], "count", "--count"),
        (["--share=half"], "share", "--share is 'half'; it must be a number"),
        (["--enabled=maybe"], "enabled", "--enabled is 'maybe'; it must be true or false"),
        (["--level=middle"], "level", "--level is 'middle'; it must be one of low, high"),
        (["--some-name=x", "--count="], "count", "--count is ''"),
    ],
)
def test_a_wrong_flag_is_named(flags, field, where):
    with pytest.raises(ConfigError) as caught:
        read(flags)
    assert caught.value.field == field
    assert where in str(caught.value)


def test_a_choice_that_does_not_exist_states_the_choices():
    with pytest.raises(ConfigError) as caught:
        read(["--level=middle"])
    assert caught.value.limit == "low|high"


def test_a_wrong_variable_is_named():
    with pytest.raises(ConfigError, match="PDSERVE_COUNT is 'x'") as caught:
        read(environ={"PDSERVE_COUNT": "x"})
    assert caught.value.field == "count"


@pytest.mark.parametrize(
    ("text", "field", "where"),
    [
        ("count: x", "count", "options.yaml: count is 'x'"),
        ("count: 2.5", "count", "count is 2.5; it must be a whole number"),
        ("count: true", "count", "count is True"),
        ("count:", "count", "count is None"),
        ("some_name:", "some_name", "some_name is None"),
        ("some_name: [a]", "some_name", "some_name is ['a']"),
        ("some_name: 12", "some_name", "some_name is 12; it must be text"),
        ("share: {}", "share", "share is {}"),
        ("enabled: maybe", "enabled", "enabled is 'maybe'"),
        ("cuont: 1", "cuont", "unknown option 'cuont'"),
        ("- count", "config", "must be a mapping"),
        ("count: [", "config", "not valid YAML"),
        ("a: 1\nb: : 2", "config", "line 2"),
        (b"\xff\xfe\x00", "config", "not a text file"),
    ],
)
def test_a_wrong_file_is_named_with_the_place(config_file, text, field, where):
    file = config_file(text)
    with pytest.raises(ConfigError) as caught:
        read(file=file)
    assert caught.value.field == field
    assert where in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: No such file"):
        read(file=tmp_path / "absent.yaml")


def test_a_whole_number_is_a_float_in_the_file_too(config_file):
    share = read(file=config_file("share: 1")).share
    assert (share, type(share)) == (1.0, float)


@pytest.mark.parametrize("config", [InstanceConfig, RouterConfig, Options])
def test_every_option_has_a_flag_with_help(config, capsys):
    parser = argparse.ArgumentParser()
    add_options(parser, config)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    for field in fields(config):
        assert f"--{field.name.replace('_', '-')}" in text


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
OPTIONS = st.builds(
    Options,
    some_name=TEXT,
    count=st.integers(),
    share=st.floats(allow_nan=False),
    enabled=st.booleans(),
    level=st.sampled_from(["low", "high"]),
)


@settings(deadline=None)
@given(OPTIONS)
def test_to_flags_is_the_command_line_that_yields_the_options(options):
    assert read(to_flags(options)) == options


def test_to_flags_leaves_defaults_out():
    assert to_flags(Options()) == []
    assert to_flags(Options(enabled=False)) == ["--enabled=false"]
    config = InstanceConfig(port=5, prefix_cache=False, lease_s=0.25)
    assert read(to_flags(config), config=InstanceConfig) == config
