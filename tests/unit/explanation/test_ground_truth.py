import json

import pytest
from torch.testing import assert_close

from fasterrcnn.data.formats import read_data
from fasterrcnn.demo.scenes import CLASSES, write_scenes
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.explanation.ground_truth import read_image_ground_truth

NAMES = ("cat", "dog")
HW = (100, 200)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_ground_truth__a_list_and_a_file_of_boxes(tmp_path):
    rows = [{"box": [1, 2, 30, 40], "name": "dog"}, {"box": [-5, 0, 300, 50], "name": "cat", "score": 0.9, "label": 0}]
    for source in (rows, write(tmp_path / "boxes.json", rows)):
        ground_truth = read_image_ground_truth(source, None, NAMES, HW)
        assert ground_truth.boxes.tolist() == [[1, 2, 30, 40], [0, 0, 200, 50]]
        assert ground_truth.labels.tolist() == [1, 0]


def test_ground_truth__two_lists(tmp_path):
    columns = {"boxes": [[1, 2, 30, 40], [5, 5, 9, 9]], "labels": ["dog", "cat"]}
    for source in (columns, write(tmp_path / "boxes.json", columns)):
        ground_truth = read_image_ground_truth(source, None, NAMES, HW)
        assert ground_truth.boxes.tolist() == columns["boxes"]
        assert ground_truth.labels.tolist() == [1, 0]
    for broken in ({**columns, "labels": ["dog"]}, {"boxes": 3, "labels": []}, {"boxes": []}):
        with pytest.raises(DataError, match='"boxes" and "labels" must be two lists of the same length'):
            read_image_ground_truth(broken, None, NAMES, HW)


def test_ground_truth__of_nothing(tmp_path):
    ground_truth = read_image_ground_truth(write(tmp_path / "boxes.json", []), None, NAMES, HW)
    assert ground_truth.boxes.shape == (0, 4)
    assert ground_truth.to_input(HW, (50, 100)).boxes.shape == (0, 4)


def test_ground_truth__in_the_frame_of_the_input():
    ground_truth = read_image_ground_truth([{"box": [10, 20, 30, 40], "name": "cat"}], None, NAMES, HW)
    assert_close(ground_truth.to_input(HW, (50, 400)).boxes[0].tolist(), [20.0, 10.0, 60.0, 20.0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"box": [1, 2, 3], "name": "cat"}], r"object 1: Field required.*\[\{\"box\""),
        ([{"box": [0, 0, 9, 9], "name": "cat"}, {"box": [1, 2, 3, 4]}], "object 2: Field required"),
        ([{"box": "what", "name": "cat"}], "object 1"),
        ([{"box": [30, 2, 10, 40], "name": "cat"}], r"object 1 \(cat\).*no area in an image of 200 x 100"),
        ([{"box": [300, 2, 310, 40], "name": "cat"}], r"object 1 \(cat\)"),
        ([{"box": [float("nan"), 2, 310, 40], "name": "cat"}], r"object 1 \(cat\)"),
    ],
)
def test_ground_truth__bad_rows_are_named(rows, message, tmp_path):
    for source in (rows, write(tmp_path / "boxes.json", rows)):
        with pytest.raises(DataError, match=message):
            read_image_ground_truth(source, None, NAMES, HW)


def test_ground_truth__a_file_of_something_else(tmp_path):
    with pytest.raises(DataError, match=r"boxes\.json: object 1: .*write \[\{"):
        read_image_ground_truth(write(tmp_path / "boxes.json", [7]), None, NAMES, HW)


def test_ground_truth__unknown_class():
    with pytest.raises(UsageError, match="no class is called 'owl'"):
        read_image_ground_truth([{"box": [0, 0, 9, 9], "name": "owl"}], None, NAMES, HW)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "\udcff"])
def test_ground_truth__hostile_json(content, tmp_path):
    path = tmp_path / "boxes.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"boxes\.json"):
        read_image_ground_truth(path, None, NAMES, HW)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=3, val=1, test=1, size_hw=(96, 128))
    return folder


def test_ground_truth__of_a_data_set(scenes):
    record = next(record for record in read_data(scenes).images if len(record.boxes) > 1)
    known = CLASSES[::-1]  # the detector may have them in another order
    ground_truth = read_image_ground_truth(scenes, record.path, known, record.size_hw)
    assert_close(ground_truth.boxes.numpy(), record.boxes)
    names = [read_data(scenes).classes[label] for label in record.labels]
    assert [known[label] for label in ground_truth.labels.tolist()] == names
    assert ground_truth.left_out == 0


def test_ground_truth__classes_that_the_detector_does_not_know_are_left_out(scenes):
    data = read_data(scenes)
    record = next(record for record in data.images if len(set(record.labels.tolist())) > 1)
    only = data.classes[record.labels[0]]
    ground_truth = read_image_ground_truth(data, record.path, (only,), record.size_hw)
    assert len(ground_truth.boxes) == int((record.labels == record.labels[0]).sum())
    assert ground_truth.left_out == len(record.boxes) - len(ground_truth.boxes) > 0
    with pytest.raises(UsageError, match="no class in common: zebra against"):
        read_image_ground_truth(data, record.path, ("zebra",), record.size_hw)


def test_ground_truth__a_copy_elsewhere_is_found_by_its_name(scenes, tmp_path):
    record = read_data(scenes).images[0]
    copy = tmp_path / record.path.name
    copy.write_bytes(record.path.read_bytes())
    ground_truth = read_image_ground_truth(scenes, copy, CLASSES, record.size_hw)
    assert len(ground_truth.boxes) == len(record.boxes)


def test_ground_truth__an_image_of_a_yolo_set_with_several_splits(photo, tmp_path):
    for split in ("train", "val"):
        for number in range(3):
            image = tmp_path / "images" / split / f"{split}{number}.png"
            label = tmp_path / "labels" / split / f"{split}{number}.txt"
            image.parent.mkdir(parents=True, exist_ok=True)
            label.parent.mkdir(parents=True, exist_ok=True)
            photo(HW, number).save(image)
            label.write_text("0 0.5 0.5 0.2 0.2")
    write(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [Cat, dog]\n")
    ground_truth = read_image_ground_truth(tmp_path, tmp_path / "images" / "val" / "val1.png", NAMES, HW)
    assert ground_truth.labels.tolist() == [0]
    assert_close(ground_truth.boxes[0].tolist(), [80.0, 40.0, 120.0, 60.0])


def test_ground_truth__no_such_image(scenes, tmp_path):
    with pytest.raises(DataError, match=r"no annotations of other\.jpg among 5 images"):
        read_image_ground_truth(scenes, tmp_path / "other.jpg", CLASSES, HW)
    with pytest.raises(UsageError, match="give the image as a path"):
        read_image_ground_truth(scenes, None, CLASSES, HW)
    with pytest.raises(DataError, match="no such file or folder"):
        read_image_ground_truth(tmp_path / "none.json", None, CLASSES, HW)


def test_ground_truth__several_images_of_that_name(photo, tmp_path):
    rows = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        photo((64, 64)).save(tmp_path / folder / "p.png")
        rows.append({"image": tmp_path / folder / "p.png", "boxes": [[1, 1, 9, 9]], "labels": ["cat"]})
    data = read_data(rows)
    assert len(read_image_ground_truth(data, tmp_path / "a" / "p.png", NAMES, (64, 64)).boxes) == 1
    with pytest.raises(DataError, match=r"2 images are called p\.png"):
        read_image_ground_truth(data, tmp_path / "p.png", NAMES, (64, 64))


def test_ground_truth__errors_in_the_boxes_of_the_image(photo, tmp_path):
    photo((64, 64)).save(tmp_path / "p.png")
    boxes = [[1, 1, 9, 9], [20, 5, 10, 9]]
    data = read_data([{"image": tmp_path / "p.png", "boxes": boxes, "labels": ["cat", "dog"]}])
    with pytest.raises(DataError, match="20,5,10,9"):
        read_image_ground_truth(data, tmp_path / "p.png", NAMES, (64, 64))
    assert len(read_image_ground_truth(data, tmp_path / "p.png", NAMES, (64, 64), on_bad_box="drop").boxes) == 1


def test_ground_truth__difficult_objects_are_not_asked_for(photo, tmp_path):
    photo((64, 64)).save(tmp_path / "p.png")
    row = {"image": tmp_path / "p.png", "boxes": [[1, 1, 9, 9]] * 2, "labels": ["cat"] * 2, "difficult": [True, False]}
    ground_truth = read_image_ground_truth(read_data([row]), tmp_path / "p.png", NAMES, (64, 64))
    assert (len(ground_truth.boxes), ground_truth.left_out) == (1, 1)
