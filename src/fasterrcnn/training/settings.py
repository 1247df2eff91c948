"""The settings of a run, from wherever they are said: a recipe, a YAML file, arguments."""

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig, RecipeName, TrainConfig
from fasterrcnn.errors import UsageError

FILE = "config.yaml"

RECIPES: dict[RecipeName, dict[str, Any]] = {
    "quick": {"epochs": 8},
    "standard": {},
    "best": {"epochs": 24},
}
"""What the recipes set otherwise than `TrainConfig` does."""

_SIZES: dict[RecipeName, float] = {"best": 1.3}
"""Input size of a recipe, as a share of the preset's; the others keep that."""


def resolve(values: Mapping[str, Any], assignments: Sequence[str] = ()) -> TrainConfig:
    """The settings of a run: what is said, then what the recipe says, then the defaults.

    Args:
        values: fields of `TrainConfig`; ``model`` may be the name of a preset, or a mapping with ``preset`` and what is
            to be different from it.
        assignments: "a.b=value", in YAML, above all else: "epochs=3", "model.regions.box_loss=giou".

    Raises:
        UsageError: a value is of no use, or there is no such setting; the message has the closest one.
    """
    said: dict[str, Any] = {name: _plain(value) for name, value in values.items()}
    if isinstance(said.get("model"), str):
        said["model"] = {"preset": said["model"]}
    for assignment in assignments:
        _assign(said, assignment)
    recipe = said.get("recipe", "standard")
    if isinstance(recipe, str):
        said = {**RECIPES.get(recipe, {}), **said}  # type: ignore[call-overload]
    try:
        said["model"] = _model(said.get("model", {}))
        if isinstance(recipe, str) and recipe in _SIZES and not said.get("short_side") and not said.get("long_side"):
            said["short_side"] = round(said["model"].input.short_side * _SIZES[recipe])
        return TrainConfig(**said)
    except ValidationError as error:
        raise UsageError(_advice(error)) from None


def read(path: Path) -> dict[str, Any]:
    """Settings in a YAML file, as `resolve` takes them.

    Raises:
        UsageError: there is no such file, or it holds no settings, or one of no use; the message has the file's name.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{path}: holds no settings; lines like 'epochs: 12' are needed")
    try:
        resolve({"data": "", "model": "resnet50-fpn", **content})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return content


def dump(config: TrainConfig) -> str:
    """All settings as YAML that `read` understands."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def _assign(said: dict[str, Any], assignment: str) -> None:
    name, equals, text = assignment.partition("=")
    if not equals or not all(name.split(".")):
        raise UsageError(f"{assignment!r}: give name=value, for example epochs=12 or model.regions.box_loss=giou")
    *path, last = name.split(".")
    place = said
    for part in path:
        inner = place.get(part)
        place[part] = dict(inner) if isinstance(inner, Mapping) else {}
        place = place[part]
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        place[last] = text
    if isinstance(place[last], str):  # YAML takes 1e-4 for a word
        with suppress(ValueError):
            place[last] = float(text)


def _model(said: Any) -> ModelConfig:
    """The preset with what is said otherwise."""
    if not isinstance(said, Mapping) or not isinstance(said.get("preset"), str):
        raise UsageError(f"model: name a preset ({', '.join(presets.names())} or timm:<name>)")
    try:
        return ModelConfig.model_validate(_merged(presets.get(said["preset"]).model_dump(), said))
    except ValidationError as error:
        raise UsageError(_advice(error, ModelConfig, "model.")) from None


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _advice(error: ValidationError, model: type[BaseModel] = TrainConfig, prefix: str = "") -> str:
    """One line about the first mistake: where, what, and what was perhaps meant."""
    first = error.errors()[0]
    name = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error" and not first["loc"]:  # about several settings; it names them
        return str(first["ctx"]["error"])
    if first["type"] != "extra_forbidden":
        return f"{name}: {first['msg']} (given: {first['input']!r})"
    for part in first["loc"][:-1]:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else model
    unknown = str(first["loc"][-1])
    close = difflib.get_close_matches(unknown, model.model_fields, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(model.model_fields)}"
    return f"there is no setting {name!r}: {hint}"
