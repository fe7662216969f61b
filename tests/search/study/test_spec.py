"""Study files: the shipped ones load, and whatever is wrong with one is said before the first trial."""

from collections.abc import Callable
from pathlib import Path

import pytest

from search.errors import UserError
from search.study import (
    RandomSuggester,
    SpaceError,
    close_recipe,
    fill_leaves,
    load_spec,
    open_leaves,
    parse_duration,
    shipped_specs,
    with_flags,
)
from search.study.spec import SHIPPED

StudyFile = Callable[..., Path]

KBNET = """[recipe.model]
kind = "kbnet_s"
middle_blocks = 1
width = { choices = [4, 8] }
encoder_blocks = { choices = { one = [1], two = [1, 1] } }
decoder_blocks = [1]
"""
DNCNN = """[recipe.model]
kind = "dncnn"
layers = 3
width = { choices = [4, 6] }
"""
LUMINANCE = """[recipe.model]
kind = "luminance"

[recipe.model.model]
kind = "dncnn"
layers = 3
width = { choices = [4, 6] }
"""
LR = "lr = { low = 1e-3, high = 1e-2, log = true }"
SUM = """
[recipe.loss]
kind = "sum"
terms.pixels = { loss = { kind = "l1" } }
terms.structure = { weight = { low = 0.05, high = 0.5 }, loss = { kind = "ssim", window = { choices = [3, 7] } } }
"""

WRONG = [
    (
        "trials =",
        "trails =",
        "trails: unknown setting; did you mean trials? (known: name, description, trials,",
    ),
    ("evaluations", "evalutions", "recipe.evalutions: unknown setting; did you mean evaluations?"),
    (
        "layers",
        "layer",
        "recipe.model.layer: unknown setting; did you mean layers? (known: kind, channels, width,",
    ),
    (
        "lr = {",
        "lrr = {",
        "recipe.optimizer.lrr: unknown setting; did you mean lr? (known: kind, lr, weight_decay,",
    ),
    (
        "patch = 8",
        "pach = 8",
        "recipe.crops.pach: unknown setting; did you mean patch? (known: batch, patch",
    ),
    (
        "[recipe.optimizer]",
        "[recipe.optimiser]",
        "recipe.optimiser: unknown setting; did you mean optimizer?",
    ),
    ('"dncnn"', '"dncn"', "recipe.model.kind: 'dncn' is not known; did you mean dncnn? (known: "),
    ('kind = "dncnn"\n', "", "recipe.model.kind: missing (known: "),
    ("steps = 8", "steps = { teramac = 1 }", "recipe.steps.teramac: unknown setting; did you mean teramacs?"),
    ("steps = 8", 'steps = "many"', "recipe.steps: Input should be a valid integer"),
    ("steps = 8\n", "", "recipe.steps: missing; only a ladder (ladder.rungs) finds the length by itself"),
    ('"fp32"', '"fp8"', "recipe.precision: Input should be 'auto', 'fp32', 'bf16' or 'fp16' (found 'fp8')"),
    (LR, 'lr = "high"', "recipe.optimizer.lr: Input should be a valid number"),
    (
        "{ choices = [4, 6] }",
        "{ choises = [4, 6] }",
        "recipe.model.width: Input should be a valid integer (found a table with choises",
    ),
    ("[4, 6]", "[4, 2]", "recipe.model.width: Input should be greater than or equal to 4 (found 2)"),
    ("[4, 6]", "[4, 4]", "recipe.model.width: choices has a value twice: [4, 4]"),
    ("1e-2, log", "10.0, log", "recipe.optimizer.lr: Input should be less than or equal to 1 (found 10.0)"),
    ("1e-2, log", "1e-4, log", "recipe.optimizer.lr: low (0.001) must be below high (0.0001)"),
    ("trials = 2", "trials = 0", "trials: Input should be greater than or equal to 1 (found 0)"),
    ("trials = 2", 'trials = "two"', "trials: Input should be a valid integer"),
    ('"10m"', '"10 min"', 'timeout: "10 min" is not a duration; write 90s, 20m, 1h30m or 2d'),
    ('"10m"', '"0s"', "timeout: Input should be greater than 0"),
    ("ladder = { rungs = 0 }", "finale = 1.0", "finale: Input should be less than 1 (found 1.0)"),
    ('"tiny"', '"tiny.toml"', "name: 'tiny.toml' ends in .toml, as study files do; a name does not"),
    ('"tiny"', '"\\u001b[2Jtiny"', "name: "),
    (DNCNN, "", "recipe.model: Field required"),
    (DNCNN, KBNET, "recipe.model: decoder_blocks has 1 levels, encoder_blocks 2; they must be equal"),
    (
        LR,
        LR + SUM.replace("weight", "wieght"),
        "recipe.loss.terms.structure.wieght: unknown setting; did you mean weight? (known: weight, loss)",
    ),
    (
        LR,
        LR + SUM.replace('"ssim"', '"sim"'),
        "recipe.loss.terms.structure.loss.kind: 'sim' is not known; did you mean ssim? (known: 'l1', ",
    ),
    (
        LR,
        LR + SUM.replace('kind = "ssim", ', ""),
        "recipe.loss.terms.structure.loss.kind: missing (known: l1, mse, charbonnier, psnr, ssim,",
    ),
    (
        LR,
        LR + SUM.replace("high = 0.5", "high = 0.01"),
        "recipe.loss.terms.structure.weight: low (0.05) must be below high (0.01)",
    ),
    (
        LR,
        LR + SUM.replace("[3, 7]", "[3, 4]"),
        "recipe.loss.terms.structure.loss.window: Input should be 3, 5, 7, 9 or 11 (found 4)",
    ),
    (
        LR,
        LR + SUM.replace("[3, 7]", "[3, 11]"),
        "recipe.crops.patch is 8, but loss 'sum' as set needs 11 or more",
    ),
    (
        DNCNN,
        LUMINANCE.replace("layers", "layer"),
        "recipe.model.model.layer: unknown setting; did you mean layers? (known: kind, channels, width,",
    ),
    (
        DNCNN,
        LUMINANCE.replace('"dncnn"', '"classical"'),
        "recipe.model.model.kind: 'classical' is not known (known: 'kbnet_s', ",
    ),
    (DNCNN, LUMINANCE.replace('kind = "dncnn"', ""), "recipe.model.model.kind: missing (known: kbnet_s, "),
    (
        DNCNN,
        LUMINANCE + "channels = 3\n",
        "recipe.model.model: channels is 3, but luminance has 1: leave it out",
    ),
    (DNCNN, '[recipe.model]\nkind = "luminance"\n', "recipe.model.model: Field required"),
    ('dir = "', 'die = "', "recipe.data.die: unknown setting; did you mean dir?"),
]


def write(text: str, folder: Path) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_study_loads_and_has_a_line_for_the_list(path: Path) -> None:
    spec = load_spec(path.stem)
    assert spec.name == path.stem
    assert spec.description
    assert spec == load_spec(str(path))


def test_shipped_studies_are_listed_by_name() -> None:
    assert [spec.name for spec in shipped_specs()] == sorted(path.stem for path in SHIPPED.glob("*.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    WRONG,
    ids=[f"{old.split(chr(10))[0]} to {new.split(chr(10))[0]}" for old, new, _ in WRONG],
)
def test_mistake_is_named_by_file_and_dotted_path(
    old: str, new: str, message: str, study_file: StudyFile, tmp_path: Path
) -> None:
    text = study_file().read_text("utf-8")
    assert old in text
    path = write(text.replace(old, new), tmp_path)
    with pytest.raises(UserError) as caught:
        load_spec(str(path))
    assert str(caught.value).startswith(f"{path}: {message}")
    assert len(str(caught.value).splitlines()) <= 2


def test_weights_and_settings_in_a_sum_may_be_open(study_file: StudyFile) -> None:
    spec = load_spec(str(study_file((LR, LR + SUM))))
    leaves = {f"loss.terms.structure.{name}" for name in ("weight", "loss.window")}
    assert {name for name, _ in open_leaves(spec.recipe) if name.startswith("loss")} == leaves
    drawn = [close_recipe(fill_leaves(spec.recipe, RandomSuggester(seed))).loss for seed in range(9)]
    assert len({str(loss) for loss in drawn}) == 9


def test_missing_weights_of_a_loss_are_found_with_where_to_get_them(
    study_file: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    loss = SUM.replace('kind = "ssim", window = { choices = [3, 7] }', 'kind = "perceptual"')
    path = study_file((LR, LR + loss))
    place = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    with pytest.raises(UserError) as caught:
        load_spec(str(path))
    assert str(caught.value) == (
        f"{path}: recipe.loss.terms.structure.loss: {place}: no such file; "
        f"download https://download.pytorch.org/models/vgg16-397923af.pth to {place}, "
        "or set file to where weights of vgg16 are"
    )


def test_width_that_cannot_be_built_is_found_with_the_allowed_ones(
    study_file: StudyFile, tmp_path: Path
) -> None:
    kbnet = KBNET.replace("[4, 8]", "[8, 12]").replace("{ choices = { one = [1], two = [1, 1] } }", "[1, 1]")
    kbnet = kbnet.replace("decoder_blocks = [1]", "decoder_blocks = [1, 1]")
    path = write(study_file().read_text("utf-8").replace(DNCNN, kbnet), tmp_path)
    # 12 channels double to 48 on the second level, which 32 bases do not divide.
    with pytest.raises(
        UserError, match=r"recipe\.model: width 12 does not work with 2 levels; allowed: 4, 8, 16, 32"
    ):
        load_spec(str(path))


def test_combination_that_meets_in_few_trials_only_is_found(study_file: StudyFile, tmp_path: Path) -> None:
    kbnet = KBNET.replace("[4, 8]", "[4, 8, 16]").replace("{ choices = { one = [1], two = [1, 1] } }", "[1]")
    kbnet += "ffn_scale = { choices = [2.0, 0.75] }\n"
    path = write(study_file().read_text("utf-8").replace(DNCNN, kbnet), tmp_path)
    # Every width and every scale works somewhere; 4 times 0.75 is the one odd number.
    with pytest.raises(
        UserError, match=r"recipe\.model: ffn_scale 0\.75 times width 4 must be an even number"
    ):
        load_spec(str(path))


def test_shares_that_only_collide_at_the_end_of_a_range_are_found(study_file: StudyFile) -> None:
    path = study_file(more='[recipe.sparsity]\nkind = "dsd"\ndense_share = { low = 0.3, high = 0.9 }')
    with pytest.raises(UserError, match=r"recipe\.sparsity: dense_share .* sum is to be below 1"):
        load_spec(str(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"model.width" = 5', 'first recipe "by hand": model.width: 5 is not among 4, 6'),
        (
            '"model.widht" = 4',
            'first recipe "by hand": model.widht is not an open leaf here; did you mean model.width?',
        ),
        ('"optimizer.lr" = 0.5', 'first recipe "by hand": optimizer.lr: 0.5 is outside 0.001 to 0.01'),
        ('"model.layers" = 3', 'first recipe "by hand": model.layers is not an open leaf here'),
    ],
)
def test_first_recipe_outside_the_space_is_refused(line: str, message: str, study_file: StudyFile) -> None:
    path = study_file(more=f'[[first]]\nname = "by hand"\n{line}')
    with pytest.raises(UserError) as caught:
        load_spec(str(path))
    assert str(caught.value).startswith(f"{path}: {message}")


def test_first_recipe_inside_the_space_is_kept(study_file: StudyFile) -> None:
    spec = load_spec(
        str(study_file(more='[[first]]\nname = "by hand"\n"model.width" = 6\n"optimizer.lr" = 2e-3'))
    )
    assert [(known.name, known.values) for known in spec.first] == [
        ("by hand", {"model.width": 6, "optimizer.lr": 2e-3})
    ]


@pytest.mark.parametrize("text", ["[recipe", "a = ", "[[first]\n", "x = 1\nx = 2\n", "\x00"])
def test_broken_toml_is_said_with_its_place(text: str, tmp_path: Path) -> None:
    path = write(text, tmp_path)
    with pytest.raises(UserError, match=r"not valid TOML: .*(line \d|end of document)") as caught:
        load_spec(str(path))
    assert str(caught.value).startswith(str(path))


def test_study_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(UserError, match="not valid TOML"):
        load_spec(str(path))


def test_empty_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name: Field required"):
        load_spec(str(write("", tmp_path)))


def test_unknown_study_names_the_closest_and_all_there_are() -> None:
    with pytest.raises(UserError, match=r"unknown study 'kbent'; did you mean kbnet\? \(shipped: .*kbnet"):
        load_spec("kbent")


@pytest.mark.parametrize("name", ["/tmp/nope", "studies/nope", "./nope"])
def test_path_without_toml_is_said_to_be_neither_a_shipped_study_nor_a_file(name: str) -> None:
    with pytest.raises(UserError, match=rf"^{name}: neither a shipped study \(.*\) nor a \.toml file$"):
        load_spec(name)


def test_missing_file_and_folder_are_no_studies(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such study file"):
        load_spec(str(tmp_path / "nope.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UserError, match="no such study file"):
        load_spec(str(tmp_path / "folder.toml"))


def test_study_in_the_folder_studies_goes_before_a_shipped_one(
    study_file: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "kbnet.toml").write_text(study_file(name="ours").read_text("utf-8"), "utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_spec("kbnet").name == "ours"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800), (45, 45), (1.5, 1.5)],
)
def test_durations_are_read_as_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "m", "20 m", "1h 30m", "-5m", "5x", "1e3s", "20M", "5m!"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write 90s, 20m, 1h30m or 2d"):
        parse_duration(text)


def test_flags_replace_what_the_file_says(study_file: StudyFile) -> None:
    spec = load_spec(str(study_file()))
    changed = with_flags(spec, {"name": "tiny-2", "trials": 7, "timeout": "90s", "seed": 3})
    assert (changed.name, changed.trials, changed.timeout, changed.seed) == ("tiny-2", 7, 90.0, 3)
    assert (changed.recipe, changed.first, changed.finale) == (spec.recipe, spec.first, spec.finale)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "--trials: Input should be greater than or equal to 1 (found 0)"),
        (
            {"timeout": "soon"},
            '--timeout: "soon" is not a duration; write 90s, 20m, 1h30m or 2d (found soon)',
        ),
        ({"seed": -1}, "--seed: Input should be greater than or equal to 0 (found -1)"),
        ({"name": "-x"}, "--name: '-x' begins with a hyphen, as flags do; a name does not"),
        ({"name": " "}, "--name: a name is needed, of at least one sign"),
    ],
    ids=str,
)
def test_flag_that_does_not_fit_is_named(
    changes: dict[str, object], message: str, study_file: StudyFile
) -> None:
    spec = load_spec(str(study_file()))
    with pytest.raises(UserError) as caught:
        with_flags(spec, changes)
    assert str(caught.value).startswith(message)


def test_data_flag_replaces_the_data_of_the_study(study_file: StudyFile, tmp_path: Path) -> None:
    spec = load_spec(str(study_file())).with_data(tmp_path, "noisy", None)
    assert spec.recipe["data"] == {"kind": "pairs", "dir": str(tmp_path), "scan_dir": "noisy"}


def test_closed_recipe_becomes_a_config_and_a_wrong_one_says_where(study_file: StudyFile) -> None:
    spec = load_spec(str(study_file()))
    tree = fill_leaves(spec.recipe, RandomSuggester(1))
    assert close_recipe(tree).model.width in (4, 6)
    with pytest.raises(SpaceError, match=r"^recipe\.ema_decay: Input should be less than 1"):
        close_recipe({**tree, "ema_decay": 2.0})
