"""Instances in a few words: `tp=2,pp=1,replicas=3`."""

from dataclasses import dataclass, fields

from pdserve.errors import ConfigError


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """So many instances of one parallelism."""

    tp: int = 1
    pp: int = 1
    replicas: int = 1


def parse_instances(text: str, field: str) -> InstanceSpec:
    """The instances that `text` names; what it leaves out is 1. `ConfigError` names `field`."""
    known = [each.name for each in fields(InstanceSpec)]
    values: dict[str, int] = {}
    for piece in text.split(","):
        name, _, number = piece.strip().partition("=")
        if name not in known or name in values:
            raise ConfigError(
                f"{field} is {text!r}: {piece.strip()!r} is not one of "
                f"{', '.join(f'{each}=N' for each in known)}, each at most once",
                field=field,
            )
        if not number.strip().isdecimal() or int(number) < 1:
            raise ConfigError(
                f"{field} is {text!r}: {name} must be a whole number of 1 or more",
                field=field,
                limit=">= 1",
            )
        values[name] = int(number)
    return InstanceSpec(**values)
