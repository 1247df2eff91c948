import pytest

from fasterrcnn.config import resized_hw


@pytest.mark.parametrize(
    ("image_hw", "limits", "rule", "expected"),
    [
        ((480, 640), (800, 1333), "torch", (800, 1066)),  # 1066.67
        ((480, 640), (800, 1333), "pillow", (800, 1067)),
        ((480, 640), (800, 1333), "opencv", (800, 1067)),
        ((427, 640), (800, 1333), "pillow", (800, 1199)),
        ((300, 900), (800, 1333), "torch", (444, 1333)),  # 444.33 x 1333
        ((300, 900), (800, 1333), "pillow", (444, 1333)),
        ((333, 1000), (800, 1333), "pillow", (444, 1333)),  # 443.889
        ((333, 1000), (800, 1333), "torch", (443, 1333)),
        ((500, 500), (800, 1333), "pillow", (800, 800)),
        ((1, 5000), (800, 1333), "opencv", (1, 1333)),
    ],
)
def test_resized_hw__rules(image_hw, limits, rule, expected):
    assert resized_hw(image_hw, *limits, rule=rule) == expected
    assert resized_hw(image_hw[::-1], *limits, rule=rule) == expected[::-1]


@pytest.mark.parametrize(
    ("image_hw", "limits", "expected"),
    [
        ((480, 640), (800, 1333), (800, 1066)),  # the short side decides: 640 * 800 / 480 = 1066.67
        ((640, 480), (800, 1333), (1066, 800)),
        ((100, 1000), (800, 1333), (133, 1333)),  # the long side decides
        ((1000, 100), (800, 1333), (1333, 133)),
        ((64, 64), (64, 128), (64, 64)),
        ((4000, 6000), (320, 544), (320, 480)),
        ((1, 5000), (800, 1333), (1, 1333)),  # no side vanishes
        ((1, 1), (800, 1333), (800, 800)),
    ],
)
def test_resized_hw__rule(image_hw, limits, expected):
    assert resized_hw(image_hw, *limits) == expected


@pytest.mark.parametrize("short_side", [64, 320, 480, 800])
def test_resized_hw__never_beyond_the_limits(short_side):
    for side in range(1, 2000, 7):
        height, width = resized_hw((side, 1000), short_side, 2 * short_side)
        assert min(height, width) <= short_side
        assert max(height, width) <= 2 * short_side
