"""Microsoft's VoTT: the JSON export of version 2, its files of single assets, and the JSON of version 1.

VoTT's CSV export is an ordinary table, and its other exports are Pascal VOC and TFRecord.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasterrcnn.data.annotations import AnnotatedData, group_by, split_of
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import CollectedImage, Collector
from fasterrcnn.data.formats.reading import by_split, files_below, read_json
from fasterrcnn.data.formats.values import list_in, numbers_in, shortened, side_of_image, text_in
from fasterrcnn.errors import DataError

_NOT_VISITED, _VIDEO = 0, 2  # VoTT's numbers: a state, and a type of asset
_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class _Asset:
    """What a file has about an image."""

    file: Path
    name: str
    path: str  # where it was, or its name again
    stated_hw: tuple[int, int]
    regions: list[tuple[int, Any]]  # each with its number in the file
    version: int


class Vott(DataFormat):
    """VoTT.

    A region of several tags becomes a box of each. Where an export lies beside the files of single assets
    (ID-asset.json), the export is read: the same annotations are in both.
    """

    title = "VoTT"
    layout = 'VoTT (NAME-export.json with "assets", ID-asset.json, or version 1\'s .json with "frames" and "inputTags")'
    box_format = "xywh"

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The file itself, or the folder whose files make one data set."""
        return [root] if _exports(root) or _asset_files(root) else []

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one file, a folder with an export for each split, or the files of single assets.

        Classes are sorted by name. Images that nobody visited in VoTT are left out, and a note counts them.

        Raises:
            DataError: two exports are of the same split, or not one image can be used.
        """
        collector = Collector(place, self.title, "region", images=options.images)
        unvisited: list[str] = []
        exports, assets = _exports(place), _asset_files(place)
        if exports and assets:
            names = ", ".join(file.name for file in exports[:3])
            collector.note(f"{len(assets)} files of single assets are not read, for {names} is their export")
        if exports:
            groups = [(split, [file]) for split, file in by_split(exports, collector.root, collector).items()]
        else:
            folders = group_by(assets, lambda file: file.parent)
            groups = [(split_of(folder, collector.root), own) for folder, own in folders.items()]
        for split, files in groups:
            _collect(files, split, collector, unvisited)
        if unvisited:
            collector.note(
                f"left out, for nobody visited them in VoTT: {len(unvisited)} images, such as {unvisited[0]}"
            )
        collector.report_unlisted("no annotation file lists it")
        return collector.finish(sort_classes=True)


def _exports(root: Path) -> list[Path]:
    return files_below(root, (".json",), _is_export, alike=False)


def _is_export(content: bytes) -> bool:
    keys = ((b'"assets"', b'"regions"'), (b'"frames"', b'"inputTags"'))
    return any(all(key in content for key in version) for version in keys)


def _asset_files(root: Path) -> list[Path]:
    """The file itself, or those of a folder, which have the name that VoTT gives them."""
    files = files_below(root, (".json",), lambda content: b'"asset"' in content and b'"regions"' in content)
    return files if root.is_file() else [file for file in files if file.name.endswith("-asset.json")]


def _collect(files: Sequence[Path], split: str, collector: Collector, unvisited: list[str]) -> None:
    """Collect the images and boxes of an export, or of the assets of a folder, and the names of unvisited images."""
    assets: list[_Asset] = []
    for file in files:
        with collector.report_errors(file):
            assets += _read_file(file, collector, unvisited)
    matches = collector.find_images([asset.path for asset in assets], assets[0].file, split) if assets else {}
    # Assets of several folders may have the same name, too: nobody knows which of them the only image is.
    counts = Counter(paths[0] for asset in assets if len(paths := matches.get(asset.path, [])) == 1)
    for asset in assets if matches else ():
        path = collector.only_one(matches[asset.path], asset.name, asset.file)
        if path is not None and counts[path] > 1:
            what = f"{counts[path]} assets are called {asset.name}, and there is only {path}"
            collector.problem("ambiguous-image", asset.file, what)
        elif path is not None:
            image = collector.image(path, split, asset.file, stated_hw=asset.stated_hw)
            _add_regions(asset, image, collector)


def _read_file(file: Path, collector: Collector, unvisited: list[str]) -> list[_Asset]:
    """The images of an export, or the image of a file of a single asset.

    Raises:
        DataError: it is none of these.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: not VoTT: an object is expected")
    version = 1 if "frames" in content else 2
    entries = content.get("frames" if version == 1 else "assets", {"": content} if "asset" in content else None)
    if not isinstance(entries, dict):
        raise DataError(f"{file}: not VoTT: assets (version 1: frames) must be an object with an entry for each image")
    assets = []
    last = 0
    for key, entry in entries.items():
        with collector.report_errors(file, key or "asset"):
            if version == 2 and _is_no_image(entry, collector, unvisited):
                continue
            regions = list_in({"regions": entry} if version == 1 else entry, "regions")
            asset = {"name": key} if version == 1 else entry["asset"]
            numbered = list(enumerate(regions, start=last + 1))
            assets.append(_Asset(file, text_in(asset, "name"), _path(asset), _size_hw(asset), numbered, version))
            last += len(regions)
    return assets


def _is_no_image(entry: Any, collector: Collector, unvisited: list[str]) -> bool:
    """Whether an asset of version 2 is a video, whose frames are assets of their own, or an image not annotated yet.

    Raises:
        DataError: it is no asset.
    """
    asset = entry.get("asset") if isinstance(entry, dict) else None
    if not isinstance(asset, dict):
        raise DataError("an object with asset and regions is expected")
    if entry.get("regions") != []:
        return False
    if asset.get("type") == _VIDEO:
        collector.leave_out("video")
    elif asset.get("state") == _NOT_VISITED:
        unvisited.append(str(asset.get("name")))
    else:
        return False
    return True


def _size_hw(asset: dict[str, Any]) -> tuple[int, int]:
    """Height and width as an asset states them; 0 where it does not."""
    size = asset.get("size")
    sides = size if isinstance(size, dict) else {}
    return side_of_image(sides.get("height")), side_of_image(sides.get("width"))


def _path(asset: dict[str, Any]) -> str:
    """The path of an image on the machine where it was annotated; its name where that is no path of a file.

    Raises:
        DataError: it has no name.
    """
    path = asset.get("path")
    is_file = isinstance(path, str) and path.startswith("file:") and "#t=" not in path  # the frame of a video
    return text_in(asset, "path" if is_file else "name")


def _add_regions(asset: _Asset, image: CollectedImage, collector: Collector) -> None:
    add = _add_rectangle if asset.version == 1 else _add_region
    for number, region in asset.regions:
        with collector.report_errors(asset.file, f"region {number} ({asset.name})", number, image=image.path):
            add(region, image, number, collector)


def _add_rectangle(region: Any, image: CollectedImage, number: int, collector: Collector) -> None:
    """Add the box of a region of version 1, which is in pixels of the size at which the image was displayed.

    Raises:
        DataError: it has no corners or no tag.
    """
    tags = _tags(region)
    x1, y1, x2, y2 = numbers_in(region if "x1" in region else region.get("box"), _CORNERS)
    if image.size_hw is None:
        return  # the image cannot be read, which is a finding already
    height, width = image.size_hw
    displayed = ("width", "height")
    shown_width, shown_height = numbers_in(region, displayed) if region.keys() & set(displayed) else (width, height)
    if not (0 < shown_width < math.inf and 0 < shown_height < math.inf):
        raise DataError(f"width and height of the displayed image must be positive, not {shown_width}, {shown_height}")
    x_scale, y_scale = width / shown_width, height / shown_height
    for tag in tags:
        collector.add(image, (x1 * x_scale, y1 * y_scale, x2 * x_scale, y2 * y_scale), tag, number)


def _add_region(region: Any, image: CollectedImage, number: int, collector: Collector) -> None:
    """Add the box of a region of version 2.

    Raises:
        DataError: it has no box, no tag, or a type that VoTT does not have.
    """
    shape = text_in(region, "type").upper()
    if shape in ("POINT", "POLYLINE"):
        collector.leave_out(shape.lower())
        return
    tags = _tags(region)
    for tag in tags:
        if shape == "POLYGON":
            points = [numbers_in(point, ("x", "y")) for point in list_in(region, "points")]
            if len(points) < 3:
                raise DataError(f"a polygon needs three points, not {len(points)}")
            collector.add_outline(image, points, tag, number)
        elif shape in ("RECTANGLE", "SQUARE"):
            left, top, width, height = numbers_in(region.get("boundingBox"), ("left", "top", "width", "height"))
            collector.add(image, (left, top, left + width, top + height), tag, number)
        else:
            raise DataError(f"there is no type {shape!r}, but RECTANGLE, SQUARE, POLYGON, POLYLINE and POINT")


def _tags(region: Any) -> list[str]:
    """The classes of a region.

    Raises:
        DataError: it has none.
    """
    if not isinstance(region, dict):
        raise DataError(f"an object is expected, not {shortened(region)}")
    tags = [text_in({"tag": tag}, "tag") for tag in list_in(region, "tags")]
    if not tags:
        raise DataError("it has no tag, so the class is unknown")
    return list(dict.fromkeys(tags))
