"""Settings of every test."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code. CI tries the same
# examples each time, so that what fails there fails for what was submitted.
settings.register_profile("pdserve", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("PDSERVE_HYPOTHESIS", "pdserve"))

# Tests that share something expensive, or that need the machine's cores for processes of their own:
# where tests run side by side, those of one group run one after the other.
_GROUPS = {
    "integration/test_token_identity.py": "identity",
    "integration": "processes",
    "chaos": "processes",
    "unit/planner": "planner",
    "chart": "chart",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts each test into the group of its file or folder."""
    root = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(root)
        groups = (group for prefix, group in _GROUPS.items() if path.is_relative_to(prefix))
        if group := next(groups, None):
            item.add_marker(pytest.mark.xdist_group(group))
