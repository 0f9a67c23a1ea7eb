"""Reads YAML files that people write."""

from pathlib import Path
from typing import Any

import yaml

from pdserve.errors import ConfigError


def read_yaml(path: Path, field: str) -> Any:
    """The document in `path`; None where it is empty.

    Raises `ConfigError` with the file and, where the text is wrong, its line. `field` is the
    option that names the file.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field=field) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file: {error}", field=field) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not valid YAML: {error.problem}", field=field) from error
    except yaml.YAMLError as error:  # characters that YAML does not have
        raise ConfigError(f"{path}: not valid YAML: {error}", field=field) from error
