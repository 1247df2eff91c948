"""A prediction job: all sources, all files that are written, and an event for each image, frame and error."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fasterrcnn.errors import ImageError
from fasterrcnn.inference.batches import default_batch_size, prefetch
from fasterrcnn.inference.detector import Detector
from fasterrcnn.inference.options import DetectorOptions
from fasterrcnn.inference.predict_job.journal import Entry, Journal
from fasterrcnn.inference.predict_job.tasks import Task
from fasterrcnn.inference.predict_job.workers import map_in_processes
from fasterrcnn.inference.predict_job.writers import Saver, write_coco, write_csv
from fasterrcnn.inference.video import atomic_video, frame_rate


@dataclass(frozen=True)
class Event:
    """An image, a frame or a video that is done, or an error."""

    task: Task  # the source
    entry: Entry | None = None  # its entry in the journal
    error: str | None = None  # why a source cannot be read or a file cannot be written
    text: str = ""  # one line for people


@dataclass(frozen=True)
class Job:
    """A detector with the options of its calls and the writer of its files; can be pickled."""

    detector: Detector  # detects
    options: DetectorOptions  # of each call of the detector
    saver: Saver  # writes the files of each image

    def __call__(self, tasks: Sequence[Task]) -> list[Event]:
        """Predict a few images; a worker process calls this."""
        return list(self.predict_images(tasks))

    def run(
        self,
        tasks: Sequence[Task],
        journal: Journal,
        *,
        workers: int = 1,
        threads: int | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> Generator[Event, None, None]:
        """Predict all images, then all videos, which take one process; then write the tables.

        The tables are also written when the iterator is closed early, or by Ctrl-C: they hold all that is done.

        The last three arguments are those of `map_in_processes`, for images.
        """
        images = [task for task in tasks if not task.is_video]
        size = self.options.get("batch_size") or default_batch_size(images, self.detector.device)
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        try:
            if workers > 1:
                results = map_in_processes(self, batches, workers=workers, threads=threads, prepare=prepare)
                with closing(results):
                    for batch in results:
                        yield from _recorded(batch, journal)
            else:
                with closing(self.predict_images(images)) as events:
                    yield from _recorded(events, journal)
            for task in tasks:
                if task.is_video:
                    with closing(self.predict_video(task, journal)) as events:
                        yield from events
        finally:
            self._write_tables(journal)

    def predict_images(self, tasks: Sequence[Task]) -> Generator[Event, None, None]:
        """Predict images one after the other; one is drawn and written while the network works on the next."""
        started = time.monotonic()
        files = [task.source for task in tasks if isinstance(task.source, Path)]
        outcomes = self.detector.outcomes(files, **self.options)
        with closing(outcomes), closing(prefetch(outcomes)) as prefetched:
            for task, outcome in zip(tasks, prefetched, strict=True):
                try:
                    if isinstance(outcome, ImageError):
                        raise outcome
                    entry = self.saver.save_image(task, outcome)
                except ImageError as error:
                    yield Event(task, error=str(error))
                    continue
                seconds, started = time.monotonic() - started, time.monotonic()
                yield Event(task, entry, text=f"{outcome} {seconds:.2f} s")

    def predict_video(self, task: Task, journal: Journal) -> Generator[Event, None, None]:
        """Predict the frames of a video or camera; its end is recorded here, an interruption included."""
        annotated = "images" in self.saver.kinds
        target = self.saver.output / f"{task.stem}.mp4"
        camera = isinstance(task.source, int)
        part = target if camera else target.with_stem(f"{task.stem}-part")
        rate = 25.0 if isinstance(task.source, int) else frame_rate(task.source)
        started, frames, objects = time.monotonic(), 0, 0
        outcomes = self.detector.outcomes(task.source, **self.options)
        try:
            with atomic_video(target, rate, part=part) as video, closing(prefetch(outcomes)) as prefetched:
                for outcome in prefetched:
                    if isinstance(outcome, ImageError):
                        yield Event(task, error=str(outcome))
                        continue
                    if annotated:
                        video.write(outcome.plot(), outcome.seconds or 0.0)
                    frames, objects = frames + 1, objects + len(outcome)
                    entry = self.saver.save_frame(task, outcome)
                    journal.add(entry)
                    yield Event(task, entry, text=str(outcome))
        except (KeyboardInterrupt, GeneratorExit):
            journal.add(self.saver.video_entry(task, part if annotated else None, frames, interrupted=not camera))
            raise
        finally:
            outcomes.close()
        if frames:
            entry = self.saver.video_entry(task, target if annotated else None, frames)
            journal.add(entry)
            seconds = time.monotonic() - started
            yield Event(task, entry, text=f"{task.source}: {frames} frames, {objects} objects {seconds:.1f} s")

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
