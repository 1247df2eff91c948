"""Apple's CreateML: a JSON list with an entry for each image, one file for each split; Roboflow's layout included."""

import re
from pathlib import Path
from typing import Any

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import Collector
from fasterrcnn.data.formats.reading import by_split, read_json
from fasterrcnn.data.formats.shapes import box_to_xyxy
from fasterrcnn.data.formats.values import list_in, numbers_in, text_in
from fasterrcnn.errors import DataError

_IMAGE_KEYS = ("image", "imagefilename", "filename")  # of old and new versions of the documentation, and of tools
_OBJECT_KEYS = ("annotations", "annotation")
_FIRST_ENTRY = re.compile(rb'^(?:\xef\xbb\xbf)?\s*\[\s*\{\s*"(image|imagefilename|filename|annotations?)"\s*:')
_ANNOTATIONS = re.compile(rb'"annotations?"\s*:')
_NOT_EMPTY = re.compile(rb'"annotations?"\s*:\s*(?!\s|\[\s*\])')


class CreateMl(DataFormat):
    """CreateML.

    Boxes are the centre, width and height in pixels, from the top left corner of the image: CreateML's defaults. The
    files do not state it where somebody trains with others.
    """

    title = "CreateML"
    layout = 'CreateML (.json lists with "image" and "coordinates", such as _annotations.createml.json)'
    box_format = "cxcywh"
    suffixes = (".json",)
    file_per_image = False

    def fits(self, content: bytes) -> bool:
        """Whether it is a list of images, with boxes or with empty lists; those of Label Studio have a "result"."""
        if not _FIRST_ENTRY.match(content) or b'"result"' in content or not _ANNOTATIONS.search(content):
            return False
        return b'"coordinates"' in content or not _NOT_EMPTY.search(content)

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one file, or a folder with one for each split; classes are sorted by name.

        Raises:
            DataError: two files are of the same split, or not one image can be used.
        """
        collector = Collector(place, self.title, "annotation", images=options.images)
        for split, file in by_split(self.annotation_files(place), collector.root, collector).items():
            with collector.report_errors(file):
                _read_file(file, split, collector)
        collector.report_unlisted("no annotation file lists it")
        return collector.finish(sort_classes=True)


def _read_file(file: Path, split: str, collector: Collector) -> None:
    """Collect the images of a file and their boxes, which are numbered through the file.

    Raises:
        DataError: it is no list, or no JSON.
    """
    content = read_json(file)
    if not isinstance(content, list):
        raise DataError(f"{file}: not CreateML: a list of images is expected")
    entries = []
    count = 0
    for position, entry in enumerate(content, start=1):
        with collector.report_errors(file, f"image {position}"):
            name, objects = _entry(entry)
            entries.append((name, list(enumerate(objects, start=count + 1))))
            count += len(objects)
    matches = collector.find_images([name for name, _ in entries], file, split)
    for name, numbered in entries if matches else ():
        path = collector.only_one(matches[name], name, file)
        image = collector.claim(path, split, file, name)
        if image is None:
            continue
        for number, annotation in numbered:
            with collector.report_errors(file, f"annotation {number} ({name})", number, image=image.path):
                label, box = _annotation(annotation)
                collector.add(image, box_to_xyxy(box, "cxcywh"), label, number)


def _entry(entry: Any) -> tuple[str, list[Any]]:
    """Name and annotations of an image.

    Raises:
        DataError: it has no name or no list of annotations.
    """
    keys = entry if isinstance(entry, dict) else ()
    image_key = next((key for key in _IMAGE_KEYS if key in keys), _IMAGE_KEYS[0])
    objects_key = next((key for key in _OBJECT_KEYS if key in keys), _OBJECT_KEYS[0])
    name = text_in(entry, image_key)
    return name, list_in(entry, objects_key)


def _annotation(annotation: Any) -> tuple[str, list[float]]:
    """Class, and centre, width and height.

    Raises:
        DataError: they are not there.
    """
    label = text_in(annotation, "label")
    try:
        return label, numbers_in(annotation.get("coordinates"), ("x", "y", "width", "height"))
    except DataError as error:
        raise DataError(f"{label}: {error} (coordinates)") from None
