import json
import re
import textwrap
from pathlib import Path

import jaxtyping
import pytest

from fasterrcnn.data import formats
from fasterrcnn.data.checks import check_data
from fasterrcnn.data.formats import FORMATS, read_data
from fasterrcnn.errors import DataError, UsageError

COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 2, 2]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
)
VOC = (
    "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    "</object></annotation>"
)
YOLO = "0 0.05 0.1 0.05 0.06666666666666667\n"
CSV = "image,x1,y1,x2,y2,label\na.png,1,2,3,4,cat\n"
LABELME = json.dumps(
    {
        "shapes": [{"label": "cat", "points": [[1, 2], [3, 4]], "shape_type": "rectangle"}],
        "imagePath": "a.png",
        "imageData": None,
    }
)
REGION = {"x": 2.5, "y": 2 / 0.3, "width": 5, "height": 2 / 0.3, "rotation": 0, "rectanglelabels": ["cat"]}
LABEL_STUDIO = json.dumps([{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [{"value": REGION}]}]}])
UPLOAD = "/data/upload/1/9f3c1a2b-a.png"
LABEL_STUDIO_MIN = json.dumps([{"id": 1, "image": UPLOAD, "box": [REGION], "annotator": 1, "annotation_id": 1}])

CVAT = (
    '<annotations><version>1.1</version><meta/><image id="0" name="a.png" width="40" height="30">'
    '<box label="cat" occluded="0" xtl="1" ytl="2" xbr="3" ybr="4"/></image></annotations>'
)
DATUMARO = json.dumps(
    {
        "categories": {"label": {"labels": [{"name": "cat"}]}},
        "items": [{"id": "a", "annotations": [{"type": "bbox", "label_id": 0, "bbox": [1, 2, 2, 2]}]}],
    }
)
SUPERVISELY = json.dumps(
    {
        "tags": [],
        "size": {"height": 30, "width": 40},
        "objects": [{"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[1, 2], [3, 4]]}}],
    }
)
VIA = json.dumps(
    {
        "a.png1": {
            "filename": "a.png",
            "size": 1,
            "regions": [
                {
                    "shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 2, "height": 2},
                    "region_attributes": {"kind": "cat"},
                }
            ],
            "file_attributes": {},
        }
    }
)
CREATEML = json.dumps(
    [{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {"x": 2, "y": 3, "width": 2, "height": 2}}]}]
)
VOTT = json.dumps(
    {
        "assets": {
            "1": {
                "asset": {"name": "a.png", "state": 2, "type": 1},
                "regions": [
                    {
                        "type": "RECTANGLE",
                        "tags": ["cat"],
                        "boundingBox": {"left": 1, "top": 2, "width": 2, "height": 2},
                    }
                ],
            }
        }
    }
)

COCO_SET = {"a.png": None, "data.json": COCO}
VOC_SET = {"JPEGImages/a.png": None, "Annotations/a.xml": VOC}
YOLO_SET = {"images/a.png": None, "labels/a.txt": YOLO, "data.yaml": "names: [cat]\ntrain: images\n"}
CSV_SET = {"a.png": None, "boxes.csv": CSV}

LAYOUTS = [
    ("COCO", COCO_SET),
    ("COCO", {"train/a.png": None, "train/_annotations.coco.json": COCO, "README.roboflow.txt": "x"}),
    ("COCO", {"train2017/a.png": None, "annotations/instances_train2017.json": COCO}),
    ("Pascal VOC", VOC_SET),
    ("Pascal VOC", {**VOC_SET, "ImageSets/Main/train.txt": "a\n"}),
    ("Pascal VOC", {"images/a.png": None, "annotations/a.xml": VOC}),
    ("Pascal VOC", {"a.png": None, "a.xml": VOC}),
    ("Pascal VOC", {"train/a.png": None, "train/a.xml": VOC, "README.dataset.txt": "x"}),
    ("Pascal VOC", {f"VOCdevkit/VOC2007/{name}": content for name, content in VOC_SET.items()}),
    ("YOLO", YOLO_SET),
    (
        "YOLO",
        {"train/images/a.png": None, "train/labels/a.txt": YOLO, "data.yaml": "names: [cat]\ntrain: train/images"},
    ),
    ("YOLO", {"images/a.png": None, "labels/a.txt": YOLO, "classes.txt": "cat\n"}),
    ("CSV", CSV_SET),
    ("CSV", {"images/a.png": None, "boxes.csv": CSV}),
    ("CVAT for images", {"images/a.png": None, "annotations.xml": CVAT}),
    ("Datumaro", {"images/default/a.png": None, "annotations/default.json": DATUMARO}),
    ("Supervisely", {"ds/img/a.png": None, "ds/ann/a.png.json": SUPERVISELY, "meta.json": '{"classes": []}'}),
    ("KITTI", {"image_2/a.png": None, "label_2/a.txt": "cat 0 0 0 1 2 3 4 0 0 0 0 0 0 0\n"}),
    (
        "WIDER FACE",
        {"images/x/a.png": None, "split/wider_face_x_bbx_gt.txt": "x/a.png\n1\n1 2 2 2 - - - False - - cat\n"},
    ),
    ("DOTA", {"images/a.png": None, "labelTxt/a.txt": "1 2 3 2 3 4 1 4 cat 0\n"}),
    (
        "DOTA",
        {
            "train/images/a.png": None,
            "train/labelTxt/a.txt": "1 2 3 2 3 4 1 4 cat 0\n",
            "data.yaml": "names: [cat]\ntrain: ../train/images\n",
        },
    ),
    ("labelme", {"a.png": None, "a.json": LABELME}),
    ("labelme", {"images/a.png": None, "labels/a.json": LABELME}),
    ("Label Studio", {"a.png": None, "project-1.json": LABEL_STUDIO}),
    ("Label Studio", {"images/a.png": None, "project-1-min.json": LABEL_STUDIO_MIN}),
    ("VIA", {"a.png": None, "via_region_data.json": VIA}),
    ("CreateML", {"a.png": None, "_annotations.createml.json": CREATEML}),
    ("VoTT", {"vott-json-export/a.png": None, "vott-json-export/animals-export.json": VOTT}),
]


@pytest.mark.parametrize(("name", "files"), LAYOUTS)
def test_read_data__recognised(write_files, name, files):
    root = write_files(files)
    data = read_data(root)
    assert data.format == name
    (annotated,) = data.images
    assert annotated.path.stem == "a"
    assert annotated.boxes.round(4).tolist() == [[1, 2, 3, 4]]
    assert data.classes == ("cat",)
    assert data.findings == []
    assert read_data(str(root)).summary() == data.summary()


@pytest.mark.parametrize(
    ("files", "file", "name"),
    [
        (COCO_SET, "data.json", "COCO"),
        (YOLO_SET, "data.yaml", "YOLO"),
        (CSV_SET, "boxes.csv", "CSV"),
        ({"a.png": None, "a.json": LABELME}, "a.json", "labelme"),
        ({"a.png": None, "a.json": LABEL_STUDIO}, "a.json", "Label Studio"),
        ({"a.png": None, "a.json": LABEL_STUDIO_MIN}, "a.json", "Label Studio"),
    ],
)
def test_read_data__the_file_itself(write_files, files, file, name):
    assert read_data(write_files(files) / file).format == name


def test_read_data__what_was_read_already(write_files):
    data = read_data(write_files(COCO_SET))
    assert read_data(data) is data


def test_read_data__list_of_dicts(write_files):
    root = write_files({"a.png": None})
    rows = [{"image": root / "a.png", "boxes": [[1, 2, 3, 4]], "labels": ["cat"]}]
    assert read_data(rows).images[0].boxes.tolist() == [[1, 2, 3, 4]]
    (annotated,) = read_data(rows, box_format="xywh", classes=["dog", "cat"]).images
    assert annotated.boxes.tolist() == [[1, 2, 4, 6]]
    assert annotated.labels.tolist() == [1]


def test_read_data__options_reach_the_readers(write_files):
    root = write_files({"boxes/data.json": COCO, "boxes/boxes.csv": CSV, "store/a.png": None})
    for file in ("data.json", "boxes.csv"):
        (annotated,) = read_data(root / "boxes" / file, images=str(root / "store")).images
        assert annotated.path == root / "store" / "a.png"
    table = root / "boxes" / "boxes.csv"
    (annotated,) = read_data(table, images=root / "store", classes=["dog", "cat"], box_format="xywh").images
    assert (annotated.boxes.tolist(), annotated.labels.tolist()) == ([[1, 2, 4, 6]], [1])
    table.write_text(CSV.replace("label", "kind"))
    assert read_data(table, images=root / "store", columns={"label": "kind"}).classes == ("cat",)
    yolo = write_files({"images/a.png": None, "labels/a.txt": YOLO}, root / "yolo")
    assert read_data(yolo, classes=["owl"]).classes == ("owl",)


@pytest.mark.parametrize("files", [YOLO_SET, COCO_SET, None])
@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "dog", "cat"], "'cat' is there twice"),
        (["cat", ""], "'' is no name of a class"),
        (["cat", " "], "' ' is no name of a class"),
        (["cat", 7], "7 is no name of a class"),
        ("cat", "must be a list of names, not 'cat'"),
        ([], r"must be a list of names, not \[\]"),
    ],
)
def test_read_data__classes_that_are_no_list_of_names(write_files, monkeypatch, files, classes, message):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would be faster to complain
    data = [] if files is None else write_files(files)
    with pytest.raises(UsageError, match=rf"classes \(--class-names\).* ?{message}"):
        read_data(data, classes=classes)


def test_read_data__several_ways(write_files):
    root = write_files({**COCO_SET, **VOC_SET, "JPEGImages/a.png": None})
    with pytest.raises(
        DataError,
        match=r"set: could be read in 2 ways; .*: --format coco \(.*set\); --format voc \(.*set\)$",
    ):
        read_data(root)
    assert read_data(root, format="coco").format == "COCO"
    assert read_data(root, format="voc").format == "Pascal VOC"


def test_read_data__several_data_sets(write_files):
    root = write_files({f"{name}/{file}": content for name in ("one", "two") for file, content in VOC_SET.items()})
    with pytest.raises(DataError, match=r"2 data sets in Pascal VOC format; name one: .*one, .*two$"):
        read_data(root)


def test_read_data__nothing(tmp_path, write_files):
    with pytest.raises(DataError, match="absent: no such file or folder"):
        read_data(tmp_path / "absent")
    with pytest.raises(DataError, match="x: no such file or folder"):
        read_data(tmp_path / ("x" * 300))
    with pytest.raises(DataError, match=r"no annotated images found. Tried COCO, .*VOC.* \(--format NAME .*\)$"):
        read_data(tmp_path)
    root = write_files({f"{n}.png": None for n in range(7)})
    with pytest.raises(DataError, match=r"; it holds 0\.png, 1\.png, 2\.png, 3\.png, 4\.png\.\.\.$"):
        read_data(root)
    with pytest.raises(DataError, match=r"0\.png: no annotated images found"):
        read_data(root / "0.png")


@pytest.mark.parametrize(
    ("wanted", "message"), [("coco", "COCO"), ("voc", "Pascal VOC"), ("yolo", "YOLO"), ("csv", "CSV")]
)
def test_read_data__not_in_the_wanted_format(write_files, wanted, message):
    root = write_files({"a.png": None})
    with pytest.raises(DataError, match=rf"no annotated images found\. Tried {message} \([^)]*\); it holds a\.png"):
        read_data(root, format=wanted)


def test_read_data__a_format_that_does_not_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would be faster to complain
    with pytest.raises(UsageError, match="no format 'coc0'; there are: coco, voc, yolo, csv, cvat, datumaro"):
        read_data(tmp_path, format="coc0")


@pytest.mark.parametrize(
    ("path", "summary"),
    [
        ("bccd", "Pascal VOC, 364 images, 3 classes (Platelets, RBC, WBC), splits train 205 / val 87 / test 72"),
        (
            "road_signs/Annotations/..",
            "Pascal VOC, 877 images, 4 classes (crosswalk, speedlimit, stop, trafficlight), spli",
        ),
    ],
)
def test_read_data__real_data(shared_data, path, summary):
    assert read_data(shared_data / path).summary().startswith(summary)


def test_read_data__images_are_not_there(shared_data):
    with pytest.raises(DataError, match=r"its images \(COCO_val2014_.*\.\.\.\) are nowhere below .*--images\)"):
        read_data(shared_data / "coco_eval")


def test_formats__recipe_for_contributors(write_files, monkeypatch):
    text = (Path(__file__).parents[4] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    scope = {}
    example = re.search(r"### Add a data format.*?```python\n(.*?)```", text, re.DOTALL)[1]
    exec(textwrap.dedent(example), scope)
    monkeypatch.setitem(formats.FORMATS, "cards", scope["Cards"]())
    root = write_files({"train/a.jpg": None, "train/a.card": "cat 1 2 11 12\ndog 3 4 9 9\n", "val/b.jpg": None})
    (root / "val" / "b.card").touch()
    data = read_data(root)
    assert data.findings == []
    assert data.summary() == "Cards, 2 images, 1 without boxes, 2 classes (cat, dog), splits train 1 / val 1"
    assert data.describe_box(data.images[0], 1) == "line 2 (dog)"
    assert [finding.kind for finding in check_data(data).findings if finding.severity == "error"] == []
    assert read_data(root, format="cards").format == "Cards"
    (root / "val" / "b.card").write_text("cat 1 2 x 12\n\n")
    assert [finding.annotation for finding in read_data(root).findings] == [1, 2]
    (root / "val" / "b.card").write_bytes(b"\xff\xfe\xff")
    assert [finding.kind for finding in read_data(root).findings] == ["unreadable-annotations"]


@pytest.mark.parametrize(("name", "files"), LAYOUTS)
def test_read_data__images_in_another_folder(write_files, tmp_path, name, files):
    root = write_files({file: content for file, content in files.items() if content is not None})
    write_files({Path(file).name: None for file, content in files.items() if content is None}, tmp_path / "elsewhere")
    data = read_data(root, images=tmp_path / "elsewhere")
    assert [image.path for image in data.images] == [tmp_path / "elsewhere" / "a.png"]
    assert data.images[0].boxes.round(4).tolist() == [[1, 2, 3, 4]]
    with pytest.raises(UsageError, match="absent: no such folder of images"):
        read_data(root, images=tmp_path / "absent")


SPLIT_FILES = {
    "_annotations.coco.json": COCO,
    "_annotations.csv": CSV,
    "_annotations.createml.json": CREATEML,
    "annotations.xml": CVAT,
    "via.json": VIA,
    "vott-export.json": VOTT,
    "tasks.json": LABEL_STUDIO,
    "a.json": LABELME,
}


@pytest.mark.parametrize("name", SPLIT_FILES)
@pytest.mark.parametrize("damage", ["UTF-16", "cut", "zeros"])
@pytest.mark.parametrize("place", ["valid/{}", "valid/other.{}"])
def test_read_data__broken_split_is_reported(write_files, name, damage, place):
    text = SPLIT_FILES[name]
    broken = {"UTF-16": text.encode("utf-16")[:-8], "cut": text[:9].encode(), "zeros": bytes(100)}[damage]
    files = {"train/a.png": None, f"train/{name}": text, "valid/a.png": None, place.format(name): broken}
    data = read_data(write_files(files))
    assert list(data.splits) == ["train"]
    assert [f.kind for f in data.findings if f.file.parent.name == "valid"] == ["unreadable-annotations"]


@pytest.mark.parametrize(("text", "place"), [(DATUMARO, "annotations/{}.json"), (CSV, "{}.csv"), (COCO, "x/{}_1.json")])
def test_read_data__broken_file_of_a_split_is_reported(write_files, text, place):
    files = {"images/a.png": None, place.format("train"): text, place.format("val"): text[:9]}
    data = read_data(write_files(files))
    assert list(data.splits) == ["train"]
    assert [(f.kind, f.file.stem[:3]) for f in data.findings] == [("unreadable-annotations", "val")]


@pytest.mark.parametrize(
    "files",
    [
        {"train.csv": CSV, "test.csv": "image_id,width,height\na.png,40,30\n"},
        {"train.csv": CSV, "sample_submission.csv": "image_id,PredictionString\na.png,\n"},
        {"train.json": COCO, "test.json": json.dumps({"images": [], "categories": []})},
        {"train/a.json": COCO, "test/b.json": json.dumps({"x": 1}), "test/c.json": "{}"},
        {"train/a.json": COCO, "train/b.json": "{}"},
        {"a.json": COCO, "val/a.json": "{}"},
    ],
)
def test_read_data__other_files_are_no_broken_splits(write_files, files):
    data = read_data(write_files({"a.png": None, **files}))
    assert len(data.images) == 1
    assert data.findings == []


def test_layouts__of_every_format():
    without = {"TFRecord", "MOT Challenge", "VisDrone"}  # have more than a.png and cat: see their own tests
    assert {name for name, _ in LAYOUTS} | without == {form.title for form in FORMATS.values()}
