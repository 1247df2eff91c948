"""The settings of a run, from a recipe, a YAML file, arguments and assignments."""

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from fasterrcnn import presets
from fasterrcnn.config import EARLIER_BODY, ModelConfig, RecipeName, TrainConfig
from fasterrcnn.errors import UsageError

SETTINGS_FILE = "config.yaml"

TRAINING_RECIPES: dict[RecipeName, dict[str, Any]] = {
    "quick": {"epochs": 8},
    "standard": {},
    "best": {"epochs": 24},
}
"""Settings of each recipe that differ from the defaults of `TrainConfig`."""

_INPUT_SCALES: dict[RecipeName, float] = {"best": 1.3}
"""Input size of a recipe, as a factor of the preset's."""


def resolve(values: Mapping[str, Any], assignments: Sequence[str] = ()) -> TrainConfig:
    """The settings of a run: the given values, then those of the recipe, then the defaults.

    Args:
        values: fields of `TrainConfig`; ``model`` may be the name of a preset, or a mapping with ``preset`` and the
            fields that differ from it.
        assignments: "a.b=value", in YAML, which override the values: "epochs=3", "model.regions.box_loss=giou".

    Raises:
        UsageError: a value is invalid, or a setting does not exist; the message suggests the closest name.
    """
    given: dict[str, Any] = {name: _plain(value) for name, value in values.items()}
    if isinstance(given.get("model"), str):
        given["model"] = {"preset": given["model"]}
    for assignment in assignments:
        _assign(given, assignment)
    recipe = given.get("recipe", "standard")
    if isinstance(recipe, str):
        given = {**TRAINING_RECIPES.get(recipe, {}), **given}  # type: ignore[call-overload]
    try:
        given["model"] = _model_config(given.get("model", {}))
        has_size = given.get("short_side") or given.get("long_side")
        if isinstance(recipe, str) and recipe in _INPUT_SCALES and not has_size:
            given["short_side"] = round(given["model"].input.short_side * _INPUT_SCALES[recipe])
        return TrainConfig(**given)
    except ValidationError as error:
        raise UsageError(_explained(error)) from None


def read_settings(path: Path) -> dict[str, Any]:
    """Settings in a YAML file, as `resolve` takes them.

    Raises:
        UsageError: the file does not exist, holds no settings, or an invalid one; the message has the file's name.
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
    """All settings as YAML for `read_settings`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def _assign(given: dict[str, Any], assignment: str) -> None:
    name, equals, text = assignment.partition("=")
    if not equals or not all(name.split(".")):
        raise UsageError(f"{assignment!r}: give name=value, for example epochs=12 or model.regions.box_loss=giou")
    *path, last = name.split(".")
    place = given
    for part in path:
        inner = place.get(part)
        place[part] = dict(inner) if isinstance(inner, Mapping) else {}
        place = place[part]
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        place[last] = text
    if isinstance(place[last], str):  # YAML reads 1e-4 as a string
        with suppress(ValueError):
            place[last] = float(text)


def _model_config(given: Any) -> ModelConfig:
    """The preset with the given fields in place of its own."""
    if not isinstance(given, Mapping) or not isinstance(given.get("preset"), str):
        raise UsageError(f"model: name a preset ({', '.join(presets.names())} or timm:<name>)")
    try:
        return ModelConfig.model_validate(_merged(presets.get(given["preset"]).model_dump(), given))
    except ValidationError as error:
        raise UsageError(_explained(error, ModelConfig, "model.")) from None


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in changes.items():
        key = "body" if name == EARLIER_BODY else name
        old = base.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _explained(error: ValidationError, model: type[BaseModel] = TrainConfig, prefix: str = "") -> str:
    """One line about the first error: which setting, what is wrong, and for unknown names the closest one."""
    first = error.errors()[0]
    name = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error" and not first["loc"]:  # about several settings; its message names them
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
