"""The published linear probe against a plain loop of the published definitions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixmim_eval import training
from pixmim_eval.data.crops import SingleTryResizedCrop
from pixmim_eval.data.loader import TrainingLoader
from pixmim_eval.data.transforms import normalize
from pixmim_eval.errors import InputError
from pixmim_eval.models.heads import LinearHead
from pixmim_eval.seeds import derive_seed
from pixmim_eval.transfer.linear import ProbeOptions, build_lars, group_for_lars, train_linear_probe
from pixmim_eval.types import Manifest, Model, SuiteConfig
from tests.fakes import make_manifest, make_model
from tests.transfer.processes import run_in_two_processes

OPTIONS = ProbeOptions(epochs=4, batch_size=32, warmup_epochs=1.0, base_lr=8.0, norm_images=8)


class KilledError(Exception):
    """What a kill looks like from inside."""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[SuiteConfig]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield SuiteConfig(data={}, workers=0, seed=3, out=tmp_path / "run")
    torch.set_num_threads(threads)


def probe(config: SuiteConfig, options: ProbeOptions = OPTIONS, **changes: object) -> LinearHead:
    fields: dict[str, object] = {"model": make_model(space=None), "train_set": make_manifest(70), **changes}
    return train_linear_probe(fields["model"], fields["train_set"], config, options)[0]  # type: ignore[arg-type]


def list_tensors(head: LinearHead) -> list[Tensor]:
    return [head.weight, head.bias, head.mean, head.scale]


class PublishedLars:
    """The update of util/lars.py, one parameter after the other, in float64."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.momenta = [torch.zeros_like(parameter) for parameter in parameters]

    def step(self, parameters: list[Tensor], gradients: list[Tensor], rate: float) -> None:
        for parameter, gradient, momentum in zip(parameters, gradients, self.momenta, strict=True):
            if parameter.ndim > 1:
                lengths = float(parameter.norm()), float(gradient.norm())
                gradient = gradient * (0.001 * lengths[0] / lengths[1] if min(lengths) > 0 else 1.0)
            momentum.copy_(0.9 * momentum + gradient)
            parameter -= rate * momentum


def test_lars_does_the_published_update() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(10, 6), (10,), (3, 4), (4,)]
    start = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    start[2].zero_()  # a matrix of zeros has no trust ratio
    ours = [nn.Parameter(value.float()) for value in start]
    wanted = [value.clone() for value in start]
    optimizer, published = build_lars(group_for_lars(ours), 6.4), PublishedLars(wanted)
    for step in range(10):
        gradients = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        if step == 4:
            gradients[0].zero_()  # and so has one without a gradient
        for parameter, gradient in zip(ours, gradients, strict=True):
            parameter.grad = gradient.float()
        for group in optimizer.param_groups:
            group["lr"] = 0.64 * (step + 1)
        optimizer.step()
        published.step(wanted, gradients, 0.64 * (step + 1))
        for parameter, value in zip(ours, wanted, strict=True):
            torch.testing.assert_close(parameter.double(), value, rtol=1e-6, atol=1e-6)


def train_plainly(model: Model, manifest: Manifest, options: ProbeOptions, seed: int, pooling: str) -> list[Tensor]:
    """The probe as it was published, on groups in the place of GPUs: weights, biases, running mean, scale."""
    loader = TrainingLoader(manifest, SingleTryResizedCrop(16), batch_size=options.batch_size, seed=seed, workers=0)
    torch.manual_seed(derive_seed(seed, "probe"))
    linear = nn.Linear(model.encoder.dim, len(manifest.label_space.classes))
    nn.init.trunc_normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    first = nn.BatchNorm1d(model.encoder.dim, affine=False, eps=1e-6)  # of the first GPU, whose buffers are kept
    parameters = [linear.weight.detach(), linear.bias.detach()]
    lars, steps = PublishedLars(parameters), loader.steps_per_epoch
    for epoch in range(options.epochs):
        for step, batch in enumerate(loader.batches(epoch)):
            time = epoch + step / steps
            peak = options.base_lr * options.batch_size / 256
            cosine = 0.5 * (
                1 + np.cos(np.pi * (time - options.warmup_epochs) / (options.epochs - options.warmup_epochs))
            )
            rate = peak * (time / options.warmup_epochs if time < options.warmup_epochs else cosine)
            preprocessing = model.preprocessing
            with torch.no_grad():
                tokens = model.encoder.tokens(normalize(batch.images, preprocessing.mean, preprocessing.std))
            features = tokens.cls if pooling == "cls" else tokens.patches.mean(dim=1)
            norms = [first, *(nn.BatchNorm1d(model.encoder.dim, affine=False, eps=1e-6) for _ in range(3))]
            parts = zip(norms, features.chunk(4), batch.labels.chunk(4), strict=True)
            losses = [F.cross_entropy(linear(norm(part)), labels) for norm, part, labels in parts]
            gradients = torch.autograd.grad(sum(losses) / 4, list(linear.parameters()))
            lars.step(parameters, list(gradients), rate)
    assert first.running_mean is not None
    assert first.running_var is not None
    return [*parameters, first.running_mean, (first.running_var + 1e-6).sqrt()]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_probe_is_the_published_one(config: SuiteConfig, pooling: str) -> None:
    head = probe(config, replace(OPTIONS, pooling=pooling))  # type: ignore[arg-type]
    wanted = train_plainly(make_model(space=None), make_manifest(70), OPTIONS, config.seed, pooling)
    for found, expected in zip(list_tensors(head), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert head.pooling == pooling
    features = torch.randn(5, 12)
    expected = F.linear((features - wanted[2]) / wanted[3], wanted[0], wanted[1])
    torch.testing.assert_close(head(features), expected, rtol=1e-3, atol=1e-4)


def test_the_defaults_are_the_published_settings() -> None:
    options = ProbeOptions()
    assert (options.epochs, options.batch_size, options.base_lr, options.warmup_epochs) == (90, 16384, 0.1, 10)
    assert training.scale_learning_rate(options.base_lr, options.batch_size) == pytest.approx(6.4)


def test_a_killed_probe_ends_with_the_numbers_of_an_unbroken_one(
    config: SuiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = probe(config)
    broken = replace(config, out=tmp_path / "broken")
    plain = training._Loop._run_step

    def kill(loop: training._Loop, *arguments: object) -> float:
        if loop.step == 5:
            raise KilledError
        return plain(loop, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training._Loop, "_run_step", kill)
    with pytest.raises(KilledError):
        probe(broken)
    monkeypatch.setattr(training._Loop, "_run_step", plain)
    for found, expected in zip(list_tensors(probe(broken)), list_tensors(wanted), strict=True):
        assert torch.equal(found, expected)


def test_a_finished_probe_is_not_trained_again(config: SuiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = probe(config)
    monkeypatch.delattr(training._Loop, "_run_step")
    assert torch.equal(probe(config).weight, wanted.weight)


@pytest.mark.parametrize("norm_images", [8, 32])  # whole groups on each process, and one that they share
def test_two_processes_train_the_probe_of_one(config: SuiteConfig, tmp_path: Path, norm_images: int) -> None:
    options = replace(OPTIONS, norm_images=norm_images)

    def work(rank: int) -> None:
        head = probe(replace(config, out=tmp_path / "two"), options)
        torch.save(list_tensors(head), tmp_path / f"head-{rank}.pt")

    run_in_two_processes(work)
    for rank in range(2):
        found = torch.load(tmp_path / f"head-{rank}.pt")
        for value, expected in zip(found, list_tensors(probe(config, options)), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_the_encoder_is_left_as_it_was(config: SuiteConfig) -> None:
    model = make_model(space=None)
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    probe(config, model=model)
    assert not model.encoder.training
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in model.encoder.parameters())


def test_a_batch_that_exceeds_the_data_is_said_and_the_rate_follows(
    config: SuiteConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="pixmim_eval"):
        _, protocol = train_linear_probe(
            make_model(space=None), make_manifest(70), config, replace(OPTIONS, batch_size=16384)
        )
    assert "a batch of 16384 was asked for; train has 70 images" in caplog.text
    assert "the effective batch is 64" in caplog.text
    assert "batch=64,norm=8" in protocol["head"]
    (folder,) = (config.out / "training").iterdir()
    rates = [float(line.split('"learning_rate": ')[1].split(",")[0]) for line in (folder / "log.jsonl").open()]
    assert max(rates) == pytest.approx(8.0 * 64 / 256)


def test_a_class_token_asked_of_an_encoder_without_one_is_an_error(config: SuiteConfig) -> None:
    model = make_model(space=None, cls=False)
    with pytest.raises(InputError, match="expected one that the encoder has: mean, found cls"):
        probe(config, replace(OPTIONS, pooling="cls"), model=model)
    assert probe(config, model=model).pooling == "mean"


def test_features_that_are_not_numbers_are_counted_and_named(config: SuiteConfig) -> None:
    model = make_model(space=None, activation=nn.Threshold(-1e9, 0.0))
    model.encoder.embed.bias.data[0] = float("nan")
    with pytest.raises(
        FloatingPointError, match=r"features cls of model tiny are not finite for 8 of 8 .*layer embed is"
    ):
        probe(config, model=model)


def test_a_group_of_which_one_image_is_left_changes_no_number_to_nan(config: SuiteConfig) -> None:
    order = next(
        TrainingLoader(make_manifest(70), SingleTryResizedCrop(16), batch_size=8, seed=3, workers=0).batches(0)
    )
    bad = make_manifest(70, bad=tuple(order.index[:7].tolist()))
    head = probe(replace(config, on_bad_image="skip"), replace(OPTIONS, batch_size=8), train_set=bad)
    assert all(tensor.isfinite().all() for tensor in list_tensors(head))


def test_images_without_labels_are_an_error(config: SuiteConfig) -> None:
    manifest = make_manifest(70)
    with pytest.raises(InputError, match="70 without a label"):
        probe(config, train_set=replace(manifest, labels=np.full(70, -1)))
