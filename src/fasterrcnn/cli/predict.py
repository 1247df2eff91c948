"""``fasterrcnn predict``: annotated images and videos, and the detections as files of several formats."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from cyclopts import Parameter

from fasterrcnn.cli.options import OUTPUT, Json, LoadOptions, Weights, configure_process, log, on_terminal
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.options import PostprocessOptions, PredictOptions
from fasterrcnn.inference.predict_job.journal import SaveKind

if TYPE_CHECKING:
    from fasterrcnn.inference.predict_job.job import Event


def predict(
    weights: Weights,
    sources: Annotated[list[str], Parameter(help="Images, folders, globs, videos, or the number of a camera.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=OUTPUT, help="Folder for all files that are written.")],
    save: Annotated[
        Sequence[SaveKind],
        Parameter(
            help="Files to write: annotated images and videos, results.json of COCO, detections.csv, labels/ of YOLO, "
            "crops/ of the objects. detections.jsonl is always written.",
            show_default=" ".join,
        ),
    ] = ("images", "coco"),
    skip_existing: Annotated[bool, Parameter(help="Continue an earlier run in that folder.", negative="")] = False,
    workers: Annotated[int, Parameter(help="Processes that predict images; the threads are divided among them.")] = 1,
    threads: Annotated[int | None, Parameter(help="CPU threads of torch, in each process.")] = None,
    loading: LoadOptions = LoadOptions(),
    as_json: Json = False,
    postprocess: Annotated[PostprocessOptions | None, Parameter(name="*")] = None,
    **predict_options: Unpack[PredictOptions],
) -> int:
    """Find objects in images and videos: draw them, and write detections.jsonl and other files.

    An image that cannot be read is reported and left out; the exit code is then 1. Ctrl-C keeps all that is done.
    """
    from fasterrcnn.inference.predict_job.job import Job
    from fasterrcnn.inference.predict_job.journal import Journal
    from fasterrcnn.inference.predict_job.tasks import list_sources, name_tasks, notes_on
    from fasterrcnn.inference.predict_job.writers import Saver

    if workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}")
    detector = loading.load(weights, threads=threads)
    options: Any = {"score": 0.5, **predict_options, **(postprocess or {})}
    detector.stream([], **options)  # raises for bad options before anything is written
    files = list_sources(sources)
    name_tasks(files, output, {})  # raises for a bad output folder
    for note in notes_on(sources, files):
        log(f"note: {note}")
    saver = Saver(output, tuple(dict.fromkeys(save)))
    with Journal(output, saver.is_done if skip_existing else None) as journal:
        tasks = name_tasks(files, output, journal.stems)
        remaining = [task for task in tasks if str(task.source) not in journal.stems]
        if len(remaining) < len(tasks) and not as_json:
            print(f"{len(tasks) - len(remaining)} of {len(tasks)} are done already")
        job = Job(detector, options, saver)
        run = job.run(remaining, journal, workers=workers, threads=threads, prepare=configure_process)
        with closing(run) as events:
            done, failed = _report(events, len(remaining), as_json)
    if not as_json:
        print(_summary(done, saver.kinds, output))
    return 1 if failed else 0


def _report(events: "Iterator[Event]", total: int, as_json: bool) -> tuple[int, int]:
    """Print the events, with a bar on the terminal; how many sources are done, and how many not or not completely."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = as_json or not on_terminal()
    done, failed = 0, set()
    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as progress:
        bar = progress.add_task("predicting", total=total)
        for event in events:
            frame = event.entry is not None and "frame" in event.entry
            if event.error is not None:
                print(f"error: {event.error}", file=sys.stderr, flush=True)
                failed.add(event.task)
            elif as_json:
                print(json.dumps(event.entry), flush=True)
            elif not frame:
                print(event.text, flush=True)
            done += event.entry is not None and not frame
            progress.update(bar, advance=0 if frame else 1, description=event.text if frame else "predicting")
    return done, len(failed)


def _summary(done: int, kinds: tuple[SaveKind, ...], output: Path) -> str:
    files = {"coco": "results.json", "csv": "detections.csv", "yolo": "labels", "crops": "crops"}
    parts = [f"{done} image{'' if done == 1 else 's'}"] if "images" in kinds else []
    parts += [files[kind] for kind in kinds if kind in files] or ["detections.jsonl"]
    return f"wrote {' and '.join(', '.join(parts).rsplit(', ', 1))} to {output}"
