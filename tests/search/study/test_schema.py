"""The schema that editors read."""

import json
import tomllib
from typing import Any

import jsonschema
import pytest

from search.study.schema import schema
from search.study.spec import SHIPPED


def test_the_shipped_schema_is_the_one_of_the_settings() -> None:
    shipped = json.loads((SHIPPED / "schema.json").read_text(encoding="utf-8"))
    assert shipped == schema(), "run: python -m search.study.schema"


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_studies_satisfy_the_schema(path: Any) -> None:
    jsonschema.validate(tomllib.loads(path.read_text(encoding="utf-8")), schema())


@pytest.mark.parametrize(
    "recipe",
    [
        {"stepps": 3},
        {"model": {"kind": "kbnet_s", "widht": 8}},
        {"optimizer": {"kind": "adamw", "lr": {"low": 1e-4, "hihg": 1e-3}}},
        {"loss": {"kind": "l3"}},
        {"loss": {"kind": "sum", "terms": {"a": {"wieght": 1.0, "loss": {"kind": "l1"}}}}},
    ],
)
def test_a_misspelt_setting_does_not(recipe: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x", "recipe": recipe}, schema())


def test_any_setting_of_a_recipe_may_be_open() -> None:
    weight = {"low": 0.1, "high": 1.0}
    features = {"kind": "perceptual", "layers": {"relu3_3": weight}}
    window = {"choices": [3, 7]}
    summed = {"kind": "sum", "terms": {"a": {"weight": weight, "loss": {"kind": "ssim", "window": window}}}}
    recipe = {
        "model": {"kind": "kbnet_s", "width": {"choices": [8, 16]}},
        "optimizer": {"kind": "adamw", "lr": {"low": 1e-4, "high": 1e-3, "log": True}},
        "loss": {"choices": {"l1": {"kind": "l1"}, "features": features, "sum": summed}},
    }
    jsonschema.validate({"name": "x", "recipe": recipe}, schema())


def luminance(network: dict[str, Any]) -> dict[str, Any]:
    return {"name": "x", "recipe": {"model": {"kind": "luminance", "model": network}}}


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "dncnn", "width": {"choices": [8, 16]}},
        {"choices": {"small": {"kind": "dncnn", "width": {"low": 4, "high": 8}}}},
    ],
)
def test_settings_of_a_model_in_a_model_may_be_open(network: dict[str, Any]) -> None:
    jsonschema.validate(luminance(network), schema())


@pytest.mark.parametrize(
    "network", [{"kind": "dncnn", "widht": 8}, {"kind": "luminance"}, {"kind": "classical"}]
)
def test_a_misspelt_setting_or_another_kind_of_model_in_a_model_does_not(network: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(luminance(network), schema())
