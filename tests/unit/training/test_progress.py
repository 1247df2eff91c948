import pytest

from fasterrcnn.training.progress import is_waiting


@pytest.mark.parametrize(
    ("seconds", "computing", "expected"),
    [(120.0, 15.0, True), (120.0, 61.0, False), (120.0, 230.0, False), (9.0, 0.5, False)],
)
def test_is_waiting__less_than_half_a_core(seconds, computing, expected):
    assert is_waiting(seconds, computing) == expected
