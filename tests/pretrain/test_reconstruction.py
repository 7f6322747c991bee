"""The reconstruction suite: every number is the published definition's, whoever wrote the checkpoint."""

from __future__ import annotations

import argparse
import cmath
import logging
import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pixmim_eval.errors import InputError
from pixmim_eval.models import catalog
from pixmim_eval.models.checkpoints import load, ours
from pixmim_eval.models.convvit import ConvArchitecture
from pixmim_eval.models.vit import Architecture
from pixmim_eval.results import read_rows
from pixmim_eval.run import main
from pixmim_eval.seeds import derive_seed, uniform
from pixmim_eval.suites import compute_key
from pixmim_eval.types import Model, SuiteConfig
from pretrain import pretrained
from pretrain.autoencoder import MaskedAutoencoder, Reconstruction
from pretrain.methods import METHODS
from pretrain.pretrained import load_autoencoder, read_objective
from pretrain.recipes import Recipe
from pretrain.reconstruction import ReconstructionSuite, measure
from pretrain.spectrum import BANDS, RadialBands
from pretrain.targets import LowFrequency, patchify
from tests.fakes import make_manifest, make_model
from tests.references.lsmae import noise_of, order_patches
from tests.references.mae import ReferenceMAE

SUITE = ReconstructionSuite()
SIZE = 32
TINY = Architecture(patch=8, dim=24, depth=2, heads=3)
SMALL = Recipe(
    image_size=SIZE,
    radius=40 * SIZE / 224,
    patch=8,
    dim=24,
    depth=1,
    heads=2,
    decoder_dim=16,
    decoder_depth=2,
    decoder_heads=2,
)
RECIPES = {
    "mae": SMALL,
    "lsmae": replace(SMALL, method="lsmae", patch=4, mask_unit=2),
    "convmae": replace(SMALL, method="convmae", stage1_dim=8, stage1_depth=1, stage2_dim=12, stage2_depth=1),
}
TARGETS = ("pixels", "normalised", "lowfreq")
COMMAND = ["--suite", "reconstruction", "--data", f"builtin:shapes16@{SIZE}", "--device", "cpu", "--workers", "0"]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def build(recipe: Recipe) -> MaskedAutoencoder:
    """A model all of whose weights are random: zeros and ones would hide what is mixed up."""
    torch.manual_seed(0)
    model = METHODS[recipe.method](recipe)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def write(path: Path, recipe: Recipe, model: MaskedAutoencoder | None = None, method: str = "") -> Path:
    model = model or build(recipe)
    ours.write(
        path,
        model.public_tensors(),
        architecture=model.architecture,
        image_size=recipe.image_size,
        method=method or recipe.method,
        epoch=1,
        recipe=asdict(recipe) | {"normalise_target": recipe.target != "pixels"},
    )
    return path


def open_model(path: Path, arch: Architecture | None = None, decoder_heads: int | None = None) -> Model:
    """As the command line does, and with what the weights of no published size do not tell."""
    checkpoint = load(path, arch=arch)
    return catalog.make_model(replace(checkpoint, decoder_heads=decoder_heads or checkpoint.decoder_heads))


def make_config(count: int = 9, **changes: Any) -> SuiteConfig:
    return SuiteConfig(**{"data": {"val": make_manifest(count, SIZE)}, "workers": 0, "batch_size": 4, **changes})


def run(model: Model, config: SuiteConfig) -> dict[str, tuple[float, float, float, int]]:
    rows = SUITE.run(model, "masked", config).rows
    assert {row.condition for row in rows} == {"masked"}
    return {row.metric: (row.value, row.low, row.high, row.n) for row in rows}


def draw_noise(config: SuiteConfig, units: int) -> torch.Tensor:
    return uniform(derive_seed(config.seed, "reconstruction"), torch.arange(len(config.data["val"])), units)


# --- the spectrum -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 11])
def test_power_in_rings_is_that_of_a_transform_written_out(size: int) -> None:
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(1, 2, size, size, dtype=torch.float64, generator=generator)
    expected = [0.0] * BANDS
    for u in range(-size, size):
        for v in range(-size, size):
            if not (-size / 2 <= u < size / 2 and -size / 2 <= v < size / 2) or math.hypot(u, v) > size / 2:
                continue
            ring = min(int(math.sqrt(u * u + v * v) / (size / 2) * BANDS + 1e-9), BANDS - 1)
            for plane in image[0].tolist():
                terms = (
                    plane[y][x] * cmath.exp(-2j * math.pi * (u * y + v * x) / size)
                    for y in range(size)
                    for x in range(size)
                )
                expected[ring] += abs(sum(terms)) ** 2 / size**2
    np.testing.assert_allclose(RadialBands(size).power(image)[0], expected, rtol=1e-9, atol=1e-12)


def test_a_wave_has_all_its_power_at_its_radius() -> None:
    steps = torch.arange(64) / 64
    wave = torch.cos(2 * math.pi * (9 * steps[:, None] + 12 * steps[None, :]))  # radius 15
    bands = RadialBands(64)
    power = bands.power(wave[None, None])[0]
    assert bands.names[7] == "14-16"
    assert float(power[7]) == pytest.approx(64 * 64 / 2)  # the sum of squares
    assert float(power.sum() - power[7]) == pytest.approx(0, abs=1e-6)


# --- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", RECIPES)
def test_the_loss_is_the_one_of_pretraining(tmp_path: Path, method: str, target: str) -> None:
    recipe = replace(RECIPES[method], target=target)
    original = build(recipe)
    model, config = open_model(write(tmp_path / "x.safetensors", recipe, original)), make_config()
    manifest = config.data["val"]
    pixels = torch.from_numpy(np.stack(manifest.source.read(range(9)))).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.preprocessing.mean, model.preprocessing.std))
    with torch.no_grad():
        expected = float(original((pixels - mean) / std, draw_noise(config, original.units)))
    value, low, high, n = run(model, config)["loss"]
    assert value == pytest.approx(expected, rel=1e-5)
    assert low < value < high and n == 9


class Predicting(MaskedAutoencoder):
    """A model that predicts the images it is shown, times a factor, in pixel units."""

    factor = 1.0

    def reconstruct(self, images: torch.Tensor, noise: torch.Tensor) -> Reconstruction:
        found = super().reconstruct(images, noise)
        return replace(found, prediction=self.factor * patchify(images, self.encoder.patch))


def measure_tiny(model: MaskedAutoencoder, images: torch.Tensor) -> dict[str, torch.Tensor]:
    noise = torch.rand(3, model.units, generator=torch.Generator().manual_seed(5))
    return measure(model, images, noise, LowFrequency(5.0), RadialBands(SIZE))


def test_a_perfect_prediction_has_no_error_and_a_faded_one_the_part_that_it_lacks(images: torch.Tensor) -> None:
    model = Predicting(SIZE, TINY, (16, 1, 2), normalise_target=False).eval()
    perfect = measure_tiny(model, images)
    assert all(not perfect[name].any() for name in ("mse_pixels", "mse_lowfreq", "error_power"))
    assert (perfect["hidden_power"] > 0).all()
    model.factor = 0.7
    faded = measure_tiny(model, images)
    ratio = faded["error_power"] / faded["hidden_power"]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.3**2), rtol=1e-4, atol=0)


@pytest.mark.parametrize("target", ["pixels", "normalised"])
def test_predicting_nothing_has_the_error_power_1(images: torch.Tensor, target: str) -> None:
    model = build(replace(SMALL, target=target))
    for parameter in model.decoder.pred.parameters():
        parameter.data.zero_()
    measured = measure_tiny(model, images)
    torch.testing.assert_close(measured["error_power"], measured["hidden_power"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("target", TARGETS)
def test_errors_are_those_of_a_loop_over_images_and_patches(images: torch.Tensor, target: str) -> None:
    model = build(replace(SMALL, target=target))
    noise = torch.rand(3, model.units, generator=torch.Generator().manual_seed(5))
    found, measured = model.reconstruct(images, noise), measure_tiny(model, images)
    low_pass = LowFrequency(5.0)
    for place, image in enumerate(images.double()):
        predicted, hidden, filtered = image.clone(), torch.zeros_like(image), []
        for number in range(16):
            if not found.mask[place, number]:
                continue
            rows, columns = (slice(8 * k, 8 * k + 8) for k in divmod(number, 4))
            patch = found.prediction[place, number].double().view(8, 8, 3).permute(2, 0, 1)
            predicted[:, rows, columns] = patch
            mean = 0.0 if target == "pixels" else image[:, rows, columns].mean()
            hidden[:, rows, columns] = image[:, rows, columns] - mean
        error = predicted - image
        masked = found.mask[place].view(1, 4, 1, 4, 1).expand(3, 4, 8, 4, 8).reshape(3, SIZE, SIZE).bool()
        filtered = low_pass(predicted[None].float()) - low_pass(images[place][None])
        assert float(measured["mse_pixels"][place]) == pytest.approx(float(error[masked].square().mean()), rel=1e-5)
        expected = float(filtered[0][masked].square().mean())
        assert float(measured["mse_lowfreq"][place]) == pytest.approx(expected, rel=1e-4)
        for name, plane in {"error_power": error, "hidden_power": hidden}.items():
            power = torch.fft.fftshift(torch.fft.fft2(plane).abs().square().sum(dim=0) / SIZE**2)
            steps = torch.arange(SIZE) - SIZE // 2
            radius = torch.hypot(steps[:, None].double(), steps[None, :].double())
            ring = float(power[(radius >= 3) & (radius < 4)].sum())
            assert float(measured[name][place, 3]) == pytest.approx(ring, rel=1e-5)


def test_rows_do_not_depend_on_the_batch_size_and_say_how_they_were_made(tmp_path: Path) -> None:
    model = open_model(write(tmp_path / "x.safetensors", replace(SMALL, target="lowfreq"), method="pixmim-mae"))
    found = [run(model, make_config(batch_size=size, limit=7)) for size in (1, 3, 64)]
    assert len(found[0]) == 3 + BANDS
    assert all(numbers[3] == 7 for numbers in found[0].values())
    for other in found[1:]:
        assert all(other[metric] == pytest.approx(numbers, rel=1e-4) for metric, numbers in found[0].items())
    (row, *_) = SUITE.run(model, "masked", make_config()).rows
    assert row.method == "pixmim-mae"
    assert row.protocol == (
        "denormalised=8px-patch-statistics;lowpass_radius=5.714;masked=0.75-of-4x4;precision=float32;transform=ready-32"
    )


def test_images_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    model = open_model(write(tmp_path / "x.safetensors", SMALL))
    data = {"val": make_manifest(9, SIZE, bad=(2, 5))}
    rows = SUITE.run(model, "masked", make_config(data=data, on_bad_image="skip")).rows
    assert {(row.n, row.skipped) for row in rows} == {(7, 2)}
    with pytest.raises(InputError, match="image-2"):
        SUITE.run(model, "masked", make_config(data=data))


def test_predictions_that_are_not_finite_are_no_rows(tmp_path: Path) -> None:
    model = build(SMALL)
    model.decoder.norm.weight.data[0] = math.inf
    opened = open_model(write(tmp_path / "x.safetensors", SMALL, model))
    with pytest.raises(FloatingPointError, match="mae-1 are not finite"):
        SUITE.run(opened, "masked", make_config())


# --- checkpoints of others --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference() -> ReferenceMAE:
    torch.manual_seed(0)
    model = ReferenceMAE(SIZE, 8, 24, 2, 3, 16, 2, 2)
    for key, value in model.state_dict().items():
        if "norm" in key or key.endswith("bias"):
            value.add_(0.1 * torch.randn_like(value))
    return model


def to_mmselfsup(key: str) -> str:
    """The name of one of MAE's keys in mmselfsup, written out from its modules."""
    key = key.replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
    key = re.sub(r"\.norm(\d)\.", r".ln\1.", key)
    if key.startswith(("decoder", "mask")):
        return "neck." + key.replace("decoder_norm", "ln1")
    key = key.replace("blocks.", "layers.").replace("patch_embed.proj", "patch_embed.projection")
    return "backbone." + re.sub("^norm", "ln1", key)


def test_a_public_file_gives_the_rows_of_ours_and_the_loss_of_the_definition(
    tmp_path: Path, reference: ReferenceMAE
) -> None:
    tensors, config = reference.state_dict(), make_config()
    recipe = replace(SMALL, depth=2, heads=3)
    settings = {"architecture": TINY, "image_size": SIZE, "method": "mae", "epoch": 1}
    ours.write(tmp_path / "x.safetensors", tensors, **settings, recipe=asdict(recipe))  # type: ignore[arg-type]
    wanted = run(open_model(tmp_path / "x.safetensors"), config)
    files: dict[str, dict[str, Any]] = {
        "mae": {"model": tensors, "args": argparse.Namespace(norm_pix_loss=True)},
        "mmpretrain": {"state_dict": {to_mmselfsup(key): value for key, value in tensors.items()}},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / "x.pth")
        model = open_model(tmp_path / "x.pth", TINY, decoder_heads=2)
        assert model.checkpoint.format == name
        assert run(model, config) == wanted
    pixels = torch.from_numpy(np.stack(config.data["val"].source.read(range(9)))).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.preprocessing.mean, model.preprocessing.std))
    with torch.no_grad():
        loss = float(reference((pixels - mean) / std, draw_noise(config, 16)).loss)
    assert wanted["loss"][0] == pytest.approx(loss, rel=1e-5)


def test_a_transformers_file_gives_that_librarys_loss(tmp_path: Path, images: torch.Tensor) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    sizes = {"image_size": SIZE, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 96}
    sizes |= {"num_attention_heads": 3, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 2}
    sizes |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 64}
    network = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**sizes, norm_pix_loss=True)).eval()
    network.save_pretrained(tmp_path)
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = network(images, noise=noise).loss
        found = load_autoencoder(load(tmp_path / "model.safetensors"))(images, noise)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_golden_files_of_the_public_codes_give_their_losses(shared_data: Path) -> None:
    folder = shared_data / "golden"
    tiny = Architecture(patch=8, dim=48, depth=3, heads=3)
    stages = ConvArchitecture(strides=(4, 2, 2), dims=(16, 24, 48), depths=(1, 2, 2), heads=3)
    files: list[tuple[str, str, int, Any]] = [("mae_tiny_full", "mae", 2, tiny), ("lsmae_tiny", "lsmae", 3, tiny)]
    for file, name, heads, arch in [*files, ("convmae_tiny", "convmae", 2, stages)]:
        with np.load(folder / f"{name}_expected.npz") as arrays:
            golden = {key: torch.from_numpy(arrays[key]) for key in arrays}
        noise = golden.get("noise")
        if noise is None:  # the units in the order in which their first patches come
            first = golden["ids_restore"].argsort(dim=1)[:, ::4]
            noise = (first // 8 // 2 * 4 + first % 8 // 2).argsort(dim=1).float()
        checkpoint = replace(load(folder / f"{file}.pth", arch=arch), decoder_heads=heads)
        for normalised in (True, False):
            model = load_autoencoder(replace(checkpoint, normalised_target=normalised))
            with torch.no_grad():
                loss = model(golden["images"].float(), noise)
            torch.testing.assert_close(loss, golden[f"loss_norm_pix_{normalised}"].float(), rtol=1e-5, atol=0)


def test_what_a_public_file_does_not_tell_is_as_published(
    tmp_path: Path, reference: ReferenceMAE, caplog: pytest.LogCaptureFixture
) -> None:
    def tell(content: dict[str, Any], name: str = "x.pth") -> dict[str, Any]:
        torch.save(content, tmp_path / name)
        return asdict(read_objective(load(tmp_path / name, arch=TINY)))

    pretrained._warn.cache_clear()  # each file is warned of once
    tensors = reference.state_dict()
    published = {"mask_ratio": 0.75, "mask_unit": 1, "radius": None, "normalised": True}
    with caplog.at_level(logging.WARNING):
        assert tell({"model": tensors}) == published
        assert tell({"model": tensors}, "mae_visualize_x.pth") == published | {"normalised": False}
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == [
        "normalised pixels",
        "pixels as they are",
    ]
    said = {"norm_pix_loss": False, "mask_ratio": 0.5, "mask_downsampling": 2}
    expected = {"mask_ratio": 0.5, "mask_unit": 2, "radius": None, "normalised": False}
    assert tell({"model": tensors, "args": argparse.Namespace(**said)}) == expected
    pixmim = {to_mmselfsup(key): value for key, value in tensors.items()}
    pixmim["target_generator.low_pass_filter"] = torch.ones(3, SIZE, SIZE)
    assert tell({"state_dict": pixmim}) == published | {"radius": 40.0}


# --- pictures ---------------------------------------------------------------------------------------------------------


def read_panels(path: Path, rows: int, columns: int) -> np.ndarray:
    """Panels of a picture, uint8 [rows, columns, 192, 192, 3], found below the header by the white gap after each."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] == columns * 196
    gaps = (pixels[:, : columns * 196] == 255).all(axis=(1, 2))
    ends = np.flatnonzero(gaps[1:] & ~gaps[:-1]) + 1  # rows where something ends and a gap begins
    (bottom,) = [end for end in ends if all(end - 196 * k in ends for k in range(rows)) and end >= rows * 196 - 4][-1:]
    top = bottom + 4 - rows * 196
    return pixels[top : top + rows * 196].reshape(rows, 196, columns, 196, 3).swapaxes(1, 2)[:, :, :192, :192]


def test_pictures_show_input_mask_prediction_and_target_side_by_side(tmp_path: Path) -> None:
    files = {"mae": SMALL, "lsmae": RECIPES["lsmae"], "pixmim-mae": replace(SMALL, target="lowfreq")}
    models = [open_model(write(tmp_path / f"{name}.safetensors", r, method=name)) for name, r in files.items()]
    config = make_config(4)
    png, pdf = SUITE.draw(models, config, tmp_path / "figures")
    assert (png.name, pdf.name) == ("reconstruction.png", "reconstruction.pdf")
    assert pdf.read_bytes().startswith(b"%PDF")
    panels = read_panels(png, 4, 8)  # a unit of LSMAE is as large as a patch of MAE: one masked input for all
    small = panels[:, :, 3::6, 3::6]
    inputs = np.stack(config.data["val"].source.read(range(4)))
    np.testing.assert_array_equal(small[:, 0], inputs)
    hidden = (small[:, 1] != inputs).any(axis=3)
    kept = draw_noise(config, 16).argsort(dim=1)[:, :4]
    for image in range(4):
        for number in range(16):
            rows, columns = (slice(8 * k, 8 * k + 8) for k in divmod(number, 4))
            assert hidden[image, rows, columns].mean() == pytest.approx(float(number not in kept[image]), abs=0.1)
    for column in (2, 4, 6):  # predictions leave what is visible as it is
        assert ((small[:, column] == inputs).all(axis=3) | hidden).all()
    np.testing.assert_array_equal(small[:, 3], inputs)
    assert (small[:, 7] != inputs).mean() > 0.5


def test_many_models_go_to_several_pictures(tmp_path: Path) -> None:
    models = [open_model(write(tmp_path / f"{k}.safetensors", SMALL, method=f"m{k}")) for k in range(5)]
    names = [path.name for path in SUITE.draw(models, make_config(2), tmp_path)]
    assert names == [f"reconstruction-part-{part}.{ending}" for part in (1, 2) for ending in ("png", "pdf")]


def test_the_command_draws_and_stores_and_does_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [write(Path("mae.safetensors"), SMALL)]
    files.append(write(Path("pixmim.safetensors"), replace(SMALL, target="lowfreq"), method="pixmim-mae"))
    arguments = [*COMMAND, "--checkpoint", *map(str, files), "--limit", "8", "--out", "out"]
    assert main([*arguments, "--dry-run"]) == 0
    assert "linear head" not in capsys.readouterr().out
    assert main(arguments) == 0
    figures = {
        f"{name}.{ending}" for name in ("reconstruction", "reconstruction-spectrum") for ending in ("png", "pdf")
    }
    assert {path.name for path in Path("out/reports/figures").iterdir()} == figures
    rows = read_rows(Path("out"))
    assert set(rows["model"]) == {"mae-1", "pixmim-mae-1"} and (rows["n"] == 8).all()
    shown = capsys.readouterr().out
    assert "mse_lowfreq" in shown and "error_power" not in shown and "reconstruction.png" in shown
    assert main(arguments) == 0
    assert "2 of 2 conditions are done already" in capsys.readouterr().err


# --- bad input --------------------------------------------------------------------------------------------------------


def write_encoder(path: Path) -> Path:
    model = build(SMALL)
    settings = {"architecture": model.architecture, "image_size": SIZE, "method": "mae", "epoch": 1, "recipe": {}}
    ours.write(path, model.encoder.state_dict(), **settings)  # type: ignore[arg-type]
    return path


def test_an_encoder_alone_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, encoder = write(tmp_path / "whole.safetensors", SMALL), write_encoder(tmp_path / "encoder.safetensors")
    assert main([*COMMAND, "--checkpoint", str(whole), str(encoder), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "encoder.safetensors" in message and "an encoder only" in message and "pretrain.run" in message
    assert not (tmp_path / "out").exists()


def refuse_heads(path: Path, tensors: dict[str, torch.Tensor]) -> Model:
    torch.save({"model": tensors}, path)
    return open_model(path, TINY)


def refuse_fusion(path: Path, tensors: dict[str, torch.Tensor]) -> Model:
    state = {to_mmselfsup(key): value for key, value in tensors.items()} | {"backbone.proj_weights": torch.ones(2)}
    torch.save({"state_dict": state}, path)
    return open_model(path, TINY, decoder_heads=2)


def refuse_mask(path: Path, tensors: dict[str, torch.Tensor]) -> Model:
    torch.save({"model": tensors, "args": argparse.Namespace(mask_ratio="all")}, path)
    return open_model(path, TINY, decoder_heads=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (refuse_heads, "expected a number of attention heads, found nothing that tells it"),
        (refuse_fusion, "found MFF's, which reads a fusion of shallow layers"),
        (refuse_mask, r"expected a mask ratio .* fit 4 x 4 patches"),
        (lambda path, tensors: make_model(), "found a timm model, which has none"),
    ],
)
def test_a_decoder_that_cannot_be_built_is_refused(
    tmp_path: Path, reference: ReferenceMAE, make: Callable[..., Model], message: str
) -> None:
    model = make(tmp_path / "x.pth", reference.state_dict())
    with pytest.raises(InputError, match=message):
        compute_key(SUITE, model, "masked", make_config())


def test_an_incomplete_decoder_is_named(tmp_path: Path, reference: ReferenceMAE) -> None:
    tensors = {key: value for key, value in reference.state_dict().items() if key != "decoder_norm.bias"}
    torch.save({"model": tensors}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"norm.bias missing"):
        SUITE.run(open_model(tmp_path / "x.pth", TINY, decoder_heads=2), "masked", make_config())


def test_other_settings_beside_the_same_weights_are_other_work(tmp_path: Path) -> None:
    model = build(SMALL)
    keys = [
        compute_key(SUITE, open_model(write(tmp_path / "x.safetensors", recipe, model)), "masked", make_config())
        for recipe in (SMALL, replace(SMALL, target="pixels"), replace(SMALL, target="lowfreq"))
    ]
    assert len(set(keys)) == 3


def test_units_of_a_public_file_are_those_of_the_reference(tmp_path: Path, reference: ReferenceMAE) -> None:
    """LSMAE's masks of 2 x 2 patches, through a file that says so, against the plain definition's loss."""
    arguments = argparse.Namespace(norm_pix_loss=True, mask_downsampling=2)
    torch.save({"model": reference.state_dict(), "args": arguments}, tmp_path / "x.pth")
    checkpoint = replace(load(tmp_path / "x.pth", arch=TINY), decoder_heads=2)
    model = load_autoencoder(checkpoint)
    images, noise = torch.randn(3, 3, SIZE, SIZE), torch.rand(3, 4)
    orders = [order_patches(units.tolist(), 2, 2) for units in noise.argsort(dim=1)]
    with torch.no_grad():
        torch.testing.assert_close(model(images, noise), reference(images, noise_of(orders)).loss, rtol=1e-5, atol=0)
