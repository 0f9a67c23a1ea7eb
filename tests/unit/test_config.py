"""Defaults are sound, and a value outside its limits is refused with both named."""

import math
from dataclasses import fields

import pytest

from pdserve.config import InstanceConfig, RouterConfig
from pdserve.errors import ConfigError

# Options that are text or a switch, or whose every value means something.
UNBOUNDED = {str, bool}


@pytest.mark.parametrize("config", [InstanceConfig, RouterConfig])
def test_defaults_are_within_their_limits(config):
    config()


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (config, field.name)
        for config in (InstanceConfig, RouterConfig)
        for field in fields(config)
        if field.type not in UNBOUNDED
    ],
)
def test_every_number_has_limits(config, name):
    for value in (-1, math.nan):
        with pytest.raises(ConfigError) as caught:
            config(**{name: value})
        assert caught.value.field == name
        assert caught.value.limit
        assert str(caught.value).startswith(f"{name} is {value}")
        assert caught.value.limit in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 65536),
        ("block_size", 0),
        ("kv_memory_fraction", 1.5),
        ("max_batch_tokens", 0),
        ("max_batch_tokens", (1 << 20) + 1),
        ("max_waiting", 0),
        ("segment_bytes", (1 << 30) + 1),
        ("lease_s", 0.0),
        ("lease_s", math.inf),
    ],
)
def test_a_value_beyond_a_limit_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        InstanceConfig(**{name: value})


def test_the_text_states_large_numbers_in_full():
    with pytest.raises(ConfigError) as caught:
        InstanceConfig(segment_bytes=(1 << 30) + 1)
    text = "segment_bytes is 1073741825; it must lie in [4096, 1073741824]"
    assert str(caught.value) == text


@pytest.mark.parametrize(("name", "value"), [("max_attempts", 0), ("max_running", 0)])
def test_the_routers_limits_hold_too(name, value):
    with pytest.raises(ConfigError, match=name):
        RouterConfig(**{name: value})
