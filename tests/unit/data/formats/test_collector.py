import pytest

from fasterrcnn.data.formats.collector import Collector, UnusableError
from fasterrcnn.errors import DataError


def test_collector__images_boxes_and_what_is_left_out(write_files):
    root = write_files({"a.png": None, "b.png": "none", "a.txt": "", "b.txt": ""})
    collector = Collector(root, "Cards", "line", ("cat", "dog"))
    first = collector.image(root / "a.png", "val", root / "a.txt", stated_hw=(30, 0))
    assert collector.image(root / "a.png", "val", root / "a.txt") is first
    collector.add(first, (1, 2, 3, 4), "dog", 7, difficult=True)
    collector.add(first, (1, 2, 3, 4), "owl", 8)
    collector.add(collector.image(root / "b.png", "train", root / "b.txt"), (1, 2, 3, 4), "cat", 1)
    data = collector.finish()
    (annotated,) = data.images
    assert (data.root, data.format, data.classes, list(data.splits)) == (root, "Cards", ("cat", "dog"), ["val"])
    assert (annotated.size_hw, annotated.labels.tolist(), annotated.numbers.tolist()) == ((30, 40), [1], [7])
    assert (annotated.difficult.tolist(), annotated.areas) == ([True], None)
    assert data.describe_box(annotated, 0) == "line 7 (dog)"
    assert [(f.kind, f.what) for f in data.findings] == [
        ("unknown-class", "line 8: 'owl' is none of the classes cat, dog"),
        ("unreadable-image", "not an image that can be decoded"),
    ]


def test_collector__splits_areas_and_sorted_classes(write_files):
    root = write_files(dict.fromkeys(("a.png", "b.png")))
    collector = Collector(root / "a.png", "Cards", "object")
    for number, (name, label) in enumerate((("b.png", "owl"), ("a.png", "cat")), start=1):
        image = collector.image(root / name, source=root, size_hw=(60, 80), image_id=0)
        collector.add(image, (1, 2, 3, 4), label, number, area=2.5)
    data = collector.finish({"train": [root / "a.png"], "val": [root / "a.png", root / "no.png"]}, sort_classes=True)
    assert (data.root, data.classes) == (root, ("cat", "owl"))
    assert data.split("train")[0] is data.split("val")[0]
    (annotated,) = data.images
    assert (annotated.image_id, annotated.size_hw) == (0, (60, 80))
    assert (annotated.labels.tolist(), annotated.areas.tolist()) == ([0], [2.5])


@pytest.mark.parametrize(("names", "kind"), [([], "missing-image"), (["a.png", "a.jpg"], "ambiguous-image")])
def test_collector__no_single_image_of_a_file(tmp_path, names, kind):
    collector = Collector(tmp_path, "Cards", "line")
    assert collector.image_of(tmp_path / "a.txt", [tmp_path / name for name in names]) is None
    assert [finding.kind for finding in collector.findings] == [kind]
    assert collector.image_of(tmp_path / "a.txt", [tmp_path / "a.png"]) == tmp_path / "a.png"
    with pytest.raises(DataError, match=r"Cards \(.*\): no image that could be used; first: .*a\.txt: "):
        collector.finish()


def test_collector__names_of_two_images_and_files_of_one(write_files):
    root = write_files(dict.fromkeys(("a.png", "b.png", "c.png")))
    collector = Collector(root, "Cards", "line")
    first, second = root / "1.txt", root / "2.txt"
    for name, path in (("x/a.png", "a.png"), ("y/a.png", "a.png"), ("b.png", "b.png"), ("b.png", "b.png")):
        if image := collector.claim(root / path, "all", first, name):
            collector.add(image, (1, 2, 3, 4), "cat", 1)
    assert collector.claim(root / "b.png", "all", second, "b.png") is None
    assert collector.claim(None, "all", second, "c.png") is None
    collector.report_unlisted("no line names it")
    data = collector.finish()
    assert [(image.path.name, len(image.boxes)) for image in data.images] == [("b.png", 2)]
    assert [(finding.kind, finding.file.name) for finding in data.findings] == [
        ("ambiguous-image", "1.txt"),
        ("same-image", "1.txt"),
        ("unlisted-annotations", "2.txt"),
        ("unlisted-image", "c.png"),
    ]


def test_collector__errors_become_findings(tmp_path):
    collector = Collector(tmp_path, "Cards", "line")
    file = tmp_path / "a.txt"
    for error in (DataError(f"{file}: broken"), UnusableError("unknown-class", "no class")):
        with collector.report_errors(file):
            raise error
        with collector.report_errors(file, "line 3", 3):
            raise error
    with pytest.raises(KeyError), collector.report_errors(file):
        raise KeyError
    assert [(finding.kind, finding.what, finding.annotation) for finding in collector.findings] == [
        ("unreadable-annotations", "broken", None),
        ("unreadable-annotations", "line 3: broken", 3),
        ("unknown-class", "no class", None),
        ("unknown-class", "line 3: no class", 3),
    ]


def test_collector__images_that_are_nowhere(write_files):
    collector = Collector(write_files({"a.png": None}), "Cards", "line")
    assert list(collector.find_images(["a.png", "b.png"], collector.root / "x.txt", "all")) == ["a.png", "b.png"]
    assert collector.find_images(["b.png", "c.png"], collector.root / "x.txt", "all") == {}
    assert collector.find_images([], collector.root / "x.txt", "all") == {}
    ((kind, what),) = [(finding.kind, finding.what) for finding in collector.findings]
    assert kind == "missing-image"
    assert "its images (b.png...) are nowhere below" in what
