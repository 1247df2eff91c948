import json

import pytest

from fasterrcnn.acceleration import autotune


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path))
    autotune._remembered.cache_clear()
    monkeypatch.setattr(autotune.time, "perf_counter", lambda: CLOCK[0])
    yield tmp_path
    autotune._remembered.cache_clear()


CLOCK = [0.0]
"""Seconds; only work lets them pass."""


def slow() -> str:
    CLOCK[0] += 0.02
    return "slow"


def quick() -> str:
    CLOCK[0] += 0.001
    return "quick"


def test_fastest_way__takes_the_quick_way_and_remembers_it(own_cache):
    assert autotune.fastest_way("work", 100, {"safe": slow, "other": quick})() == "quick"
    (file,) = own_cache.iterdir()
    assert list(json.loads(file.read_text()).values()) == ["other"]
    autotune._remembered.cache_clear()  # as another process would begin

    def never() -> str:
        raise AssertionError("measured again")

    assert autotune.fastest_way("work", 101, {"safe": never, "other": quick})() == "quick"


def test_fastest_way__the_safe_way_where_the_other_loses():
    assert autotune.fastest_way("work", 100, {"safe": quick, "other": slow})() == "quick"


def test_fastest_way__damaged_file_counts_for_nothing(own_cache):
    autotune._file().write_text("[1, 2")
    assert autotune.fastest_way("work", 1, {"safe": quick})() == "quick"


def test_fastest_way__a_way_that_is_no_more_is_measured_anew(own_cache):
    autotune.fastest_way("work", 1, {"safe": slow, "gone": quick})
    assert autotune.fastest_way("work", 1, {"safe": slow, "new": quick})() == "quick"
