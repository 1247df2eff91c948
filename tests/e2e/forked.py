"""Processes for tests that kill, stop and watch them.

They are forked from a server that has imported torch and the library once: starting Python anew takes seconds of
processor time, which is not what these tests are about.
"""

import fcntl
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MAX_SECONDS = 900
"""When a process that hangs is killed, so that its test fails and the others go on. No test needs a tenth of it."""

PIPE_BYTES = 4096
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "fasterrcnn.cli.main",
        "fasterrcnn.cli.predict",
        "fasterrcnn.evaluation.evaluate",
        "fasterrcnn.inference.detector",
        "fasterrcnn.inference.predict_job.job",
        "fasterrcnn.training.fit",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "timm",
        "torchvision",
    ]
)


class Forked:
    """A running call of a function, whose output is read through a pipe that holds few lines.

    Args:
        work: a function of a module, which is called with the arguments.
        arguments: they can be pickled.
        cwd: working directory.
        environment: variables that are set in the process.
    """

    def __init__(
        self, work: Callable[..., None], *arguments: Any, cwd: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        reader, writer = CONTEXT.Pipe(duplex=False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux
            fcntl.fcntl(reader.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        handle, errors = tempfile.mkstemp()
        os.close(handle)
        self._errors = Path(errors)
        self.process = CONTEXT.Process(
            target=_enter, args=(work, arguments, writer, errors, str(cwd), {**(environment or {})})
        )
        self.process.start()
        writer.close()
        self._reader = reader
        self.stdout = os.fdopen(os.dup(reader.fileno()), "rb", buffering=0)
        self._watchdog = threading.Timer(MAX_SECONDS, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def send_signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.process.kill()
        self.finish()

    def finish(self) -> tuple[int, str, str]:
        """The exit code, the rest of its output, and its errors, when it has ended."""
        output = self.stdout.read()
        self.process.join()
        self._watchdog.cancel()
        self.stdout.close()
        self._reader.close()
        errors = self._errors.read_text()
        self._errors.unlink()
        assert self.process.exitcode is not None
        return self.process.exitcode, output.decode(), errors


def run_command(*arguments: object, cwd: Path, environment: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line."""
    return start_command(*arguments, cwd=cwd, environment=environment).finish()


def start_command(*arguments: object, cwd: Path, environment: Mapping[str, str] | None = None) -> Forked:
    """The command line, running."""
    return Forked(command_line, *map(str, arguments), cwd=cwd, environment=environment)


def command_line(*arguments: str) -> None:
    from fasterrcnn.cli.main import main

    sys.argv = ["fasterrcnn", *arguments]
    main(list(arguments))


def _enter(
    work: Callable[..., None],
    arguments: tuple[Any, ...],
    writer: Connection,
    errors: str,
    cwd: str,
    environment: Mapping[str, str],
) -> None:
    """What happens in the new process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    os.chdir(cwd)
    os.environ.update(environment)
    handle = os.open(errors, os.O_WRONLY)
    for stream, target in ((1, writer.fileno()), (2, handle)):
        sys.stdout.flush()
        os.dup2(target, stream)
    writer.close()
    os.close(handle)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    import torch

    torch.set_num_threads(1)
    work(*arguments)
