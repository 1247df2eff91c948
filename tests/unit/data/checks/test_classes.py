import numpy as np
import pytest

from fasterrcnn.data.checks.classes import check_classes, expect_empty, is_typo

BOX = [10, 10, 40, 40]


@pytest.fixture
def labelled(data_of, annotated_of):
    """A data set from how many boxes of each class each image has."""

    def make(*counts, classes, splits=None):
        records = [
            annotated_of(number, [BOX] * sum(row), np.repeat(np.arange(len(row)), row).tolist())
            for number, row in enumerate(counts, start=1)
        ]
        named = None if splits is None else {name: [records[i] for i in rows] for name, rows in splits.items()}
        return data_of(*records, classes=classes, splits=named)

    return make


def messages(data):
    return [(finding.kind, finding.what) for finding in check_classes(data)]


def test_check_classes__nothing_there(data_of):
    assert messages(data_of(classes=())) == []
    assert messages(data_of([], classes=())) == []
    assert messages(data_of([BOX], classes=("cat",))) == []


def test_check_classes__unused(labelled):
    assert messages(labelled([1, 0, 1, 0], classes=("cat", "dog", "cow", "owl"))) == [
        ("unused-class", "class 'dog' has no box"),
        ("unused-class", "class 'owl' has no box"),
    ]


@pytest.mark.parametrize(
    ("classes", "counts"),
    [
        (("Cat", "cat"), (1, 1)),
        (("traffic light", "traffic_light"), (9, 9)),
        (("TrafficLight", "traffic-light"), (9, 9)),
        (("helmet", "helmett"), (10, 2)),
        (("helmet", "helmit"), (5, 1)),
        (("helmet", "hlemet"), (5, 1)),
        (("platelets", "platelet"), (10, 2)),
        (("cat", "catt"), (5, 1)),
        (("cat", "cta"), (5, 1)),
        (("cat", "cit"), (20, 1)),
    ],
)
def test_check_classes__similar_names(labelled, classes, counts):
    found = [finding for finding in check_classes(labelled(counts, classes=classes)) if finding.kind == "similar-names"]
    (finding,) = found
    rare = int(counts[1] < counts[0])
    assert finding.what.startswith(f"classes '{classes[rare]}' ({counts[rare]} boxes) and '{classes[1 - rare]}'")
    assert (finding.file.name, finding.image.name) == ("1.xml", "1.png")
    assert finding.annotation == (1 if rare == 0 else counts[0] + 1)
    assert finding.what.endswith(f"for example object {finding.annotation} ({classes[rare]})")


@pytest.mark.parametrize(
    ("classes", "counts"),
    [
        (("a", "b", "c"), (15, 1, 1)),
        (("a", "A"), (9, 9)),  # printed letters
        (("sign 1", "sign 2"), (15, 1)),
        (("type a", "type b"), (15, 1)),
        (("typeA", "typeB"), (15, 1)),
        (("left_x", "left_y"), (15, 1)),
        (("cat", "car"), (15, 1)),
        (("helmet", "helmit"), (4, 1)),
        (("helmet", "velvet"), (15, 1)),
        (("plane", "plant"), (4, 4)),
        (("+", "-"), (9, 9)),
        (("-1", "1"), (9, 9)),
        (("1.5", "15"), (9, 9)),
        (("c", "c++"), (9, 9)),
        (("猫", "犬"), (15, 1)),
        (("person", "person on bicycle"), (15, 1)),
    ],
)
def test_check_classes__names_that_are_meant(labelled, classes, counts):
    assert messages(labelled(counts, classes=classes)) == []


def test_is_typo__a_class_without_boxes_is_reported_as_unused():
    assert is_typo("helmit", "helmet", 1, 100)
    assert not is_typo("helmit", "helmet", 0, 100)


def test_check_classes__not_in_a_split(labelled):
    data = labelled([2, 1], [1, 0], [0, 3], classes=("cat", "dog"), splits={"train": [0], "val": [1], "test": [2]})
    assert messages(data) == [
        ("class-not-in-split", "class 'dog' has no box in the split 'val'"),
        ("class-not-in-split", "class 'cat' has no box in the split 'test'"),
    ]


def test_check_classes__imbalance_from_20_to_1_on(labelled):
    assert messages(labelled([19, 1], classes=("cat", "owl"))) == []
    assert messages(labelled([60, 4, 3, 1], classes=("cat", "owl", "dog", "bee"))) == [
        ("imbalance", "60 boxes of 'cat', 3 of 'dog': 20 to 1"),
        ("imbalance", "60 boxes of 'cat', 1 of 'bee': 60 to 1"),
    ]


@pytest.mark.parametrize("typical", [[3], [3, 4, 5], [12, 10, 11, 14, 9, 3]])
def test_check_classes__a_common_class_is_missing(labelled, typical):
    counts = [(typical[n % len(typical)], n % 2) for n in range(30)]
    counts[17] = (0, 1)
    (finding,) = check_classes(labelled(*counts, classes=("cell", "dog")))
    assert finding.kind == "missing-objects"
    assert (finding.file.name, finding.image.name, finding.annotation) == ("18.xml", "18.png", None)
    assert finding.what.startswith("no 'cell', though 29 of 30 images show about ")


def test_check_classes__images_without_any_box_are_meant_so(labelled):
    counts = [(4, 1)] * 29 + [(0, 0)]
    assert messages(labelled(*counts, classes=("cell", "dog"))) == []


@pytest.mark.parametrize(
    "counts",
    [
        [(1, 1)] * 29 + [(0, 1)],  # one is not many
        [(4, 1)] * 20 + [(0, 1)] * 10,  # not common
        [(4, 1)] * 8 + [(0, 1)],  # too few images to decide
        [(n % 7, 1) for n in range(70)],  # as many show none as show six
    ],
)
def test_check_classes__what_is_not_suspicious(labelled, counts):
    assert messages(labelled(*counts, classes=("cell", "dog"))) == []


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        (np.zeros(0, np.int64), 1, 1),
        (np.ones(100, np.int64), 1, 1),
        (np.random.default_rng(0).poisson(3, 10**6), np.exp(-3) * 0.97, np.exp(-3) * 1.03),
        (np.random.default_rng(0).binomial(10, 0.5, 10**6), 0.9 / 1024, 1.1 / 1024),
        (np.random.default_rng(0).negative_binomial(4, 0.5, 10**6), 0.97 / 16, 1.03 / 16),
        (np.full(1000, 3), 0, 1e-8),
    ],
)
def test_expect_empty__against_the_distributions(counts, low, high):
    assert low <= expect_empty(counts) <= high
