import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.model.targets import Assigner, check_targets, sample_regions
from fasterrcnn.ops.matching import IGNORED, NEGATIVE
from fasterrcnn.structures import Proposals, Target, no_boxes

CLASSES = ("cat", "dog", "owl")
ASSIGNER = Assigner(positive_iou=0.5, negative_iou=0.5, count=8, positive_fraction=0.25)
OBJECTS = torch.tensor([[0.0, 0.0, 10.0, 10.0], [30.0, 30.0, 50.0, 50.0]])
EMPTY = Target(no_boxes(), torch.zeros(0, dtype=torch.int64))


def labelled(boxes, labels, ignored=None) -> Target:
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Target(boxes, torch.tensor(labels, dtype=torch.int64), no_boxes() if ignored is None else ignored)


def proposals(*boxes) -> Proposals:
    return Proposals(torch.tensor(boxes).reshape(-1, 4).float(), torch.zeros(len(boxes)))


def test_assign__ignored_region_takes_negatives_only():
    crowd = torch.tensor([[0.0, 0.0, 100.0, 20.0]])
    candidates = torch.tensor([[0.0, 0.0, 10.0, 9.0], [60.0, 0.0, 80.0, 20.0], [60.0, 60.0, 80.0, 80.0]])
    matched = ASSIGNER.assign(candidates, labelled(OBJECTS, [0, 1], crowd))
    assert matched.tolist() == [0, IGNORED, NEGATIVE]


def test_assign__without_objects():
    assert ASSIGNER.assign(OBJECTS, EMPTY).tolist() == [NEGATIVE, NEGATIVE]
    assert ASSIGNER.assign(no_boxes(), EMPTY).tolist() == []


def test_sample__counts():
    matched = torch.tensor([0, 1, 2, 3, 4, IGNORED, *[NEGATIVE] * 20])
    chosen = ASSIGNER.sample(matched, torch.Generator().manual_seed(0)).sorted()
    assert len(chosen) == 8
    assert int((matched[chosen] >= 0).sum()) == 2
    assert not (matched[chosen] == IGNORED).any()


def test_sample_regions__ground_truth_is_a_proposal():
    sample = sample_regions(proposals(), labelled(OBJECTS, [2, 0]), ASSIGNER, 3)
    assert_close(sample.boxes, OBJECTS)
    assert_close(sample.target_boxes, OBJECTS)
    assert sample.labels.tolist() == [2, 0]


def test_sample_regions__labels_and_background():
    found = proposals([1.0, 0.0, 10.0, 10.0], [80.0, 80.0, 90.0, 90.0], [29.0, 30.0, 50.0, 50.0])
    assigner = Assigner(positive_iou=0.5, negative_iou=0.5, count=8, positive_fraction=1.0)
    sample = sample_regions(found, labelled(OBJECTS, [2, 0]), assigner, 3)
    assert_close(sample.boxes, torch.cat([found.boxes, OBJECTS]))
    assert sample.labels.tolist() == [2, 3, 0, 2, 0]
    assert_close(sample.target_boxes, torch.cat([OBJECTS[:1], found.boxes[1:2], OBJECTS[1:], OBJECTS]))


def test_sample_regions__without_objects_all_is_background():
    found = proposals([1.0, 0.0, 10.0, 10.0], [80.0, 80.0, 90.0, 90.0])
    sample = sample_regions(found, EMPTY, ASSIGNER, 3)
    assert sample.labels.tolist() == [3, 3]
    assert_close(sample.target_boxes, found.boxes)


def test_sample_regions__nothing_at_all():
    sample = sample_regions(proposals(), EMPTY, ASSIGNER, 3)
    assert sample.boxes.shape == sample.target_boxes.shape == (0, 4)
    assert sample.labels.shape == (0,)


def test_sample_regions__ignored_regions_are_never_negatives():
    crowd = torch.tensor([[60.0, 0.0, 100.0, 40.0]])
    inside = [[60.0 + i, 0.0, 80.0 + i, 20.0] for i in range(20)]
    outside = [[60.0, 60.0 + i, 80.0, 80.0 + i] for i in range(3)]
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        sample = sample_regions(proposals(*inside, *outside), labelled(OBJECTS, [0, 1], crowd), ASSIGNER, 3, generator)
        assert (sample.boxes[sample.labels == 3][:, 1] >= 60).all()
        assert int((sample.labels == 3).sum()) == 3


def test_check_targets__good_ones_pass():
    check_targets([], CLASSES)
    check_targets([EMPTY, labelled(OBJECTS, [0, 2])], CLASSES)


@pytest.mark.parametrize("label", [-1, 3, 90])
def test_check_targets__label_outside(label):
    message = rf"target of image 1 in the batch: label {label} is not in 0\.\.2 \(3 classes: cat, dog, owl\)"
    with pytest.raises(ValueError, match=message):
        check_targets([EMPTY, labelled(OBJECTS, [0, label])], CLASSES)


def test_check_targets__many_classes_are_cut_short():
    with pytest.raises(ValueError, match=r"30 classes: a0, a1, a2, a3, a4, \.\.\.\); background has no label"):
        check_targets([labelled(OBJECTS, [0, 30])], [f"a{i}" for i in range(30)])


@pytest.mark.parametrize(
    "box",
    [
        [5.0, 5.0, 5.0, 9.0],  # no width
        [5.0, 5.0, 9.0, 5.0],  # no height
        [9.0, 5.0, 5.0, 9.0],  # corners exchanged
        [9.0, 9.0, 5.0, 5.0],  # both exchanged: the area is positive
        [float("nan"), 5.0, 9.0, 9.0],
        [5.0, 5.0, float("inf"), 9.0],
    ],
)
def test_check_targets__bad_box(box):
    with pytest.raises(ValueError, match=r"target of image 0 in the batch: box 1 is \[.*x1 < x2 and y1 < y2"):
        check_targets([labelled([[0.0, 0.0, 1.0, 1.0], box], [0, 0])], CLASSES)


def test_check_targets__counts_differ():
    target = labelled(OBJECTS, [0, 1])
    object.__setattr__(target, "labels", torch.tensor([0]))  # the checked constructor would refuse it in tests
    with pytest.raises(ValueError, match="image 0 in the batch: 2 boxes but 1 labels"):
        check_targets([target], CLASSES)
