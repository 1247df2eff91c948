"""Every program of benchmarks/ runs with as little as possible (`--tiny`), and prints and writes what it promises.

Not one number of seconds is checked: programs compare results themselves, and fail where they are not equal.
"""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.e2e.small import small_config

from fasterrcnn.build import assemble
from fasterrcnn.demo.scenes import CLASSES, write_scenes
from fasterrcnn.weights import native

FOLDER = Path(__file__).parents[2] / "benchmarks"
PARTS = {"compare", "competitors"}
"""Modules that programs share."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes in `scenes`, and a small detector of their classes with random weights, `tiny.safetensors`."""
    folder = tmp_path_factory.mktemp("benchmarks")
    write_scenes(folder / "scenes", train=4, val=1, test=1, seed=0, size_hw=(96, 128))
    config = small_config(CLASSES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        native.save_checkpoint(folder / "tiny.safetensors", assemble(config), config)
    return folder


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Programs find each other, and neither their threads, seeds nor caches stay."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)


SIDES = "ours_seconds theirs_seconds ratio_median ratio_lowest ratio_highest rounds"
"""Numbers of a comparison in turn."""

SCORES = "ours_images_per_second ours_ap ours_ap50 ours_ap75 theirs_images_per_second theirs_ap theirs_ap50 theirs_ap75"
LOADING = "images ours_images_per_second theirs_images_per_second ours_cpu_ms_per_image theirs_cpu_ms_per_image"
OPENED = "seconds processor_seconds peak_mebibytes images boxes"
USED = "seconds peak_mib data_mib"
PROGRAMS: dict[str, tuple[str, dict[str, str]]] = {
    "anchors": ("{scenes}", {"efficientnet-lite0-fpn": "seconds fit held_out"}),
    "evaluation": ("", {"ours": USED, "pycocotools": USED, "whole report": USED}),
    "evaluation_report": ("", dict.fromkeys(("seconds", "processor_seconds", "peak_gb", "page_mb"), "")),
    "feature_cache": (
        "{scenes}",
        {
            "operations of efficientnet-lite0-fpn": "body rest most",
            "tiny": "plain_epoch_seconds cached_epoch_seconds fill_seconds ratio over_10_epochs",
        },
    ),
    "gpu_check": (
        "--device cpu",
        {
            "training bf16, batch of 1, torchvision": "ms host_ms images_per_second ratio",
            "predict resnet50-fpn float32": "ms host_ms images_per_second",
            "pieces RoIAlign bfloat16, gather-sum": "ms host_ms",
        },
    ),
    "gpu_memory": (
        "",
        {
            "timm:test_efficientnet, 57x96": "weights_mib "
            "float32_image_mib float32_step_mib float32_batch_4_gib float32_batch_8_gib "
            "bf16_image_mib bf16_step_mib bf16_batch_4_gib bf16_batch_8_gib"
        },
    ),
    "loader": ("{scenes}", {"scenes, efficientnet-lite0-fpn, 2 processes": f"{SIDES} {LOADING}"}),
    "matching_memory": ("", {"50 objects": "anchors positives added_mebibytes whole_matrix_mebibytes seconds"}),
    "open_data": ("", {"COCO, fasterrcnn": OPENED, "COCO, pycocotools": OPENED, "Pascal VOC, fasterrcnn": OPENED}),
    "overfit": (
        "{scenes} timm:test_efficientnet",
        {"timm:test_efficientnet": "first_loss last_loss fell_by ap50 ap seconds"},
    ),
    "predict": (
        "",
        {"resnet50-fpn, 640x480 image at 96x128": f"{SIDES} detections largest_box_deviation largest_score_deviation"},
    ),
    "precision": (
        "--only torch torch-bf16 --threads 1",
        dict.fromkeys(
            ("torch", "torch-bf16"),
            "seconds first_side_seconds ratio_median ratio_lowest ratio_highest rounds same_detections",
        ),
    ),
    "reading": ("", dict.fromkeys(("read COCO", "check"), "seconds processor_seconds peak_mebibytes images")),
    "roi_align": (
        "",
        {f"tiny: 20 regions, 8 channels, 2 images of 20x30: {name}": SIDES for name in ("forward", "backward")},
    ),
    "runtimes": ("--only torch torchvision", {}),
    "startup": (
        "{weights} {image}",
        dict.fromkeys(("predict_seconds", "imports_seconds", "difference_median", "difference_lowest"), ""),
    ),
    "stream memory": ("{weights} {images}", dict.fromkeys(("after_2_mib", "most_later_mib", "last_mib", "images"), "")),
    "stream workers": ("{weights} {images}", dict.fromkeys(("one_process", "workers", "ratio"), "")),
    "tiles": ("{weights} {images}", {}),
    "training": ("{scenes}", {"seed 0": f"{SCORES} ratio", "median": f"{SCORES} ratio"}),
    "training --precision=bf16": ("{scenes}", {"seed 0": f"{SCORES} ratio", "median": f"{SCORES} ratio"}),
    "training_memory": ("", {"6 steps, 4 shapes": "settled_mib end_mib growth"}),
    "training_step": (
        "",
        {
            "float32": "forward backward update seconds",
            "bf16": "forward backward update seconds ratio",
            "image of 64x96": "kept_mib",
        },
    ),
    "training_step_torchvision": ("", {"resnet50-fpn 1 x 64 x 64 float32": SIDES}),
}
"""Arguments of each program, and what it prints and writes: rows with the names of their numbers, or single numbers."""

FAST = ("anchors", "loader", "matching_memory", "roi_align", "stream memory", "tiles")


def test_programs__all_are_run():
    assert {name.partition(" ")[0] for name in PROGRAMS} == {file.stem for file in FOLDER.glob("*.py")} - PARTS


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in PROGRAMS])
def test_program__runs(name, place, tmp_path, capfd):
    files = {"scenes": place / "scenes", "weights": place / "tiny.safetensors"}
    files |= {"images": place / "scenes" / "JPEGImages"}
    files |= {"image": min(files["images"].iterdir())}
    output = tmp_path / "numbers.json"
    words = [word.format(**files) for word in f"{name} {PROGRAMS[name][0]}".split()]
    importlib.import_module(words[0]).main([*words[1:], "--tiny", "--output", str(output)])
    CHECKS.get(name, check_rows)(name, json.loads(output.read_text()), capfd.readouterr().out)


def check_rows(name: str, content: dict, printed: str) -> None:
    """No row and no number of it is missing, and none is "not a number"."""
    expected = PROGRAMS[name][1]
    rows = content.get("rows", content)
    assert rows.keys() >= expected.keys()
    for row, numbers in expected.items():
        assert row in printed
        assert not numbers or rows[row].keys() == set(numbers.split())
    assert "NaN" not in json.dumps(content)


def check_runtimes(_name: str, rows: list[dict], printed: str) -> None:
    """A table with a row for each side, which agree."""
    assert {row["runtime"] for row in rows} == {"torch", "torchvision"}
    for row in rows:
        assert row["failure"] is None
        assert row["median"] > 0
        assert row["unmatched"] == 0
    table = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")]
    assert [cells[0].strip() for cells in table] == ["", *(row["runtime"] for row in rows)]
    assert {len(cells) for cells in table} == {7}


def check_tiles(_name: str, numbers: dict, printed: str) -> None:
    """Settings, the sum and each mosaic."""
    assert numbers.keys() == {"settings", "total", "mosaics"}
    assert len(numbers["mosaics"]) == 1
    assert numbers["total"].keys() == numbers["mosaics"][0].keys() | {"share", "share_shifted", "share_whole"}
    assert "'expected': " in printed


CHECKS = {"runtimes": check_runtimes, "tiles": check_tiles}
