"""Which annotations an image has: those of one entry of one file, though names of two may lead to the same image."""

from pathlib import Path

from fasterrcnn.data.formats.base import CollectedImage, Collector
from fasterrcnn.images import image_files


class ImageClaims:
    """Adds images to a collector, each for one name in one annotation file; other claims become findings."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._first: dict[tuple[Path, str], tuple[Path, str]] = {}  # file and name by image and split

    def image(
        self, path: Path, split: str, file: Path, name: str, stated_hw: tuple[int, int] = (0, 0)
    ) -> CollectedImage | None:
        """The image that a file calls by a name; None, and a finding, if it has annotations of another one.

        Args:
            path: the image.
            split: the split that it is of.
            file: the annotation file.
            name: what this calls the image.
            stated_hw: height and width as it states them; 0 is unknown.
        """
        is_new = (path, split) not in self._first
        first_file, first_name = self._first.setdefault((path, split), (file, name))
        if first_file != file:
            what = f"{path.name} is annotated in {first_file} already: left out"
            self._collector.problem("unlisted-annotations", file, what, image=path)
            return None
        if first_name != name:
            what = f"{first_name} and {name} could both be {path}; the first counts"
            self._collector.problem("ambiguous-image", file, what, image=path)
            return None
        if not is_new:
            what = f"{name} is listed several times; its boxes are put together"
            self._collector.problem("same-image", file, what, image=path)
        return self._collector.image(path, split, file, stated_hw=stated_hw)

    def report_unlisted(self) -> None:
        """Note the images that no annotation file names, in the folders of those that are named."""
        listed = {path for path, _ in self._first}
        listed |= {finding.image for finding in self._collector.findings if finding.image is not None}
        present = {path for folder in {path.parent for path, _ in self._first} for path in image_files(folder)}
        for path in sorted(present - listed):
            self._collector.problem("unlisted-image", path, "no annotation file names it", image=path)
