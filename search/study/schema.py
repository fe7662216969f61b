"""studies/schema.json from the config types, so that editors complete and check study files."""

import json
import sys
from pathlib import Path
from typing import Any

from search.study.space import Choices, Range
from search.study.spec import SHIPPED, StudySpec
from search.trial import TrialConfig

_OPEN = ("Range", "Choices")


def schema() -> dict[str, Any]:
    """JSON Schema of a study file. In a recipe every setting may also be a range or a pick."""
    study = StudySpec.model_json_schema(ref_template="#/$defs/{model}")
    trial = TrialConfig.model_json_schema(ref_template="#/$defs/{model}")
    definitions = trial.pop("$defs") | {"TrialConfig": trial}
    for definition in definitions.values():
        for name, setting in definition.get("properties", {}).items():
            if name not in ("kind", "data"):
                definition["properties"][name] = _openable(setting)
        # A tree that is still open may leave required settings to its branches.
        definition.pop("required", None)
    study["properties"]["recipe"] = {"$ref": "#/$defs/TrialConfig"}
    study["$defs"] = (
        study.get("$defs", {})
        | definitions
        | {
            "Range": Range.model_json_schema(),
            "Choices": Choices.model_json_schema(),
        }
    )
    study["properties"]["timeout"] = {
        "type": ["string", "number"],
        "description": "90s, 20m, 1h30m or seconds",
    }
    return study


def _openable(setting: dict[str, Any]) -> dict[str, Any]:
    """The same setting, or an open leaf in its place."""
    if isinstance(inside := setting.get("additionalProperties"), dict):  # a table of named settings
        setting = {**setting, "additionalProperties": _openable(inside)}
    described: dict[str, Any] = {
        key: setting[key] for key in ("description", "default", "title") if key in setting
    }
    return {**described, "anyOf": [setting, *({"$ref": f"#/$defs/{name}"} for name in _OPEN)]}


def main() -> int:
    """Write the file; run it after a change to the settings: `python -m search.study.schema`."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED / "schema.json"
    target.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
