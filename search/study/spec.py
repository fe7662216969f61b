"""Reading and checking study files: studies/<name>.toml to a StudySpec, or to an error that names the fault."""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

import studies
from data.files import expand_home
from models import any_wider_or_deeper
from search.errors import UserError, closest
from search.scheduler import LadderConfig, Rules
from search.study.limits import LimitsConfig
from search.study.space import (
    KnownSuggester,
    Plain,
    RandomSuggester,
    SpaceError,
    corner_recipes,
    fill_leaves,
    leaf_combinations,
    open_leaves,
    with_replacements,
)
from search.text import has_control_signs, printable
from search.trial import WITH_FILES, TrialConfig

SHIPPED = Path(studies.__file__).parent
RANDOM_DRAWS = 200
MOST_COMBINATIONS = 3000
ANY_LENGTH = {"steps": 1}  # stands for the length that a study's time decides, where nothing depends on it
CONFIRM_SHARE = 0.5  # of the time before the last stretch, where finalists are trained again
LONGEST_NAME = 200
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: object) -> object:
    """Seconds from "90s", "20m", "1h30m" or a bare number of seconds. ValueError for anything else."""
    if not isinstance(text, str):
        return text
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'"{text}" is not a duration; write 90s, 20m, 1h30m or 2d')
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def check_name(name: str) -> str:
    """The name of a study, its signs composed (NFC). ValueError says in words what cannot be a name."""
    name = unicodedata.normalize("NFC", name)
    if not name.strip():
        raise ValueError("a name is needed, of at least one sign")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"{len(name)} signs are too many for a name; at most {LONGEST_NAME}")
    if has_control_signs(name):
        raise ValueError(f"{printable(name)!r} has a line end, a tab or another control sign; no name can")
    if name != name.strip():
        raise ValueError(f"{name!r} begins or ends with a space; a name does not")
    if name.startswith("-"):
        raise ValueError(f"{name!r} begins with a hyphen, as flags do; a name does not")
    if name.endswith(".toml"):
        raise ValueError(f"{name!r} ends in .toml, as study files do; a name does not")
    return name


def check_line(text: str) -> str:
    """A text of one line. ValueError for more, and for signs that steer a terminal."""
    if has_control_signs(text):
        raise ValueError(f"{printable(text)!r} has a line end, a tab or another control sign")
    return text


Line = Annotated[str, AfterValidator(check_line)]
Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]


class KnownRecipe(BaseModel):
    """A recipe known from elsewhere: values for open leaves by dotted path, or parts of the recipe replaced.

    A replaced part may be outside the search space: a recipe tried by hand is tried unchanged.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: Line = Field(min_length=1)
    recipe: dict[str, Any] = Field({}, description="parts of the recipe to replace, in its own shape")

    @property
    def values(self) -> dict[str, Plain]:
        return dict(self.model_extra or {})


class StudySpec(BaseModel):
    """The search space of a study, and the settings of its search."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, AfterValidator(check_name)] = Field(
        description="in any script; its folder under runs/ is called so too, where a folder can be"
    )
    description: Line = Field("", description="one line for `python -m search studies`")
    trials: int = Field(1000, ge=1, description="trials in the study")
    timeout: Duration = Field(600.0, description="time of one `run`, finale included: 90s, 20m, 1h30m")
    ladder: LadderConfig = LadderConfig()
    finale: float = Field(
        0.5, gt=0, lt=1, description="share of the time kept for the best trial to be trained to its end"
    )
    confirm_seeds: int = Field(
        0,
        ge=0,
        le=20,
        description="train the finalists again from so many new seeds before the best one goes on",
    )
    finalists: int = Field(3, ge=2, le=20, description="how many are trained again, where any are")
    trial_timeout: Duration | None = Field(
        None, description="longest time of one trial, the finale not counted: it ends with its last rung"
    )
    keep: int = Field(10, ge=1, description="weights of so many of the best trials stay on disk")
    seed: int = Field(0, ge=0, lt=2**32, description="of the sampler and of every trial")
    sampler: Literal["gp", "tpe", "random", "neighbours"] = Field(
        "gp",
        description="how recipes are drawn; gp: a Gaussian process over settings and rungs; neighbours: step by step "
        "uphill, for small grids",
    )
    inherit_weights: bool = Field(
        False,
        description="begin a trial from the weights of the best one so far with fewer channels or blocks",
    )
    limits: LimitsConfig = Field(LimitsConfig(), description="models over them are not trained")
    recipe: dict[str, Any] = Field(description="a trial config with open leaves")
    first: tuple[KnownRecipe, ...] = Field((), description="recipes tried before anything is sampled")

    @property
    def search_share(self) -> float:
        """Share of the time for new trials and for promotions."""
        if not self.ladder.rungs:
            return 1.0
        return (1 - self.finale) * (1 - CONFIRM_SHARE if self.confirm_seeds else 1.0)

    def rules(self) -> Rules:
        """The rules of the search, for the scheduler."""
        return Rules(
            ladder=self.ladder,
            trials=self.trials,
            timeout=self.timeout,
            search_share=self.search_share,
            finish_share=self.finale,
            keep=self.keep,
            confirm_seeds=self.confirm_seeds,
            finalists=self.finalists,
        )

    def with_changes(self, **changes: Any) -> Self:
        """A copy with other values, validated anew."""
        return type(self).model_validate({**self.model_dump(), **changes})

    def with_data(
        self, directory: Path, scan_dir: str | None, clean_dir: str | None, pair_by: str | None = None
    ) -> Self:
        """The same search on the pairs in `directory`."""
        data: dict[str, Any] = {"kind": "pairs", "dir": str(directory.resolve())}
        if scan_dir:
            data["scan_dir"] = scan_dir
        if clean_dir:
            data["clean_dir"] = clean_dir
        if pair_by:
            data["pair_by"] = pair_by
        return self.with_changes(recipe={**self.recipe, "data": data})


def load_spec(name: str) -> StudySpec:
    """The study of that name (shipped, or in ./studies) or in that .toml file, fully checked.

    Raises `UserError` with the file and the dotted path for anything that could go wrong later:
    unknown or misspelt settings, ranges whose ends cannot be built, known recipes outside the space.
    """
    path = find_study_file(name)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        spec = StudySpec.model_validate(table)
        check_spec(spec)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error, table, StudySpec)}") from None
    except SpaceError as error:
        raise UserError(f"{path}: {error}") from None
    return spec


def with_flags(spec: StudySpec, changes: Mapping[str, Any]) -> StudySpec:
    """`spec` with values from command-line flags; `UserError` names the flag that does not fit."""
    try:
        return spec.with_changes(**changes)
    except ValidationError as error:
        problem = error.errors()[0]
        message = problem["msg"].removeprefix("Value error, ")
        flag = str(problem["loc"][0]).replace("_", "-")
        raise UserError(f"--{flag}: {message} (found {problem['input']})") from None


def find_study_file(name: str) -> Path:
    """The file of a study given by name or by path. `UserError` lists the known studies."""
    if name.endswith(".toml"):
        file = expand_home(name)
        if not file.is_file():
            raise UserError(f"{name}: no such study file")
        return file
    for folder in (Path("studies"), SHIPPED):
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    known = sorted(path.stem for path in SHIPPED.glob("*.toml"))
    if Path(name).name != name:
        raise UserError(f"{name}: neither a shipped study ({', '.join(known)}) nor a .toml file")
    raise UserError(
        f"unknown study {name!r}{closest(name, known)} (shipped: {', '.join(known)}; or give a .toml file)"
    )


def shipped_specs() -> list[StudySpec]:
    """All studies that come with the program, by name."""
    return [load_spec(str(path)) for path in sorted(SHIPPED.glob("*.toml"))]


def check_spec(spec: StudySpec) -> None:
    """Build configs from all over the space; `SpaceError` with a dotted path for the first that cannot be."""
    scoring_settings = {key: spec.recipe[key] for key in ("data", "val_megapixels") if key in spec.recipe}
    if leaves := list(open_leaves(scoring_settings)):
        raise SpaceError(f"recipe.{leaves[0][0]}: cannot be open: all trials are scored on the same pairs")
    trees: list[Any] = corner_recipes(spec.recipe)
    if "model" in spec.recipe:
        base = trees[0]
        models = leaf_combinations(spec.recipe["model"], "model", MOST_COMBINATIONS)
        trees += [{**base, "model": model} for model in models]
    draw = RandomSuggester(seed=0)
    trees += [fill_leaves(spec.recipe, draw) for _ in range(RANDOM_DRAWS)]
    for known in spec.first:
        trees.append(_known_tree(spec, known))
    if "steps" not in spec.recipe and not spec.ladder.rungs:
        raise SpaceError("recipe.steps: missing; only a ladder (ladder.rungs) finds the length by itself")
    configs = [close_recipe(ANY_LENGTH | tree) for tree in trees]
    if spec.inherit_weights:
        _check_inheritance(configs)


def _check_inheritance(configs: Sequence[TrialConfig]) -> None:
    if any(config.initial is not None for config in configs):
        raise SpaceError(
            "inherit_weights: recipe.initial names the weights to start from; leave out one of the two"
        )
    if not any_wider_or_deeper(config.model for config in configs):
        raise SpaceError(
            "inherit_weights: no model of this study is a smaller one with more width or more blocks; leave it out"
        )


def close_recipe(tree: Mapping[str, Any]) -> TrialConfig:
    """A config from a recipe without open leaves, all files that it names at hand.

    `SpaceError` with the dotted path where it is wrong.
    """
    try:
        return TrialConfig.model_validate(tree, context=WITH_FILES)
    except ValidationError as error:
        raise SpaceError(f"recipe.{_explain(error, tree, TrialConfig)}") from None


def _known_tree(spec: StudySpec, known: KnownRecipe) -> Any:
    where = f'first recipe "{known.name}"'
    suggester = KnownSuggester(known.values)
    try:
        tree = fill_leaves(with_replacements(spec.recipe, known.recipe), suggester)
    except SpaceError as error:
        raise SpaceError(f"{where}: {error}") from None
    for name in known.values:
        if name not in suggester.seen:
            raise SpaceError(f"{where}: {name} is not an open leaf here{closest(name, suggester.seen)}")
    return tree


def _explain(error: ValidationError, tree: object, form: type[BaseModel]) -> str:
    """Dotted path and reason of the first problem, with the closest known name."""
    problems = error.errors()
    # A misspelt setting also goes missing under its right name, or fits no member of a union.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    path, node = [], tree
    owner: type[BaseModel] | None = form
    for place, item in enumerate(problem["loc"], 1):
        if isinstance(node, Mapping) and item in node:
            owner = _settings_class(owner, str(item), node) if place < len(problem["loc"]) else owner
            node = node[item]
        elif isinstance(node, list | tuple) and isinstance(item, int):
            node = node[item]
        elif not (problem["type"] == "missing" and item == problem["loc"][-1]):
            continue  # the name of a member of a union, not a key of the tree
        path.append(str(item))
    where = ".".join(path)
    if problem["type"] == "extra_forbidden" and owner is not None:
        known = list(owner.model_fields)
        return f"{where}: unknown setting{closest(path[-1], known)} (known: {', '.join(known)})"
    if problem["type"] == "union_tag_invalid":
        tag, tags = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
        known = re.findall(r"'([^']+)'", tags)
        return f"{where}.kind: {tag!r} is not known{closest(tag, known)} (known: {tags})"
    found, shown = problem["input"], ""
    if problem["type"] == "union_tag_not_found":
        return f"{where}.kind: missing (known: {', '.join(_kinds(owner, path[-1]))})"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(found, Mapping) and problem["type"] not in ("missing", "value_error"):
        shown = f" (found a table with {', '.join(found)}; an open leaf has low and high, or choices)"
    elif isinstance(found, Plain) and problem["type"] != "value_error":
        shown = f" (found {found!r})"
    return f"{where}: {message}{shown}" if where else message


def _settings_class(
    owner: type[BaseModel] | None, key: str, tree: Mapping[str, Any]
) -> type[BaseModel] | None:
    """The class that holds the settings under `owner.key`; picked by its `kind` where there are several.

    A key that is no setting is a name in a table of them: `owner` holds the settings under it, too.
    """
    if owner is None or key not in owner.model_fields:
        return owner
    classes = list(_model_classes(owner.model_fields[key].annotation))
    child = tree[key]
    kind = child.get("kind") if isinstance(child, Mapping) else None
    for candidate in classes:
        field = candidate.model_fields.get("kind")
        if kind is None or field is None or field.default == kind:
            return candidate
    return None


def _kinds(owner: type[BaseModel] | None, key: str) -> list[str]:
    """Allowed values of `kind` in the table under `owner.key`."""
    field = owner.model_fields.get(key) if owner else None
    return [c.model_fields["kind"].default for c in _model_classes(field.annotation)] if field else []


def _model_classes(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _model_classes(argument)
