"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest

# Before torch is imported: spinning threads make the suite many times slower where other programs run.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and annotations, where this checkout has them beside it."""
    if not SHARED.is_dir():
        pytest.skip(f"the real data sets are not beside this checkout: {SHARED}")
    return SHARED
