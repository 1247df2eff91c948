import json
import time

import pytest

from fasterrcnn.inference.runtimes import choices


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path))
    choices._known.cache_clear()
    yield tmp_path
    choices._known.cache_clear()


def slow() -> str:
    time.sleep(0.02)
    return "slow"


def quick() -> str:
    return "quick"


def test_fastest__takes_the_quick_way_and_remembers_it(own_cache):
    assert choices.fastest("work", 100, {"safe": slow, "other": quick})() == "quick"
    (file,) = own_cache.iterdir()
    assert list(json.loads(file.read_text()).values()) == ["other"]
    choices._known.cache_clear()  # as another process would begin

    def never() -> str:
        raise AssertionError("measured again")

    assert choices.fastest("work", 101, {"safe": never, "other": quick})() == "quick"


def test_fastest__the_safe_way_where_the_other_loses():
    assert choices.fastest("work", 100, {"safe": quick, "other": slow})() == "quick"


def test_fastest__damaged_file_counts_for_nothing(own_cache):
    choices._file().write_text("[1, 2")
    assert choices.fastest("work", 1, {"safe": quick})() == "quick"


def test_fastest__a_way_that_is_no_more_is_measured_anew(own_cache):
    choices.fastest("work", 1, {"safe": slow, "gone": quick})
    assert choices.fastest("work", 1, {"safe": slow, "new": quick})() == "quick"
