"""Reads YAML files that people write."""

from pathlib import Path
from typing import Any

import yaml

from pdserve.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands in a mapping twice: PyYAML would take the last one and say nothing.

    YAML 1.2 (section 3.2.1.1) demands that keys are unique.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set[tuple[str, str]]()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.composer.ComposerError(problem=problem, problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node


def read_yaml(path: Path, field: str) -> Any:
    """The document in `path`; None where it is empty.

    Raises `ConfigError` with the file and, where the text is wrong, its line. `field` is the
    option that names the file.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
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
