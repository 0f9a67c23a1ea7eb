"""The page on Kubernetes names what there is."""

import re

import yaml
from rendering import CHART, EXAMPLES, ROOT

PAGE = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
# Keys of Secrets that look like values.
FILES = {"tls.crt", "tls.key"}
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))


def test_every_key_at_the_top_of_the_values_is_explained() -> None:
    section = PAGE.partition("\n## Values\n")[2].partition("\n**Pools**")[0]
    documented = {
        name
        for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert documented == set(VALUES)


def test_every_value_that_is_named_exists() -> None:
    for path in re.findall(r"`((?:\w+\.)+\w+)`", PAGE):
        place = VALUES
        if path.partition(".")[0] not in VALUES or path in FILES:
            continue
        for key in path.split("."):
            assert key in place, path
            place = place[key]
            # Options and the keys of a pool have no defaults in the values.
            if key == "config" or place == {} or isinstance(place, list):
                break


def test_every_example_is_listed() -> None:
    assert {f"{name}.yaml" for name in EXAMPLES} == set(
        re.findall(r"^\| `([-\w]+\.yaml)`", PAGE, re.M)
    )
