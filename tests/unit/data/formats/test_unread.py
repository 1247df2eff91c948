"""What is advised about data that no format reads."""

import json

import pytest

from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.unread import OTHER_FILES, UNREAD_FORMATS, unread_advice
from fasterrcnn.errors import DataError

BOX = {"x1": 1, "y1": 2, "x2": 3, "y2": 4}
DARWIN_2 = {
    "version": "2.0",
    "schema_ref": "https://darwin-public.s3.eu-west-1.amazonaws.com/darwin_json/2.0/schema.json",
}
DARWIN_1 = {"dataset": "x", "image": {"url": "https://darwin.v7labs.com/api/images/1/original"}, "annotations": []}
BDD = [{"name": "a.png", "labels": [{"category": "car", "box2d": BOX}]}]
CITYSCAPES = {"imgHeight": 30, "imgWidth": 40, "objects": [{"label": "car", "polygon": [[1, 2], [3, 2], [3, 4]]}]}
HASTY = {"project_name": "x", "export_format_version": "1.1", "label_classes": [], "images": [{"image_name": "a.png"}]}
SAGEMAKER = {"source-ref": "s3://x/a.png", "boxes": {"annotations": [], "image_size": []}}
AZURE = {"image_url": "azureml://x/a.png", "label": [{"label": "cat", "topX": 0.1, "topY": 0.1}]}
VIA_3 = {"project": {"data_format_version": "3.1.1"}, "metadata": {"1_a": {"vid": "1", "xy": [2, 1, 2, 3, 4]}}}
LABEL_STUDIO = 'annotation_id,image,label\n1,a.png,"[{""x"": 1, ""rectanglelabels"": [""cat""]}]"\n'

FILES = [
    ("a.json", json.dumps(DARWIN_2), "V7 Darwin JSON: export it from V7 as COCO"),
    ("labels/a.json", json.dumps(DARWIN_1), "V7 Darwin JSON"),
    ("labels/det_train.json", json.dumps(BDD, indent=4), "of BDD100K or Scalabel: convert it to COCO"),
    ("gtFine/train/aachen/a_gtFine_polygons.json", json.dumps(CITYSCAPES), "of Cityscapes: "),
    ("v1.0-mini/sample_annotation.json", "[]", "of nuScenes or nuImages: "),
    ("export.json", json.dumps(HASTY), "of Hasty: export it from there as COCO"),
    ("output.manifest", json.dumps(SAGEMAKER), "a manifest of SageMaker"),
    ("train.jsonl", json.dumps(AZURE), "JSON Lines of Azure: "),
    ("project.json", json.dumps(VIA_3), "of VIA 3: "),
    ("via.csv", "metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata\n", "of VIA 3: "),
    ("project.csv", LABEL_STUDIO, "the CSV of Label Studio, with boxes as JSON in its cells: export the project"),
    ("train/_classes.csv", "filename, cat, dog\na.png, 1, 0\n", "classification data of Roboflow: it has no boxes"),
    ("train/_annotations.txt", "b.png\na.png 1,2,3,4,0 5,6,7,8,1\r\n", "YOLO in one text file"),
    ("set.zip", "PK", "an archive: unpack it first"),
    ("set.tar.gz", "x", "an archive: unpack it first"),
    ("boxes.XLSX", "PK", "a spreadsheet: save the table as CSV"),
    ("trainval/59.mat", "MATLAB 5.0", "of Matlab: "),
    ("data/train-0.parquet", "PAR1", "a Parquet table: "),
    ("annotations.json", "", "empty: was it exported and copied completely?"),
    ("boxes.csv", " \n", "empty: "),
    ("a/b.json", "\ufeff{ }\n", "empty: "),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "words"), FILES)
def test_read_data__advice(write_files, name, text, words):
    root = write_files({"a.png": None, "notes.md": "x", name: text})
    with pytest.raises(DataError) as refused:
        read_data(root)
    assert f"no annotated images found. {root / name} is {words}" in str(refused.value)


@pytest.mark.parametrize("name", ["project.csv", "set.zip", "export.json", "boxes.csv"])
def test_read_data__advice_about_a_single_file(write_files, name):
    text, words = next((text, words) for own, text, words in FILES if own == name)
    root = write_files({name: text})
    with pytest.raises(DataError, match=f"{name} is {words[:12]}"):
        read_data(root / name)


def test_read_data__advice_about_an_image(write_files):
    root = write_files({"a.png": None})
    with pytest.raises(DataError, match=r"a\.png is an image; give the folder or file of its annotations$"):
        read_data(root / "a.png")


def test_read_data__what_a_file_almost_is_comes_before_its_kind(write_files):
    root = write_files({"a.png": None, "set.zip": "PK", "data.json": '{"images": [], "annotation": []}'})
    with pytest.raises(DataError, match="'annotation': rename the key"):
        read_data(root)


@pytest.mark.parametrize("kinds", [UNREAD_FORMATS, OTHER_FILES])
@pytest.mark.parametrize("text", ["[", "{1}", '"url": "x"', "a.png 1,2,3,4", "\0" * 9, '{"imgHeight": 1}'])
def test_unread_advice__other_files(write_files, kinds, text):
    files = {f"a{suffix}": text for suffix in (".json", ".txt", ".csv", ".jsonl")}
    assert unread_advice(write_files({"a.png": None, **files}), kinds) == ""
