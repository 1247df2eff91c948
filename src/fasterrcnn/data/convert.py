"""Writing a data set in another format, in the layout that most tools expect."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats import FORMATS
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.files import atomic_folder, check_output


def write_data(data: AnnotatedData, folder: Path, to: str) -> list[str]:
    """Write a data set, images included, into a new folder.

    Boxes are written as they are, those without area or over the border too. The folder appears when all of it is
    written: after an error, or Ctrl-C, there is nothing. An image keeps its file name, unless another one has it
    already or not every system allows it. Splits without images are left out; so is, but in VOC, a "trainval" that
    holds the images of train and val. The docstring of each format in `fasterrcnn.data.formats` describes its layout.

    Args:
        data: what to write.
        folder: must not exist, or be empty.
        to: "coco", "voc" or "yolo".

    Returns:
        What the format has no place for, in sentences.

    Raises:
        UsageError: the folder is not empty, or there is no such format.
        DataError: a box has NaN or infinite coordinates, a split has a name that tools do not know, or an image is
            not there.
    """
    writable = [name for name, form in FORMATS.items() if form.can_write]
    if to not in writable:
        raise UsageError(f"no format {to!r} to write; there are: {', '.join(writable)}")
    check_output(folder)
    _check(data)
    splits: Mapping[str, Sequence[AnnotatedImage]] = {name: images for name, images in data.splits.items() if images}
    in_train_or_val = {id(image) for name in ("train", "val") for image in splits.get(name, ())}
    # Where splits are folders, "trainval" would be copies of train and val.
    if not FORMATS[to].splits_are_lists and all(id(image) in in_train_or_val for image in splits.get("trainval", ())):
        splits = {name: images for name, images in splits.items() if name != "trainval"}
    with atomic_folder(folder) as temporary:
        notes = FORMATS[to].write(data, splits, temporary)
    return FORMATS[to].losses(data) + notes


def _check(data: AnnotatedData) -> None:
    for name in data.splits:
        if name != NO_SPLIT and name not in SPLITS:
            allowed = ", ".join(dict.fromkeys(SPLITS.values()))
            raise DataError(f"{data.root}: tools know no split called {name!r}; name it one of {allowed}")
    if data.splits.get(NO_SPLIT) and len(data.splits) > 1:
        raise DataError(
            f"{data.root}: {data.splits[NO_SPLIT][0].path.name} and perhaps more are in no split, others are; "
            'put each into one, or make new ones with "fasterrcnn data split"'
        )
    for image in data.images:
        not_finite = np.flatnonzero(~np.isfinite(image.boxes).all(axis=1))
        if len(not_finite):
            finding = data.box_finding("not-finite", image, int(not_finite[0]), "is not finite")
            raise DataError(f'{finding}; nothing was written, "fasterrcnn data check --fix" leaves such boxes out')
