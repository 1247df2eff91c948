"""Fixtures that several test folders share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and annotations, where this checkout has them beside it."""
    if not SHARED.is_dir():
        pytest.skip(f"the real data sets are not beside this checkout: {SHARED}")
    return SHARED
