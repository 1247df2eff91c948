"""The ``fasterrcnn`` command: runs the sub-command, and turns errors into one line and exit code 2."""

import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from textwrap import wrap

from cyclopts import App, CycloptsError, Parameter

from fasterrcnn.cli import options
from fasterrcnn.data.findings import MAX_LINE, MAX_LINES
from fasterrcnn.errors import FasterRCNNError

app = App(
    name="fasterrcnn",
    help="Faster R-CNN: fine-tune it on your boxes, evaluate it, predict with it.",
    version=lambda: version("fasterrcnn"),
    help_epilogue="--offline, with any command: download nothing; weights that are not in the cache are an error.",
    help_format="plaintext",
    default_parameter=Parameter(consume_multiple=True, negative_iterable=""),  # --classes cat dog
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
_OFFLINE = "--offline"
_BROKEN_PIPE = 128 + 13
_groups = {
    "": app,
    "data": App(name="data", help="Check, count, show, split and convert data sets."),
    "weights": App(
        name="weights", help="Files of weights: this library's, torchvision's, Detectron2's, MMDetection's."
    ),
}
_COMMANDS = {
    "demo": "Draw road scenes, fine-tune a detector on them, evaluate it, show its detections.",
    "train": "Fine-tune a detector on annotated images.",
    "evaluate": "Evaluate a detector, or the detections of any model: COCO's numbers, errors, diagnoses.",
    "predict": "Find objects in images.",
    "explain": "Show each step of a detector on one image, and why it missed objects.",
    "benchmark": "Measure all runtimes on this machine, and name the fastest.",
    "quantize": "Write a checkpoint that also runs with 8-bit integers.",
    "data check": "Find problems of a data set, and fix a copy of it.",
    "data stats": "Count and measure the objects, at the size the network sees them.",
    "data anchors": "Fit anchors to the objects.",
    "data show": "Draw the training images as the network gets them.",
    "data split": "Divide a data set into train, val and test.",
    "data convert": "Write a data set in another format.",
    "weights convert": "Write a detector as a file of another kind.",
}
for _command, _help in _COMMANDS.items():
    _group, _, _name = _command.rpartition(" ")
    _module = "weights" if _name == "quantize" else _group or _name
    _groups[_group].command(f"fasterrcnn.cli.{_module}:{_name}", help=_help)
app.command(_groups["data"])
app.command(_groups["weights"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 done except for some images, 2 an error, 130 interrupted.

    141 as after the signal SIGPIPE, in silence: who read the output has ended.
    """
    options.configure_process()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if _OFFLINE in given:
        given = [argument for argument in given if argument != _OFFLINE]
        os.environ |= {"FASTERRCNN_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}  # the second is that of timm's downloads
    try:
        code = app(given, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        _fail(f"{_in_words(' '.join(str(error).split()))} (see fasterrcnn --help)")
    except FasterRCNNError as error:
        _fail(str(error))
    except BrokenPipeError:  # its reader has ended, as "head" does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still waiting goes nowhere
        sys.exit(_BROKEN_PIPE)
    except OSError as error:
        _fail(f"{error.filename or 'file system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


_TYPES = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "yes or no"}


def _in_words(message: str) -> str:
    """An error of the command line, with words in place of Python's types."""
    parts = re.fullmatch(r"(.* unable to convert \".*\" into )([^|]+(?:\|[^|]+)*)\.", message)
    if parts is None:
        return message
    types = [
        _TYPES.get(name, re.sub(r"Literal\[(.*)\]", r"\1", name)) for name in parts[2].split("|") if name != "None"
    ]
    return f"{parts[1]}{' or '.join(types)}."


def _fail(message: str) -> None:
    """Print an error and exit; long lines are wrapped, and of many lines those in the middle are left out."""
    wrapped = [
        wrap(line, MAX_LINE - len("error: "), subsequent_indent="    ", break_on_hyphens=False)
        for line in message.splitlines()
    ]
    lines = list(chain(*wrapped))
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 2], "    ...", lines[-1]]
    print("error:", "\n".join(lines), file=sys.stderr)
    sys.exit(2)
