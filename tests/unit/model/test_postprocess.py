import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.errors import UsageError
from fasterrcnn.model.postprocess import PostProcess

ONES = (1.0, 1.0, 1.0, 1.0)
# Two classes and background. 0 and 1 overlap by 90 / 110, 2 stands alone.
REGIONS = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [30.0, 30.0, 50.0, 50.0]])
PROBABILITIES = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.5, 0.01, 0.49]])


def detect(rules: PostProcess, regions=REGIONS, probabilities=PROBABILITIES, size_hw=(64, 64)):
    deltas = torch.zeros(len(regions), probabilities.shape[1] - 1, 4)
    return rules([probabilities.log()], [deltas], [regions], [size_hw], ONES)[0]


def rows(found) -> list[tuple[int, float]]:
    """Label and score of each detection."""
    return [(int(label), round(float(score), 4)) for label, score in zip(found.labels, found.scores, strict=True)]


def test_postprocess__per_class():
    found = detect(PostProcess(score_threshold=0.15))
    assert rows(found) == [(0, 0.8), (1, 0.6), (0, 0.5)]
    assert_close(found.boxes, REGIONS[[0, 1, 2]])


def test_postprocess__agnostic():
    found = detect(PostProcess(score_threshold=0.15, nms="agnostic"))
    assert rows(found) == [(0, 0.8), (0, 0.5)]


def test_postprocess__score_threshold_is_exclusive():
    assert rows(detect(PostProcess(score_threshold=0.55))) == [(0, 0.8), (1, 0.6)]
    assert rows(detect(PostProcess(score_threshold=1.0))) == []
    everything = detect(PostProcess(score_threshold=0.0, nms_threshold=1.0))
    assert len(everything.scores) == 6


def test_postprocess__nms_threshold():
    assert len(detect(PostProcess(score_threshold=0.15, nms_threshold=0.9)).scores) == 4


def test_postprocess__class_filter():
    assert rows(detect(PostProcess(score_threshold=0.15, classes=(1,)))) == [(1, 0.6)]
    assert rows(detect(PostProcess(score_threshold=0.15, classes=()))) == []


def test_postprocess__soft_linear_by_hand():
    found = detect(PostProcess(score_threshold=0.02, nms="soft-linear"))
    fade = 1 - 90 / 110
    assert_close(found.scores, torch.tensor([0.8, 0.6, 0.5, 0.2 * fade]))
    assert found.labels.tolist() == [0, 1, 0, 0]  # box 0 of class 1 has faded from 0.1 to 0.018


def test_postprocess__soft_gaussian_by_hand():
    found = detect(PostProcess(score_threshold=0.04, nms="soft-gaussian", soft_sigma=0.25))
    assert_close(found.scores, torch.tensor([0.8, 0.6, 0.5]))  # 0.2 * exp(-0.669 / 0.25) = 0.014
    wide = detect(PostProcess(score_threshold=0.04, nms="soft-gaussian", soft_sigma=1e6))
    assert_close(wide.scores, torch.tensor([0.8, 0.6, 0.5, 0.2, 0.1]), atol=1e-4, rtol=0)


def test_postprocess__soft_kinds_keep_classes_apart():
    found = detect(PostProcess(score_threshold=0.5, nms="soft-linear"))
    assert rows(found)[:2] == [(0, 0.8), (1, 0.6)]


@pytest.mark.parametrize("nms", ["class", "agnostic", "soft-linear", "soft-gaussian"])
def test_postprocess__max_detections(nms):
    assert rows(detect(PostProcess(nms=nms, max_detections=1))) == [(0, 0.8)]


@pytest.mark.parametrize("nms", ["class", "agnostic", "soft-linear", "soft-gaussian"])
def test_postprocess__no_proposals(nms):
    found = detect(PostProcess(nms=nms), torch.zeros(0, 4), torch.zeros(0, 3))
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)
    assert found.labels.dtype == torch.int64


def test_postprocess__clipped_to_the_valid_size():
    found = detect(PostProcess(score_threshold=0.45, classes=(0,)), size_hw=(35, 40))
    assert_close(found.boxes, torch.tensor([[0.0, 0.0, 10.0, 10.0], [30.0, 30.0, 40.0, 35.0]]))
    outside = detect(PostProcess(score_threshold=0.45, classes=(0,)), size_hw=(20, 20))
    assert_close(outside.boxes, REGIONS[:1])


def test_postprocess__each_class_has_its_own_box():
    deltas = torch.zeros(1, 2, 4)
    deltas[0, 1, 0] = 10.0  # with weight 10: one width to the right
    probabilities = torch.tensor([[0.45, 0.5, 0.05]])
    (found,) = PostProcess()([probabilities.log()], [deltas], [REGIONS[:1]], [(64, 64)], (10.0, 10.0, 5.0, 5.0))
    assert_close(found.boxes, torch.tensor([[10.0, 0.0, 20.0, 10.0], [0.0, 0.0, 10.0, 10.0]]))
    assert found.labels.tolist() == [1, 0]


def test_postprocess__half_precision_gives_float32():
    logits, deltas = PROBABILITIES.log().bfloat16(), torch.zeros(3, 2, 4).bfloat16()
    (found,) = PostProcess()([logits], [deltas], [REGIONS], [(64, 64)], ONES)
    assert found.boxes.dtype == found.scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nms": "weighted"}, "nms is 'weighted'; there are class, agnostic, soft-linear, soft-gaussian"),
        ({"score_threshold": 1.5}, r"score_threshold must lie in 0\.\.1, not 1.5"),
        ({"score_threshold": float("nan")}, r"score_threshold must lie in 0\.\.1, not nan"),
        ({"nms_threshold": -0.1}, r"nms_threshold must lie in 0\.\.1, not -0.1"),
        ({"max_detections": 0}, "max_detections must be at least 1, not 0"),
    ],
)
def test_postprocess__options_that_cannot_work(options, message, request):
    if options.get("nms") == "weighted":
        make = PostProcess.__new__  # the checked constructor would refuse the word itself
        rules = make(PostProcess)
        for name, value in {**PostProcess().__dict__, **options}.items():
            object.__setattr__(rules, name, value)
        with pytest.raises(UsageError, match=message):
            rules.__post_init__()
    else:
        with pytest.raises(UsageError, match=message):
            PostProcess(**options)
