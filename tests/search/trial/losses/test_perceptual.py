"""Perceptual loss with random weights in torchvision's format, against a VGG written out from its paper."""

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from search.trial import WITH_FILES
from search.trial.losses.perceptual import Perceptual, PerceptualConfig, layer_names

# Columns D and E of table 1 in arXiv 1409.1556, as far as the third pooling.
TABLE = {
    "vgg16": [64, 64, "M", 128, 128, "M", 256, 256, 256],
    "vgg19": [64, 64, "M", 128, 128, "M", 256, 256, 256, 256],
}
# N of `features.N.weight` in the published files.
CONVOLUTIONS = {
    "vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    "vgg19": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
}


def random_weights(network: str) -> dict[str, Tensor]:
    """The first three blocks, and a part of the classifier that the loss has no use for."""
    generator = torch.Generator().manual_seed(0)
    widths = [3, *(entry for entry in TABLE[network] if isinstance(entry, int))]
    weights = {"classifier.6.bias": torch.zeros(1000)}
    for number, before, after in zip(CONVOLUTIONS[network], widths, widths[1:], strict=False):
        kernel = torch.randn(after, before, 3, 3, generator=generator) * (2 / (9 * before)) ** 0.5
        weights[f"features.{number}.weight"] = kernel
        weights[f"features.{number}.bias"] = 0.1 * torch.randn(after, generator=generator)
    return weights


def seen(network: str, weights: dict[str, Tensor], image: Tensor) -> dict[str, Tensor]:
    """Every layer's output by name, one operation after another."""
    x = torch.cat([image] * 3, 1) if image.shape[1] == 1 else image
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    x = (x - mean) / std
    numbers, block, place, outputs = iter(CONVOLUTIONS[network]), 1, 0, {}
    for entry in TABLE[network]:
        if entry == "M":
            x = F.max_pool2d(x, 2, 2)
            block, place = block + 1, 0
            continue
        number, place = next(numbers), place + 1
        x = F.conv2d(x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1)
        outputs[f"conv{block}_{place}"] = x
        x = x.clamp(min=0)
        outputs[f"relu{block}_{place}"] = x
    return outputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vgg16.pth, vgg19.pth and vgg16.safetensors. Read only."""
    folder = tmp_path_factory.mktemp("weights")
    for network in TABLE:
        torch.save(random_weights(network), folder / f"{network}.pth")
    save_file(random_weights("vgg16"), folder / "vgg16.safetensors")
    return folder


@pytest.fixture(params=[1, 3], ids=["gray", "colour"])
def images(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    restored, clean = torch.rand(2, 2, request.param, 17, 23, generator=torch.Generator().manual_seed(0))
    return restored, clean


def ready(**settings: object) -> PerceptualConfig:
    """Settings that are valid with their files, as those of a study have to be."""
    return PerceptualConfig.model_validate(settings, context=WITH_FILES)


def built(**settings: object) -> Perceptual:
    loss = PerceptualConfig.model_validate(settings).build()
    assert isinstance(loss, Perceptual)
    return loss


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_features_are_those_of_the_paper(network: str, folder: Path, images: tuple[Tensor, Tensor]) -> None:
    expected = seen(network, random_weights(network), images[0])
    loss = built(network=network, file=folder / f"{network}.pth", layers=dict.fromkeys(expected, 1.0))
    for name, ours in zip(expected, loss.features(images[0]), strict=True):
        assert torch.allclose(ours, expected[name], atol=1e-5), name


@pytest.mark.parametrize("distance", ["l1", "mse"])
def test_loss_is_the_weighted_sum_of_mean_distances(
    distance: str, folder: Path, images: tuple[Tensor, Tensor]
) -> None:
    weights = random_weights("vgg16")
    restored, clean = (seen("vgg16", weights, image) for image in images)
    power = 1 if distance == "l1" else 2
    expected = 0.3 * (restored["relu3_3"] - clean["relu3_3"]).double().abs().pow(power).mean()
    expected += 2.0 * (restored["conv1_2"] - clean["conv1_2"]).double().abs().pow(power).mean()
    loss = built(file=folder / "vgg16.pth", layers={"relu3_3": 0.3, "conv1_2": 2.0}, distance=distance)
    assert loss(*images).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("network", "parameters"), [("vgg16", 14_714_688), ("vgg19", 20_024_384)])
def test_layers_have_the_published_numbers(network: str, parameters: int) -> None:
    names = layer_names(network)  # type: ignore[arg-type]
    assert [n for n, name in enumerate(names) if name.startswith("conv")] == CONVOLUTIONS[network]
    config = PerceptualConfig.model_validate({"network": network, "layers": {names[-2]: 1.0}})
    assert config.smallest_patch == 16


def test_cost_is_three_passes_of_the_published_size() -> None:
    # torchvision's table: 15.47 G multiply-adds at 224 pixels, 123.6 M of them in the classifier.
    config = PerceptualConfig(layers={"relu5_3": 1.0})
    assert config.macs(3, 224) == pytest.approx(3 * (15.47e9 - 123.6e6), rel=1e-3)
    assert config.macs(1, 224) == config.macs(3, 224)
    # By hand: 3 -> 64 -> 64 channels at 16 x 16.
    assert PerceptualConfig(layers={"conv1_2": 1.0}).macs(3, 16) == 3 * 256 * 9 * (3 * 64 + 64 * 64)


def test_loss_moves_the_image_and_neither_learns_nor_is_saved(
    folder: Path, images: tuple[Tensor, Tensor]
) -> None:
    loss, restored = built(file=folder / "vgg16.pth"), images[0].clone().requires_grad_()
    loss(restored, images[1]).backward()
    assert restored.grad is not None
    assert restored.grad.abs().max() > 0
    assert not list(loss.parameters())
    assert not loss.state_dict()


@pytest.mark.parametrize("form", ["vgg16.safetensors", "legacy.pth"])
def test_other_file_formats_give_the_same_loss(
    form: str, folder: Path, tmp_path: Path, images: tuple[Tensor, Tensor]
) -> None:
    file = folder / form
    if form == "legacy.pth":  # the published files are older than torch's present format
        file = tmp_path / form
        torch.save(random_weights("vgg16"), file, _use_new_zipfile_serialization=False)
    assert built(file=file)(*images) == built(file=folder / "vgg16.pth")(*images)


def test_settings_without_the_file_are_valid_until_it_is_needed(tmp_path: Path) -> None:
    config = PerceptualConfig(file=tmp_path / "gone.pth")
    assert PerceptualConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValueError, match=r"gone\.pth: no such file"):
        config.build()
    with pytest.raises(ValidationError, match=r"gone\.pth: no such file"):
        ready(file=tmp_path / "gone.pth")


@pytest.mark.parametrize(
    ("network", "name"), [("vgg16", "vgg16-397923af.pth"), ("vgg19", "vgg19-dcbb9e9d.pth")]
)
def test_a_missing_download_is_told_with_its_address_and_place(
    network: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / name
    with pytest.raises(ValidationError) as error:
        ready(network=network)
    assert f"download https://download.pytorch.org/models/{name} to {place}, or set file" in str(error.value)


def test_file_in_its_place_is_checked_against_the_hash_in_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    place.parent.mkdir(parents=True)
    content = (folder / "vgg16.pth").read_bytes()
    place.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(
        ValidationError, match=rf"its sha256 is {digest}, expected 397923af..., as in its name"
    ):
        ready()
    ready(sha256=digest)
    place.rename(place.with_name(f"mine-{digest[:8]}.pth"))
    ready(file=place.with_name(f"mine-{digest[:8]}.pth"))


def test_wrong_hash_is_refused(folder: Path) -> None:
    with pytest.raises(ValidationError, match=f"damaged or another file: .* expected {'0' * 64}"):
        ready(file=folder / "vgg16.pth", sha256="0" * 64)


@pytest.mark.parametrize("form", ["vgg16.pth", "vgg16.safetensors"])
def test_damaged_file_is_refused_and_a_mended_one_is_read_again(
    form: str, folder: Path, tmp_path: Path
) -> None:
    content, file = (folder / form).read_bytes(), tmp_path / form
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValidationError, match=f"{form}: not readable as weights"):
        ready(file=file)
    file.write_bytes(content)
    ready(file=file)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    with pytest.raises(
        ValidationError, match=r"not the weights of vgg16: features.\d+.weight is .*, expected"
    ):
        ready(file=folder / "vgg19.pth", layers={"relu4_1": 1.0})
    with pytest.raises(ValidationError, match=r"features.17.weight is missing, expected \(512, 256, 3, 3\)"):
        ready(file=folder / "vgg16.pth", layers={"relu4_1": 1.0})


@pytest.mark.parametrize("name", ["relu3_4", "pool1", "fc6"])
def test_layers_that_the_network_does_not_have_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"'{name}' is not in vgg16 \(known: conv1_1, relu1_1, "):
        PerceptualConfig(layers={name: 1.0})
