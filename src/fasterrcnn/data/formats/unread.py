"""Formats that are not read, and other files that people give instead of a data set: what to do with each."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fasterrcnn.data.formats.reading import beginning_and_end
from fasterrcnn.files import folders_below
from fasterrcnn.images import EXTENSIONS

_LEVELS = 4  # of folders that are searched
_OPENED = 20  # files of a folder
_MAX_FILES = 200


@dataclass(frozen=True)
class UnreadFiles:
    """A kind of files."""

    title: str  # what such a file is, in a sentence
    name: str  # regular expression that their whole names match, capitals or not
    content: tuple[bytes, ...]  # regular expressions that are all in their content; none where the name is enough
    advice: str


UNREAD_FORMATS = (
    UnreadFiles(
        "V7 Darwin JSON",
        r".*\.json",
        (rb'"(schema_ref|url|workview_url)"\s*:\s*"[^"]*(darwin|v7labs)',),
        "export it from V7 as COCO or Pascal VOC",
    ),
    UnreadFiles(
        "of BDD100K or Scalabel",
        r".*\.json",
        (rb'"box2d"\s*:',),
        "convert it to COCO (python -m bdd100k.label.to_coco -m det)",
    ),
    UnreadFiles(
        "of Cityscapes",
        r".*\.json",
        (rb'"imgHeight"\s*:', rb'"polygon"\s*:'),
        "convert its polygons to COCO (cityscapes.py of MMDetection)",
    ),
    UnreadFiles(
        "of nuScenes or nuImages", r"(sample_annotation|object_ann)\.json", (), "convert its boxes in images to COCO"
    ),
    UnreadFiles(
        "of Hasty",
        r".*\.json",
        (rb'"export_format_version"\s*:', rb'"label_classes"\s*:'),
        "export it from there as COCO or Pascal VOC",
    ),
    UnreadFiles(
        "a manifest of SageMaker Ground Truth or Rekognition",
        r".*\.(manifest|jsonl?)",
        (rb'"source-ref"\s*:',),
        "convert it to COCO, or to a table (CSV)",
    ),
    UnreadFiles(
        "JSON Lines of Azure",
        r".*\.jsonl?",
        (rb'"image_?url"\s*:', rb'"topX"\s*:'),
        "export it from there as COCO",
    ),
    UnreadFiles(
        "of VIA 3",
        r".*\.(json|csv)",
        (rb'"data_format_version"\s*:\s*"3|spatial_coordinates',),
        "convert it to COCO, or to a table (CSV)",
    ),
    UnreadFiles(
        "the CSV of Label Studio, with boxes as JSON in its cells",
        r".*\.[ct]sv",
        (rb'"rectanglelabels"',),
        "export the project as JSON",
    ),
    UnreadFiles(
        "classification data of Roboflow",
        r"_classes\.csv",
        (rb"^filename",),
        "it has no boxes; export a data set for object detection",
    ),
    UnreadFiles(
        "YOLO in one text file, as of YOLOv4 PyTorch and keras-yolo3",
        r".*\.txt",
        (rb"(?m)^\S.*\.(jpe?g|png|bmp|webp|tiff?)( \d+,\d+,\d+,\d+,\d+)+\s*$",),
        "export it as COCO, or as YOLO with a text file for each image",
    ),
)
"""Annotations in formats of other tools, by what is in them."""

OTHER_FILES = (
    UnreadFiles("an archive", r".*\.(zip|tar|tar\.gz|tgz|tar\.bz2|tar\.xz|7z|rar)", (), "unpack it first"),
    UnreadFiles("a spreadsheet", r".*\.(xlsx?|xlsm|ods|numbers)", (), "save the table as CSV"),
    UnreadFiles("of Matlab", r".*\.mat", (), "convert it to COCO or Pascal VOC"),
    UnreadFiles("a Parquet table", r".*\.parquet", (), "save its images as files, and its boxes as COCO or CSV"),
    UnreadFiles(
        "empty",
        r".*\.(json|xml|csv|tsv)",
        (rb"\A(\xef\xbb\xbf)?\s*(\[\s*\]|\{\s*\})?\s*\Z",),
        "was it exported and copied completely?",
    ),
)
"""Files whose names, or whose emptiness, are reason enough that there is no data set."""


def unread_advice(root: Path, kinds: Sequence[UnreadFiles]) -> str:
    """What to do with the first of these kinds of which there is a file, in a sentence; empty where there is none."""
    if root.is_file() and root.suffix.lower() in EXTENSIONS:
        return f"{root} is an image; give the folder or file of its annotations"
    contents: dict[Path, bytes] = {}
    files = [root] if root.is_file() else list(islice(_files_below(root), _MAX_FILES))
    for kind in kinds:
        for file in files:
            if re.fullmatch(kind.name, file.name, re.I) is None:
                continue
            if file not in contents:
                contents[file] = beginning_and_end(file)
            if all(re.search(pattern, contents[file], re.I) for pattern in kind.content):
                return f"{file} is {kind.title}: {kind.advice}"
    return ""


def _files_below(root: Path) -> Iterator[Path]:
    """Some files of every folder that are no images."""
    for folder in [root, *folders_below(root, _LEVELS)]:
        _, _, names = next(os.walk(folder), ("", [], []))
        others = (name for name in sorted(names) if os.path.splitext(name)[1].lower() not in EXTENSIONS)
        yield from islice((folder / name for name in others if os.path.isfile(folder / name)), _OPENED)
