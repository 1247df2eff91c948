"""Data sets are moved, renamed and split as people do it: they are read exactly, or refused with both candidates."""

import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats import read_data
from fasterrcnn.errors import DataError

CLASSES = ["bolt", "nut"]
SPLITS = {"train": ("train", "Train", "training"), "val": ("val", "valid", "Validation")}
FOLDERS = ("data", "2024", "My Set", "export", "raw", "Shop")
IMAGE_FOLDERS = ("images", "JPEGImages", "img", "Images", "photos", "pics")
ANNOTATION_FOLDERS = ("annotations", "Annotations", "annots", "xml", "Json", "labels", "boxes", "gt")


@dataclass(frozen=True)
class Photo:
    """An image of the set, whose size nobody else has, so that boxes of another image are noticed."""

    name: str
    split: str
    number: int

    @property
    def size(self) -> tuple[int, int]:
        return 60 + self.number, 50

    @property
    def objects(self) -> list[tuple[str, tuple[int, int, int, int]]]:
        return [(CLASSES[i % 2], (4 + i, 5, 20 + self.number, 30 + i)) for i in range(self.number % 3)]


@dataclass(frozen=True)
class Layout:
    """Where everything lies, and how the annotations call the images."""

    images: tuple[str, ...]  # folders above the images
    annotations: tuple[str, ...]  # folders above the annotation files
    images_by_split: bool
    annotations_by_split: bool
    split_above: bool  # train/images, not images/train
    style: str  # of the names in the annotations
    suffix: str
    same_names: bool  # whether train and val have images of the same names
    spelling: int  # of the names of splits


@st.composite
def layouts(draw: st.DrawFn, one_file: bool) -> Layout:
    folders = st.lists(st.sampled_from(FOLDERS), max_size=2)
    images = [*draw(folders), *draw(st.sampled_from([[], *([name] for name in IMAGE_FOLDERS)]))]
    annotations = [*draw(folders), *draw(st.sampled_from([[], *([name] for name in ANNOTATION_FOLDERS)]))]
    by_split, annotations_by_split = draw(st.booleans()), draw(st.booleans())
    style = draw(st.sampled_from(["name", "relative", "machine", "windows", "nested", "quoted"]))
    # The same name in two splits means two images only where something states which.
    with_folders = one_file and style in ("relative", "machine", "windows", "nested")
    is_clear = by_split and (annotations_by_split or with_folders)
    same = is_clear and draw(st.booleans())
    suffix = draw(st.sampled_from([".jpg", ".JPG", ".png", ".jpeg"]))
    above, spelling = draw(st.booleans()), draw(st.integers(0, 2))
    return Layout(
        tuple(images), tuple(annotations), by_split, annotations_by_split, above, style, suffix, same, spelling
    )


def photos(layout: Layout) -> list[Photo]:
    splits = ["train", "train", "train", "val", "val"]
    names = ["001", "IMG 2", "x.y_3", *(["001", "IMG 2"] if layout.same_names else ["004", "IMG 5"])]
    return [
        Photo(name + layout.suffix, split, number)
        for number, (name, split) in enumerate(zip(names, splits, strict=True), start=1)
    ]


def folder_of(folders: tuple[str, ...], split: str, by_split: bool, layout: Layout) -> PurePosixPath:
    if not by_split:
        return PurePosixPath(*folders)
    name = SPLITS[split][layout.spelling]
    return PurePosixPath(*folders[:-1], name, *folders[-1:]) if layout.split_above else PurePosixPath(*folders, name)


def image_path(photo: Photo, layout: Layout) -> PurePosixPath:
    return folder_of(layout.images, photo.split, layout.images_by_split, layout) / photo.name


def name_of(photo: Photo, layout: Layout) -> str:
    """What the annotations call an image."""
    path = image_path(photo, layout)
    return {
        "name": photo.name,
        "relative": str(path),
        "machine": f"/home/me/old/{path}",
        "windows": str(PurePosixPath("C:/Users/me/old") / path).replace("/", "\\"),
        "nested": f"old-name/{path}",
        "quoted": photo.name.replace(" ", "%20"),
    }[layout.style]


def write_images(layout: Layout, root: Path) -> None:
    for photo in photos(layout):
        path = root / image_path(photo, layout)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", photo.size).save(path)


def write_files(layout: Layout, root: Path, suffix: str, content_of) -> None:
    """One annotation file for each split, or one for all."""
    groups: dict[str, list[Photo]] = {}
    for photo in photos(layout):
        groups.setdefault(photo.split if layout.annotations_by_split else "all", []).append(photo)
    for split, members in groups.items():
        name = "boxes" if split == "all" else f"boxes_{SPLITS[split][layout.spelling].lower()}"
        file = root.joinpath(*layout.annotations) / f"{name}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content_of(members, layout))


def coco(members: list[Photo], layout: Layout) -> str:
    sizes = [{"id": p.number, "file_name": name_of(p, layout), "width": p.size[0], "height": 50} for p in members]
    rows = [(p.number, name, box) for p in members for name, box in p.objects]
    annotations = [
        {"id": i, "image_id": number, "category_id": CLASSES.index(name), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for i, (number, name, (x1, y1, x2, y2)) in enumerate(rows, start=1)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    return json.dumps({"images": sizes, "annotations": annotations, "categories": categories})


def csv(members: list[Photo], layout: Layout) -> str:
    lines = ["filename,xmin,ymin,xmax,ymax,class"]
    for photo in members:
        objects = [[*map(str, box), name] for name, box in photo.objects] or [[""] * 5]
        lines += [",".join([name_of(photo, layout), *row]) for row in objects]
    return "\n".join(lines)


def cvat(members: list[Photo], layout: Layout) -> str:
    images = []
    for photo in members:
        boxes = "".join(
            f'<box label="{name}" xtl="{x1}.0" ytl="{y1}.0" xbr="{x2}.0" ybr="{y2}.0"/>'
            for name, (x1, y1, x2, y2) in photo.objects
        )
        size = f'width="{photo.size[0]}" height="50"'
        images.append(f'<image id="{photo.number}" name="{name_of(photo, layout)}" {size}>{boxes}</image>')
    return f"<annotations><version>1.1</version>{''.join(images)}</annotations>"


def datumaro(members: list[Photo], layout: Layout) -> str:
    items = []
    for photo in members:
        annotations = [
            {"id": i, "type": "bbox", "label_id": CLASSES.index(name), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for i, (name, (x1, y1, x2, y2)) in enumerate(photo.objects)
        ]
        image = {"path": name_of(photo, layout), "size": [50, photo.size[0]]}
        items.append({"id": Path(photo.name).stem, "annotations": annotations, "image": image})
    labels = [{"name": name, "parent": ""} for name in CLASSES]
    return json.dumps({"info": {}, "categories": {"label": {"labels": labels}}, "items": items})


def via(members: list[Photo], layout: Layout) -> str:
    entries = {}
    for photo in members:
        regions = [
            {
                "shape_attributes": {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
                "region_attributes": {"class": name},
            }
            for name, (x1, y1, x2, y2) in photo.objects
        ]
        name = name_of(photo, layout)
        entries[f"{name}{photo.number}"] = {"filename": name, "size": -1, "regions": regions, "file_attributes": {}}
    return json.dumps(entries)


def createml(members: list[Photo], layout: Layout) -> str:
    entries = []
    for photo in members:
        annotations = []
        for name, (x1, y1, x2, y2) in photo.objects:
            centre = {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1}
            annotations.append({"label": name, "coordinates": centre})
        entries.append({"image": name_of(photo, layout), "annotations": annotations})
    return json.dumps(entries)


def label_studio(members: list[Photo], layout: Layout) -> str:
    tasks = []
    for photo in members:
        width, height = photo.size
        results = []
        for name, (x1, y1, x2, y2) in photo.objects:
            value = {"x": 100 * x1 / width, "y": 100 * y1 / height, "rotation": 0, "rectanglelabels": [name]}
            value |= {"width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height}
            origin = {"original_width": width, "original_height": height, "from_name": "label", "to_name": "image"}
            results.append({**origin, "id": f"r{len(results)}", "type": "rectanglelabels", "value": value})
        annotations = [{"id": photo.number, "was_cancelled": False, "result": results}]
        tasks.append({"id": photo.number, "data": {"image": name_of(photo, layout)}, "annotations": annotations})
    return json.dumps(tasks)


def write_images_json(
    layout: Layout, root: Path, content_of: Callable[[Photo, Layout], str], keep_suffix: bool
) -> None:
    """A JSON file for each image, as labelme (a.json) and Supervisely (a.jpg.json) write them."""
    for photo in photos(layout):
        folder = root / folder_of(layout.annotations, photo.split, layout.annotations_by_split, layout)
        folder.mkdir(parents=True, exist_ok=True)
        name = photo.name if keep_suffix else Path(photo.name).stem
        (folder / f"{name}.json").write_text(content_of(photo, layout))


def labelme(photo: Photo, layout: Layout) -> str:
    shapes = [
        {"label": name, "points": [[x1, y1], [x2, y2]], "group_id": None, "shape_type": "rectangle", "flags": {}}
        for name, (x1, y1, x2, y2) in photo.objects
    ]
    image = {"imagePath": name_of(photo, layout), "imageData": None, "imageHeight": 50, "imageWidth": photo.size[0]}
    return json.dumps({"version": "5.4.1", "flags": {}, "shapes": shapes, **image})


def write_voc(layout: Layout, root: Path) -> None:
    for photo in photos(layout):
        folder = root / folder_of(layout.annotations, photo.split, layout.annotations_by_split, layout)
        folder.mkdir(parents=True, exist_ok=True)
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            "</bndbox></object>"
            for name, (x1, y1, x2, y2) in photo.objects
        )
        size = f"<size><width>{photo.size[0]}</width><height>50</height></size>"
        text = f"<annotation><filename>{name_of(photo, layout)}</filename>{size}{objects}</annotation>"
        (folder / f"{Path(photo.name).stem}.xml").write_text(text)


def write_yolo(layout: Layout, root: Path) -> None:
    """Labels in a folder called after them, or beside the images; the images' folders make the splits."""
    rng = random.Random(repr(layout))
    where = rng.choice(["beside", "swapped", "apart"])
    for photo in photos(layout):
        path = image_path(photo, layout)
        folders = path.parent.parts
        if where == "swapped" and any(part.lower() == "images" for part in folders):
            folders = tuple("labels" if part.lower() == "images" else part for part in folders)
        elif where != "beside":
            folders = (*layout.annotations[:1], "labels", *(folders[-1:] if layout.images_by_split else ()))
            if layout.images_by_split and layout.split_above and layout.images:
                folders = (*folders[:-1], SPLITS[photo.split][layout.spelling])
        file = root.joinpath(*folders) / f"{Path(photo.name).stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = ""
        for name, (x1, y1, x2, y2) in photo.objects:
            shares = ((x1 + x2) / 2 / photo.size[0], (y1 + y2) / 2 / 50, (x2 - x1) / photo.size[0], (y2 - y1) / 50)
            lines += " ".join(map(str, (CLASSES.index(name), *shares))) + "\n"
        file.write_text(lines)
    if rng.random() < 0.5:
        (root / "classes.txt").write_text("\n".join(CLASSES))
    else:
        (root / "data.yaml").write_text(f"names: {CLASSES}\n")


ONE_FILE = ("coco", "csv", "cvat", "datumaro", "via", "createml", "label-studio")  # for many images

WRITERS = {
    "coco": lambda layout, root: write_files(layout, root, ".json", coco),
    "csv": lambda layout, root: write_files(layout, root, ".csv", csv),
    "cvat": lambda layout, root: write_files(layout, root, ".xml", cvat),
    "datumaro": lambda layout, root: write_files(layout, root, ".json", datumaro),
    "via": lambda layout, root: write_files(layout, root, ".json", via),
    "createml": lambda layout, root: write_files(layout, root, ".json", createml),
    "label-studio": lambda layout, root: write_files(layout, root, ".json", label_studio),
    "labelme": lambda layout, root: write_images_json(layout, root, labelme, keep_suffix=False),
    "voc": write_voc,
    "yolo": write_yolo,
}


def expected(layout: Layout, form: str) -> Counter:
    """Split, size and objects of every image."""
    has_splits = layout.images_by_split or (layout.annotations_by_split and form != "yolo")
    return Counter((p.split if has_splits else "all", p.size, objects_as_text(p.objects)) for p in photos(layout))


def objects_as_text(objects) -> str:
    return "; ".join(sorted(f"{name} {','.join(f'{side:.1f}' for side in box)}" for name, box in objects))


def actual(data: AnnotatedData) -> Counter:
    images = Counter()
    for split, members in data.splits.items():
        for image in members:
            with Image.open(image.path) as opened:
                size = opened.size
            objects = [(data.classes[label], box) for label, box in zip(image.labels, image.boxes, strict=True)]
            images[split, size, objects_as_text(objects)] += 1
    return images


def outcome(layout: Layout, form: str) -> str:
    """ "exact", or why the set was refused: the message names the candidates. All else is an error of the test."""
    root = Path(tempfile.mkdtemp()) / "set"
    try:
        write_images(layout, root)
        WRITERS[form](layout, root)
        try:
            data = read_data(root)
        except DataError as error:
            return str(error)
        ambiguous = [finding.what for finding in data.findings if finding.kind == "ambiguous-image"]
        wanted, images = expected(layout, form), actual(data)
        if ambiguous:
            assert images <= wanted
            return ambiguous[0]
        assert images == wanted, (images - wanted, wanted - images, data.findings)
        return "exact"
    finally:
        shutil.rmtree(root.parent)


@pytest.mark.parametrize("examples", [20, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", WRITERS)
def test_layouts__read_exactly_or_refused(form, examples):
    outcomes: Counter[str] = Counter()

    @settings(derandomize=True, deadline=None, max_examples=examples, database=None)
    @given(layouts(one_file=form in ONE_FILE))
    def try_layout(layout):
        outcomes[outcome(layout, form)] += 1

    try_layout()
    refused = [reason for reason in outcomes if reason != "exact"]
    assert outcomes["exact"] >= 0.98 * outcomes.total(), refused
    assert all(reason.count("/set") >= 2 for reason in refused)
