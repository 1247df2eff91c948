"""Tasks of Label Studio: which annotation of a task counts, and which image each of its results belongs to."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fasterrcnn.data.formats.values import shortened
from fasterrcnn.errors import DataError
from fasterrcnn.images import EXTENSIONS

_IMAGE = re.compile(rf"({'|'.join(map(re.escape, sorted(EXTENSIONS)))})($|[?&#])", re.IGNORECASE)

GEOMETRY = ("x", "y", "width", "height", "rotation", "radiusX", "radiusY", "points")
"""Keys of the numbers of a shape."""

LabelResult = dict[str, Any]
"""What one control of the labels holds: the shape of a region, its label or both; or a choice for the whole task."""

Problem = Callable[[int, str], None]
"""Notes what cannot be used, by the number of the task."""


@dataclass(frozen=True)
class LabelTask:
    """A task of a project.

    Attributes:
        number: its id; its position in the file where it has none.
        data: what is shown, the names of the images among it.
        annotations: one for each annotator.
        predictions: how many predictions of models it has.
    """

    number: int
    data: Mapping[str, Any]
    annotations: list[Any] = field(default_factory=list)
    predictions: int = 0


@dataclass(frozen=True)
class TaskImage:
    """An image of an annotated task, and the results about it with their positions in the annotation, from 1."""

    task: int
    name: str
    results: list[tuple[int, LabelResult]] = field(default_factory=list)


def read_tasks(rows: object, problem: Problem) -> list[LabelTask]:
    """The tasks of a JSON or JSON-MIN export, or of a file that a target storage keeps for each annotation."""
    tasks: list[LabelTask] = []
    short: dict[int, LabelTask] = {}  # JSON-MIN has a row for each annotation
    for position, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
        if not isinstance(row, dict):
            problem(position, f"an object is expected, not {shortened(row)}")
            continue
        owner = row.get("task")
        content = owner | {"annotations": [row]} if isinstance(owner, dict) and "result" in row else row
        given = content.get("id")
        number = given if type(given) is int and 0 <= given < 2**63 else position
        if content.keys().isdisjoint(("data", "annotations", "completions")):
            if number not in short or given != number:
                short[number] = LabelTask(number, content)
                tasks.append(short[number])
            short[number].annotations.append(_short_annotation(content))
            continue
        try:
            tasks.append(_to_task(number, content))
        except DataError as error:
            problem(number, str(error))
    return tasks


def _to_task(number: int, content: Mapping[str, Any]) -> LabelTask:
    data, predictions = content.get("data"), content.get("predictions")
    annotations = content.get("annotations", content.get("completions"))  # the name before version 1.0
    if not isinstance(data, dict):
        raise DataError(f"its data must be an object, not {shortened(data)}")
    if not isinstance(annotations, list | None):
        raise DataError(f"its annotations must be a list, not {shortened(annotations)}")
    return LabelTask(number, data, annotations or [], len(predictions) if isinstance(predictions, list) else 0)


def _short_annotation(row: Mapping[str, Any]) -> dict[str, Any]:
    """The annotation in a row of JSON-MIN, whose results are lists by the names of their controls."""
    values = [value for column in row.values() for value in _values(column)]
    stated = ("original_width", "original_height", "image_rotation", "type", "item_index")
    results = [
        {"value": value} | {key: value[key] for key in stated if key in value} if isinstance(value, dict) else value
        for value in values
    ]
    return {"result": results, "updated_at": row.get("updated_at"), "created_at": row.get("created_at")}


def _values(column: object) -> list[Any]:
    """The results in a column of JSON-MIN; none where it holds something else, as names of images or of choices."""
    if isinstance(column, dict):
        return [column] if has_shape(column) else []
    is_other = not isinstance(column, list) or all(isinstance(value, str | int | float) for value in column)
    return [] if is_other or not isinstance(column, list) else column


def has_shape(value: object) -> bool:
    """Whether the value of a result holds numbers of a shape."""
    return isinstance(value, dict) and not value.keys().isdisjoint(GEOMETRY)


def is_region(result: LabelResult) -> bool:
    """Whether a result is about a region that has a box, not about a whole image or a text."""
    kind = result.get("type")
    has_kind = isinstance(kind, str) and kind.startswith(("rectangle", "polygon", "ellipse"))
    return has_kind or has_shape(result.get("value"))


def choose_results(task: LabelTask, problem: Problem, count: Callable[[str], None]) -> list[Any] | None:
    """The results of the annotation that counts; None where the task has none.

    Of several annotators' the one marked as ground truth counts, else the newest: all together would be every object
    several times.
    """
    usable: list[dict[str, Any]] = []
    broken = 0
    for position, annotation in enumerate(task.annotations, start=1):
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            result = annotation.get("result") if isinstance(annotation, dict) else annotation
            problem(task.number, f"annotation {position} must have a list of results, not {shortened(result)}")
            broken += 1
        elif annotation.get("was_cancelled"):
            count("cancelled annotation: left out")
        else:
            usable.append(annotation)
    for _ in range(task.predictions):
        count("prediction of a model: ignored, only annotations count")
    if not usable and not broken:
        count("task without annotation: left out, it is no image without objects")
    if len(usable) > 1:
        count("task with several annotations: that marked as ground truth counts, else the newest")
    ranked = sorted(usable, key=lambda annotation: (annotation.get("ground_truth") is True, _time(annotation)))
    return ranked[-1]["result"] if ranked else None


def _time(annotation: Mapping[str, Any]) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def images_of_tasks(
    results: Sequence[tuple[LabelTask, list[Any]]], problem: Problem, count: Callable[[str], None]
) -> Iterator[TaskImage]:
    """The images of annotated tasks, with the results that are about them.

    A result names the control that shows its image; an image without results is what that control shows in its task.
    """
    keys: dict[str, None] = {}
    of_tasks: list[tuple[LabelTask, dict[str, TaskImage], bool]] = []
    for task, values in results:
        images: dict[str, TaskImage] = {}
        complete = True
        for position, value in enumerate(values, start=1):
            try:
                if not isinstance(value, dict):
                    raise DataError(f"an object is expected, not {shortened(value)}")
                if value.get("type") == "relation":  # between two regions
                    continue
                key = _key(task.data, value)
                name = _name(task.data, key, value.get("item_index"))
            except DataError as error:
                if isinstance(value, dict) and not is_region(value):
                    count("choice or text that is about no image: left out")
                    continue
                problem(task.number, f"region {position}: {error}")
                complete = False
            else:
                keys[key] = None
                images.setdefault(name, TaskImage(task.number, name)).results.append((position, value))
        of_tasks.append((task, images, complete))
    for task, images, complete in of_tasks:
        try:
            names = _names(task.data, [key for key in keys if isinstance(task.data.get(key), str | list)])
        except DataError as error:
            names = []
            if complete and not images:
                problem(task.number, str(error))
        # An image that has lost a result is no image without objects.
        yield from images.values()
        yield from (TaskImage(task.number, name) for name in names if complete and name not in images)


def _is_image(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(item, str) and _IMAGE.search(item) is not None for item in values)


def _key(data: Mapping[str, Any], result: LabelResult) -> str:
    """Which of a task's data is the image of a result: that of its control, else the only image."""
    source, control = result.get("source"), result.get("to_name")
    for key in (source.removeprefix("$") if isinstance(source, str) else None, control):
        shown = data.get(key) if isinstance(key, str) else None
        if isinstance(key, str) and (_is_image(shown) or (is_region(result) and isinstance(shown, str | list))):
            return key
    if control is None and _is_image(
        data.get("image")
    ):  # JSON-MIN does not name the control: the name of the templates
        return "image"
    return _only_key(data, f"to_name {shortened(control)}")


def _only_key(data: Mapping[str, Any], why: str) -> str:
    keys = [key for key, value in data.items() if _is_image(value)]
    if not keys and isinstance(data.get("image"), str):  # an address without an extension
        return "image"
    if len(keys) != 1:
        candidates = f"could be any of {', '.join(keys)}" if keys else f"is none of {', '.join(data) or 'its data'}"
        raise DataError(f"its image {candidates:.200} ({why}); call the image's control as its data, or export as JSON")
    return keys[0]


def _name(data: Mapping[str, Any], key: str, index: object) -> str:
    """The name of an image; ``index`` chooses from a list of pages."""
    names = data[key] if isinstance(data[key], list) else [data[key]]
    index = 0 if index is None and len(names) == 1 else index
    if type(index) is not int or not 0 <= index < len(names) or not isinstance(names[index], str):
        raise DataError(f"its item_index must be a number of one of {len(names)} images, not {shortened(index)}")
    if names[index].startswith("data:"):
        raise DataError("its image is inside the file; save it beside the file, and put its name there")
    return str(names[index])


def _names(data: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """The names of all images of a task."""
    names = [
        name
        for key in keys or [_only_key(data, "it has no regions")]
        for name in (data[key] if isinstance(data[key], list) else [data[key]])
    ]
    return [name for name in dict.fromkeys(names) if isinstance(name, str) and not name.startswith("data:")]
