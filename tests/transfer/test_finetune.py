"""Fine-tuning against the published rules written out, a plain loop, and itself: killed, in two processes, reopened."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval import training
from pixmim_eval.data.crops import RandomResizedCrop
from pixmim_eval.data.loader import TrainingLoader
from pixmim_eval.data.transforms import normalize
from pixmim_eval.errors import InputError
from pixmim_eval.extract import predict
from pixmim_eval.models.catalog import load_models
from pixmim_eval.models.checkpoints import ours
from pixmim_eval.seeds import derive_seed
from pixmim_eval.transfer.finetune import finetune
from pixmim_eval.transfer.networks import TunedClassifier, build_network, group_by_layer
from pixmim_eval.transfer.recipes import RECIPES, FinetuneOptions, resolve_recipe
from pixmim_eval.transfer.training_set import divide_batch, select_training_set
from pixmim_eval.types import Model, SuiteConfig
from tests.fakes import make_manifest
from tests.transfer.encoders import VIT, make_convvit, make_timm, make_vit
from tests.transfer.processes import run_in_two_processes

FULL = replace(
    RECIPES["mae-b"],
    epochs=3,
    train_batch_size=16,
    mix_images=4,
    warmup_epochs=1.0,
    base_lr=0.05,
    ema=0.8,
    drop_path=0.4,
)
PLAIN = replace(
    FULL,
    drop_path=0.0,
    rand_augment="none",
    random_erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
    precision="fp32",
)


class KilledError(Exception):
    """What a kill looks like from inside."""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[SuiteConfig]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield SuiteConfig(data={}, workers=0, seed=3, out=tmp_path / "run")
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXMIM_CACHE", str(tmp_path / "cache"))


def list_states(model: Model, config: SuiteConfig, recipe: object = FULL, count: int = 40) -> list[dict[str, Tensor]]:
    """The weights of the fine-tuned model and of its average."""
    tuned = finetune(model, make_manifest(count), config, recipe)  # type: ignore[arg-type]
    assert tuned.average is not None
    return [tuned.model.encoder.state_dict(), tuned.average.encoder.state_dict()]


def assert_equal(found: list[dict[str, Tensor]], wanted: list[dict[str, Tensor]], **tolerance: float) -> None:
    for ours_, theirs in zip(found, wanted, strict=True):
        assert ours_.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(
                ours_[key],
                value,
                msg=lambda text, key=key: f"{key}: {text}",
                **(tolerance or {"rtol": 0.0, "atol": 0.0}),
            )


def scale_of_mae(name: str, decay: float, depth: int) -> float:
    """util/lr_decay.py of MAE, whose num_layers is depth + 1."""
    if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
        layer = 0
    elif name.startswith("blocks"):
        layer = int(name.split(".")[1]) + 1
    else:
        layer = depth + 1
    return decay ** (depth + 1 - layer)


def scale_of_convmae(name: str, decay: float, depth: int) -> float:
    """util/lr_decay.py of ConvMAE, whose num_layers is the depth of the third stage + 1."""
    if name == "pos_embed" or name.startswith(("patch_embed", "blocks1", "blocks2")):
        layer = 0
    elif name.startswith("blocks3"):
        layer = int(name.split(".")[1]) + 1
    else:
        layer = depth + 1
    return decay ** (depth + 1 - layer)


@pytest.mark.parametrize(("make", "rule"), [(make_vit, scale_of_mae), (make_convvit, scale_of_convmae)])
@pytest.mark.parametrize("decay", [0.65, 1.0])
def test_every_parameter_has_the_published_rate_and_decay(make: object, rule: object, decay: float) -> None:
    network = build_network(make(), 5, "mean")  # type: ignore[operator]
    names = {id(parameter): name.partition(".")[2] for name, parameter in network.named_parameters()}
    seen = {}
    for group in group_by_layer(network, 0.05, decay):
        for parameter in group["params"]:
            seen[names[id(parameter)]] = group["lr_scale"], group["weight_decay"], parameter.ndim
    assert seen.keys() == set(names.values())
    for name, (scale, weight_decay, ndim) in seen.items():
        assert scale == pytest.approx(rule(name, decay, 3), rel=1e-12), name  # type: ignore[operator]
        assert weight_decay == (0.0 if ndim == 1 or name in ("cls_token", "pos_embed") else 0.05), name
    assert {"pos_embed", "fc_norm.weight", "head.bias", "patch_embed.proj.weight"} & seen.keys()


def test_the_class_token_keeps_the_final_norm_at_full_rate() -> None:
    network = build_network(make_vit(), 5, "cls")
    groups = group_by_layer(network, 0.05, 0.65)
    assert isinstance(network, TunedClassifier)
    scales = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    assert scales[id(network.encoder.norm.weight)] == scales[id(network.classifier.head.weight)] == 1.0
    assert isinstance(network.classifier.fc_norm, nn.Identity)


def test_recipes_are_the_published_ones() -> None:
    published = {"mae-b": (5e-4, 0.65, 0.1, 100), "mae-l": (1e-3, 0.75, 0.2, 50), "mae-h": (1e-3, 0.75, 0.3, 50)}
    for name, values in published.items():
        recipe = RECIPES[name]
        assert (recipe.base_lr, recipe.layer_decay, recipe.drop_path, recipe.epochs) == values
        assert (recipe.train_batch_size, recipe.warmup_epochs, recipe.min_lr, recipe.weight_decay) == (
            1024,
            5,
            1e-6,
            0.05,
        )
        assert (recipe.mixup, recipe.cutmix, recipe.mixup_switch_prob, recipe.label_smoothing) == (0.8, 1.0, 0.5, 0.1)
        assert (recipe.random_erasing, recipe.rand_augment, recipe.pooling) == (0.25, "rand-m9-mstd0.5-inc1", "mean")
        assert not recipe.ema


def test_any_field_of_a_recipe_can_be_given() -> None:
    recipe = resolve_recipe(FinetuneOptions(recipe="mae-l", epochs=7, mixup=0.0))
    assert recipe == replace(RECIPES["mae-l"], epochs=7, mixup=0.0)
    assert resolve_recipe(FinetuneOptions()) == RECIPES["mae-b"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("layer_decay", 0.0),
        ("drop_path", 1.0),
        ("ema", 1.0),
        ("mix_images", 5),
        ("random_erasing", 1.5),
        ("mixup", -0.1),
        ("rand_augment", "rand-x9"),
    ],
)
def test_a_field_that_cannot_be_is_named(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"in --{field.replace('_', '-')}"):
        resolve_recipe(FinetuneOptions(**{field: value}))


def finetune_plainly(model: Model, seed: int) -> list[dict[str, Tensor]]:
    """PLAIN as it was published: plain AdamW with a rate for each parameter, smooth labels, plain average."""
    torch.manual_seed(derive_seed(seed, "finetune"))
    network = build_network(model, 3, "mean")
    average = copy.deepcopy(network)
    names = [name for name, _ in network.named_parameters()]
    parameters = [
        {
            "params": [parameter],
            "scale": scale_of_mae(name.partition(".")[2], PLAIN.layer_decay, VIT.depth),
            "weight_decay": 0.0 if parameter.ndim == 1 or name.endswith(("cls_token", "pos_embed")) else 0.05,
        }
        for name, parameter in network.named_parameters()
    ]
    assert len(names) == len(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=1.0, betas=(0.9, 0.999))
    manifest = make_manifest(40)
    loader = TrainingLoader(manifest, RandomResizedCrop(16, scale=(0.08, 1.0)), batch_size=16, seed=seed, workers=0)
    peak = PLAIN.base_lr * 16 / 256
    for epoch in range(3):
        for step, batch in enumerate(loader.batches(epoch)):
            time = epoch + step / 2
            rate = peak * time if time < 1 else 1e-6 + (peak - 1e-6) * 0.5 * (1 + np.cos(np.pi * (time - 1) / 2))
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            images = normalize(batch.images, model.preprocessing.mean, model.preprocessing.std)
            loss = F.cross_entropy(network(images), batch.labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                    mean.copy_(0.8 * mean + 0.2 * value)
    return [network.state_dict(), average.state_dict()]


def test_training_is_the_published_one(config: SuiteConfig) -> None:
    model = make_vit()
    before = {key: value.clone() for key, value in model.encoder.state_dict().items()}
    found = list_states(model, config, PLAIN)
    assert_equal(found, finetune_plainly(make_vit(), config.seed), rtol=1e-4, atol=2e-5)
    moved = found[0]["encoder.blocks.0.attn.qkv.weight"] - before["blocks.0.attn.qkv.weight"]
    assert float(moved.abs().max()) > 1e-3
    assert float((found[0]["encoder.pos_embed"] - before["pos_embed"]).abs().max()) > 1e-4  # positions learn too
    assert all(torch.equal(value, before[key]) for key, value in model.encoder.state_dict().items())  # a copy learnt


def test_a_killed_run_ends_with_the_numbers_of_an_unbroken_one(
    config: SuiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = list_states(make_vit(), config)
    broken, plain = replace(config, out=tmp_path / "broken", workers=2), training._Loop._run_step

    def kill(loop: training._Loop, *arguments: object) -> float:
        if loop.step == 3:
            loop._save_state()  # as if the minutes between two states were over, in the middle of an epoch
            raise KilledError
        return plain(loop, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training._Loop, "_run_step", kill)
    with pytest.raises(KilledError):
        list_states(make_vit(), broken)
    monkeypatch.setattr(training._Loop, "_run_step", plain)
    assert_equal(list_states(make_vit(), broken), wanted)


def test_micro_batches_and_workers_change_nothing(config: SuiteConfig, tmp_path: Path) -> None:
    wanted = list_states(make_vit(), config)
    found = list_states(make_vit(), replace(config, out=tmp_path / "parts", workers=1), replace(FULL, micro_batch=4))
    assert_equal(found, wanted, rtol=1e-3, atol=1e-4)


def test_two_processes_train_as_one(config: SuiteConfig, tmp_path: Path) -> None:
    def work(rank: int) -> None:
        states = list_states(make_vit(), replace(config, out=tmp_path / "two"))
        torch.save(states, tmp_path / f"states-{rank}.pt")

    run_in_two_processes(work)
    wanted = list_states(make_vit(), config)
    for rank in range(2):
        assert_equal(torch.load(tmp_path / f"states-{rank}.pt"), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_timm_models_are_tuned_with_their_own_pooling(config: SuiteConfig, name: str) -> None:
    model = make_timm(name, **({"img_size": 32} if name == "test_vit" else {}))
    tuned = finetune(model, make_manifest(20), config, replace(FULL, epochs=3))
    assert tuned.protocol["pooling"] == "own"
    changed = tuned.model.encoder.network.state_dict()
    names = [key for key, value in model.encoder.network.named_parameters() if value.shape == changed[key].shape]
    moved = [key for key in names if not torch.equal(changed[key], model.encoder.network.state_dict()[key])]
    assert len(moved) > 0.9 * len(names)
    for key, value in model.encoder.network.named_buffers():  # batch norms keep their statistics
        assert torch.equal(changed[key], value)
    assert tuned.model.classify is not None
    assert tuned.model.classify(torch.randn(2, 3, 32, 32)).shape == (2, 3)


def test_a_convvit_is_tuned_without_its_fusion(config: SuiteConfig) -> None:
    tuned = finetune(make_convvit(), make_manifest(20), config, replace(FULL, epochs=1, warmup_epochs=0.0))
    assert not any(key.startswith("encoder.stage") for key in tuned.model.encoder.state_dict())
    with pytest.raises(InputError, match="as the encoder has no class token"):
        finetune(make_convvit(), make_manifest(20), config, replace(FULL, pooling="cls"))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_tuned_weights_are_left_as_a_checkpoint_that_classifies_alike(
    config: SuiteConfig, tmp_path: Path, pooling: str
) -> None:
    ours.write(
        tmp_path / "mae.safetensors",
        dict(make_vit().encoder.state_dict()),
        architecture=VIT,
        image_size=16,
        method="pixmim-mae",
        epoch=5,
        recipe={},
    )
    (model,) = load_models([str(tmp_path / "mae.safetensors")], [])
    tuned = finetune(model, make_manifest(20), config, replace(FULL, epochs=1, pooling=pooling))  # type: ignore[arg-type]
    (folder,) = (config.out / "training").iterdir()
    for name, wanted in (("finetuned", tuned.model), ("finetuned-ema", tuned.average)):
        (found,) = load_models([str(folder / f"{name}.safetensors")], [])
        assert (found.method, found.epoch, found.label_space) == (
            "pixmim-mae-finetuned",
            5,
            make_manifest(1).label_space,
        )
        assert wanted is not None
        sets = [predict(each, make_manifest(9), config=config) for each in (found, wanted)]
        np.testing.assert_allclose(sets[0].logits, sets[1].logits, atol=1e-6)


def test_a_loss_that_is_not_finite_fails_this_model_alone(config: SuiteConfig) -> None:
    with pytest.raises(FloatingPointError, match="loss: expected a finite number"):
        finetune(make_vit(), make_manifest(40), config, replace(FULL, base_lr=1e30, warmup_epochs=0.0))


def test_a_batch_is_whole_groups_on_every_process() -> None:
    exact = divide_batch(1024, 10**6, group=32, processes=8, at_once=128)
    assert (exact.batch, exact.group, exact.accumulate, exact.split) == (1024, 32, 1, False)
    small = divide_batch(1024, 10**6, group=32, processes=1, at_once=128)
    assert (small.batch, small.accumulate) == (1024, 8)
    clipped = divide_batch(1024, 1000, group=32, processes=2, at_once=128)
    assert (clipped.batch, clipped.accumulate) == (960, 5)
    tiny = divide_batch(1024, 21, group=32, processes=2, at_once=128)
    assert (tiny.batch, tiny.group) == (20, 10)
    with pytest.raises(InputError, match="at least two images for each of 4 processes"):
        divide_batch(1024, 7, group=32, processes=4, at_once=128)


def test_a_part_of_the_training_set_is_read_by_its_own_rows() -> None:
    manifest = make_manifest(30)
    chosen = select_training_set(manifest, 10)
    rows = [list(manifest.keys).index(key) for key in chosen.keys]
    assert np.array_equal(chosen.labels, manifest.labels[rows])
    for place, row in enumerate(rows):
        assert np.array_equal(chosen.source.read([place])[0], manifest.source.read([row])[0])
    assert chosen.digest != manifest.digest
    assert select_training_set(manifest, None) is manifest
