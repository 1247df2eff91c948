import math
import shutil

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.errors import UsageError
from fasterrcnn.reporting.training_curves import best_epoch, make_figure, write_curves

LOSSES = ("objectness", "rpn_boxes", "classes", "boxes", "total")


def row(epoch: int, *, val: bool = True, **more: float) -> dict[str, float]:
    losses = {name: (number + 1) / epoch for number, name in enumerate(LOSSES)}
    val_losses = {f"val_{name}": value + 10 for name, value in losses.items()} if val else {}
    return {"epoch": epoch, "learning_rate": 0.1 * epoch, "seconds": 9.0, **losses, **val_losses, **more}


def curves_of(figure) -> list[dict[str, list[tuple[float, float]]]]:
    """Points of every line of each panel, by label; lines without one are numbered by matplotlib."""
    return [
        {line.get_label(): [tuple(point) for point in line.get_xydata().tolist()] for line in axes.lines}
        for axes in figure.axes
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    file = tmp_path_factory.mktemp("curves") / "new" / "curves.png"
    write_curves([row(1, ap=0.1, ap50=0.3, ap75=0.05), row(2, ap=0.2, ap50=0.4, ap75=0.1)], file)
    return file


def test_write_curves__an_image_that_can_be_read(written):
    with Image.open(written) as image:
        assert image.format == "PNG"
        assert min(image.size) >= 600
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    assert [path.name for path in written.parent.iterdir()] == ["curves.png"]  # nothing unfinished is left


def test_write_curves__replaces_the_last_one(written, tmp_path):
    file = tmp_path / "curves.png"
    shutil.copy(written, file)
    write_curves([row(1)], file)
    assert file.read_bytes() != written.read_bytes()


def test_write_curves__no_rows(tmp_path):
    with pytest.raises(UsageError, match=r"curves\.png: no epochs to draw; run at least one"):
        write_curves([], tmp_path / "curves.png")


def test_make_figure__training_and_validation():
    total, parts, _, rate = curves_of(make_figure([row(1), row(2)]))
    assert total == {"training": [(1, 5), (2, 2.5)], "validation": [(1, 15), (2, 12.5)]}
    assert list(parts.values()) == [
        [(1, start + shift), (2, start / 2 + shift)] for start in (1, 2, 3, 4) for shift in (0, 10)
    ]
    assert list(rate.values()) == [[(1, 0.1), (2, 0.2)]]


def test_make_figure__every_panel_is_labelled():
    for axes in make_figure([row(1, ap=0.1)]).axes:
        assert axes.get_title()
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel()


@pytest.mark.parametrize("rows", [[row(1, val=False)], [row(1, val=False), row(2, val=False)]])
def test_make_figure__without_validation(rows):
    figure = make_figure(rows)
    total, parts, precision, _ = curves_of(figure)
    assert list(total) == ["training"]
    assert len(parts) == 4
    assert precision == {}
    assert [text.get_text() for text in figure.axes[2].texts] == ["not measured"]


def test_make_figure__precision_of_some_epochs():
    rows = [row(1), row(2, ap=0.3, ap50=0.6), row(3, ap=math.nan), row(4, ap=0.2, ap50=0.5)]
    figure = make_figure(rows)
    precision = curves_of(figure)[2]
    assert precision["AP"] == [(2, 0.3), (4, 0.2)]
    assert precision["AP50"] == [(2, 0.6), (4, 0.5)]
    assert "AP75" not in precision
    assert precision["best epoch"] == [(2, 0.3)]
    assert figure.axes[2].get_title() == "Validation: best AP 0.300, in epoch 2"


def test_make_figure__loss_that_is_not_finite():
    total = curves_of(make_figure([row(1), {**row(2), "total": math.inf}]))[0]
    assert total["training"] == [(1, 5)]


def test_make_figure__whole_epochs_on_the_axis():
    for rows in ([row(1)], [row(1), row(2)], [row(epoch) for epoch in range(1, 100)]):
        for axes in make_figure(rows).axes:
            ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
            assert ticks
            assert all(tick == round(tick) for tick in ticks)


@pytest.mark.parametrize(
    ("precisions", "best"),
    [([], None), ([math.nan], None), ([0.0], 1), ([0.1, 0.3, 0.3, 0.2], 2), ([math.nan, 0.1, math.nan], 2)],
)
def test_best_epoch(precisions, best):
    found = best_epoch([row(number, ap=ap) for number, ap in enumerate(precisions, start=1)])
    assert (found and found["epoch"]) == best
