"""Renders a page that needs no network."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from pdserve.errors import ConfigError
from pdserve.html.figure import Figure


def render_page(
    package: str, template: str, figures: Mapping[str, Figure], values: Mapping[str, Any]
) -> str:
    """The page of a Jinja `template` in the folder `templates` of `package`.

    It is given `values` and, to be put at the places that their names say, `style`, `script`,
    `plotly` and `figures`. The script draws each of `figures` into the element `plot-NAME`.
    """
    return (
        _environment(package)
        .get_template(template)
        .render(
            values,
            figures=_script_json(figures),
            plotly=Markup(get_plotlyjs()),
            style=_source("page.css"),
            script=_source("page.js"),
        )
    )


def write_page(text: str, path: Path) -> None:
    """Writes a page; `ConfigError` where the file cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{path}: cannot be written: {reason}", field="html") from error


def _environment(package: str) -> Environment:
    return Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> Markup:
    """A file of this package that goes into the page as it is."""
    environment = _environment("pdserve.html")
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _script_json(value: object) -> Markup:
    """JSON that cannot end the script element that it is in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))
