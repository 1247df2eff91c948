"""A whole prediction job: all sources, all outputs, one event for each thing that is done or cannot be done."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fasterrcnn.errors import ImageError
from fasterrcnn.inference.batches import prefetch
from fasterrcnn.inference.detector import Detector
from fasterrcnn.inference.options import Options
from fasterrcnn.inference.predict_job.journal import Entry, Journal
from fasterrcnn.inference.predict_job.tasks import Task
from fasterrcnn.inference.predict_job.workers import map_in_processes
from fasterrcnn.inference.predict_job.writers import Saver, Stopwatch, write_coco, write_csv
from fasterrcnn.inference.video import atomic_video, frame_rate


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        task: what it happened to.
        entry: what was recorded of an image, a frame or the end of a video.
        error: what could not be read or written.
        text: one line for people.
    """

    task: Task
    entry: Entry | None = None
    error: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Job:
    """A detector with all that is said about its use; can be sent to another process.

    Attributes:
        detector: finds.
        options: of each call.
        saver: writes what belongs to one image.
    """

    detector: Detector
    options: Options
    saver: Saver

    def __call__(self, tasks: Sequence[Task]) -> list[Event]:
        """Look at a few images; what a worker process does."""
        return list(self.look_at(tasks))

    def run(
        self,
        tasks: Sequence[Task],
        journal: Journal,
        *,
        workers: int = 1,
        threads: int | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> Generator[Event, None, None]:
        """Look at everything, images first, then videos, which take one process; then write the tables.

        Whoever stops early, by closing the iterator or by Ctrl-C, gets the tables of what is done.

        Args:
            tasks: what to look at.
            journal: the open record.
            workers: processes for images.
            threads: of each of them; see `map_in_processes`.
            prepare: see `map_in_processes`.
        """
        images = [task for task in tasks if not task.is_video]
        size = self.options.get("batch_size") or 1
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        try:
            if workers > 1:
                results = map_in_processes(self, parts, workers=workers, threads=threads, prepare=prepare)
                with closing(results):
                    for events in results:
                        yield from _recorded(events, journal)
            else:
                with closing(self.look_at(images)) as one_by_one:
                    yield from _recorded(one_by_one, journal)
            for task in tasks:
                if task.is_video:
                    with closing(self.watch(task, journal)) as frames:
                        yield from frames
        finally:
            self._write_tables(journal)

    def look_at(self, tasks: Sequence[Task]) -> Generator[Event, None, None]:
        """Images one after the other: while one is drawn and written, the network has the next."""
        watch = Stopwatch()
        files = [task.source for task in tasks if isinstance(task.source, Path)]
        outcomes = self.detector.outcomes(files, **self.options)
        with closing(outcomes), closing(prefetch(outcomes)) as coming:
            for task, found in zip(tasks, coming, strict=True):
                try:
                    if isinstance(found, ImageError):
                        raise found
                    entry = self.saver.image(task, found)
                except ImageError as error:
                    yield Event(task, error=str(error))
                else:
                    yield Event(task, entry, text=f"{found} {watch.lap():.2f} s")

    def watch(self, task: Task, journal: Journal) -> Generator[Event, None, None]:
        """The frames of a video or camera; they are recorded here, so that their end is recorded however it comes."""
        wanted = "images" in self.saver.kinds
        target = self.saver.output / f"{task.stem}.mp4"
        camera = isinstance(task.source, int)
        part = target if camera else target.with_stem(f"{task.stem}-part")
        rate = 25.0 if isinstance(task.source, int) else frame_rate(task.source)
        watch, frames, objects = Stopwatch(), 0, 0
        outcomes = self.detector.outcomes(task.source, **self.options)
        try:
            with atomic_video(target, rate, part=part) as video, closing(prefetch(outcomes)) as coming:
                for found in coming:
                    if isinstance(found, ImageError):
                        yield Event(task, error=str(found))
                        continue
                    if wanted:
                        video.write(found.plot(), found.seconds or 0.0)
                    frames, objects = frames + 1, objects + len(found)
                    entry = self.saver.frame(task, found)
                    journal.add(entry)
                    yield Event(task, entry, text=str(found))
        except (KeyboardInterrupt, GeneratorExit):
            stopped = self.saver.end_of_video(task, part if wanted else None, frames, interrupted=not camera)
            journal.add(stopped)
            raise
        finally:
            outcomes.close()
        if frames:
            entry = self.saver.end_of_video(task, target if wanted else None, frames)
            journal.add(entry)
            yield Event(task, entry, text=f"{task.source}: {frames} frames, {objects} objects {watch.lap():.1f} s")

    def _write_tables(self, journal: Journal) -> None:
        if "coco" in self.saver.kinds:
            ids = self.detector.config.category_ids or range(1, len(self.detector.classes) + 1)
            write_coco(journal.entries(), self.saver.output / "results.json", ids)
        if "csv" in self.saver.kinds:
            write_csv(journal.entries(), self.saver.output / "detections.csv")


def _recorded(events: Iterable[Event], journal: Journal) -> Iterator[Event]:
    for event in events:
        if event.entry is not None:
            journal.add(event.entry)
        yield event
