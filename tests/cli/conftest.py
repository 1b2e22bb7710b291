import pytest


@pytest.fixture(scope="module", autouse=True)
def mostly_quick_figures(quick_figures):
    """What commands draw is tested in tests/plotting and tests/report, and here by a few tests."""
