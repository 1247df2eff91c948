import pytest

from fasterrcnn.ops.sizes import resized_hw


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
