"""Runs of classifiers: their accuracy, their activations as features, and what they cannot do."""

import math
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from mistakes import fails
from recorder import Recorder

import ddpm_jax
from ddpm_jax import metrics
from ddpm_jax.commands import main
from ddpm_jax.data import Data, digits
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Experiment
from ddpm_jax.runs import classifiers
from ddpm_jax.runs.checks import check_network
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.features import pictures
from ddpm_jax.runs.records import read_records
from ddpm_jax.runs.report import evaluate
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.sampling import Run

FILE = Path(__file__).parents[1] / "experiments" / "tiny_classifier.py"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The workdir of a tiny classifier. Not to be written to."""
    folder = tmp_path_factory.mktemp("classifiers") / "tiny"
    assert main(["train", str(FILE), "--workdir", str(folder)]) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


class Sign(nn.Module):
    """The posterior of x_0 = 1, rather than -1, up to a factor: the sign of the logit is that of the pixel."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return jnp.concatenate([-x[:, 0, 0], x[:, 0, 0]], axis=-1)


def of_bits(network: nn.Module, num: int, classes: int | None = 2) -> tuple[Run, list]:
    """A classifier of single pixels, whose label is their value, and `num` examples of each value in turn."""
    examples = [{"image": np.full((1, 1, 1), n % 2, np.uint8), "label": np.int32(n % 2)} for n in range(2 * num)]
    process = gaussian.process(schedules.linear(40, 0.002, 0.3), gaussian.discretized(2))
    made = Experiment(
        data=Data("bits", (1, 1, 1), open=lambda split: examples, num_classes=classes, levels=2),
        process=process,
        parameterization=parameterizations.classes(process),
        network=network,
        loss=losses.cross_entropy,
        optimizer=optax.sgd(0.1),
        batch_size=4,
        num_steps=1,
        ema_decay=0.9,
    )
    return Run(made, {}, 0), examples


def test_the_accuracy_on_noisy_bits_is_that_of_the_normal_distribution():
    """Of x_t = +- sqrt(alpha_bar) + noise the sign is right with probability Phi(sqrt(alpha_bar / (1 - alpha_bar)))."""
    run, examples = of_bits(Sign(), 2000)
    work = classifiers.accuracy_work(run, examples, len(examples), 500, seed=0)
    found = classifiers.summarize(run, [each for first in work.firsts for each in work.compute([first])])
    assert found["accuracy"][0] == 1 and list(found["noisy"]) == ["2", "4", "10", "20"]
    ratios = {t: float(schedules.signal_to_noise(run.experiment.process.schedule, int(t))) for t in found["noisy"]}
    expected = {t: 0.5 * (1 + math.erf(math.sqrt(ratio / 2))) for t, ratio in ratios.items()}
    assert 0.6 < expected["20"] < expected["10"] < 0.95
    for t, row in found["noisy"].items():
        assert row["accuracy"][0] == pytest.approx(expected[t], abs=4 * math.sqrt(0.25 / 4000))
    assert found["nats"][0] == pytest.approx(math.log1p(math.exp(-2)), rel=1e-5)  # of logits -1 and 1


def test_training_ends_with_the_accuracy_on_all_test_images(classifier):
    (record,) = read_records(classifier / "evaluation.json")
    assert not (classifier / "samples").exists() and "bpd" not in record
    run, data = ddpm_jax.load(classifier), digits()
    test = [data.open("test")[row] for row in range(len(data.open("test")))]
    x_0 = jnp.asarray(np.stack([each["image"] for each in test]) / np.float32(8) - 1)
    logits = run.experiment.network.apply({"params": run.params}, x_0, jnp.zeros(len(x_0)))
    right = np.asarray(logits).argmax(axis=1) == [each["label"] for each in test]
    assert record["accuracy"]["accuracy"][0] == pytest.approx(right.mean()) and len(right) == 360
    assert main(["evaluate", str(shutil.copytree(classifier, classifier.parent / "again"))]) == 0


def activations(folder: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(features, logits) of a classifier for bytes, by its parts: the last layer is linear in the features."""
    run = ddpm_jax.load(folder)
    x_0 = jnp.asarray(images, jnp.float32) / 127.5 - 1
    _, kept = run.experiment.network.apply({"params": run.params}, x_0, jnp.zeros(len(x_0)), mutable=["intermediates"])
    (features,) = kept["intermediates"]["features"]
    last = run.params["logits"]
    return np.asarray(features), np.asarray(features @ last["kernel"] + last["bias"][None])


def asked(workdir: Path, *names: str, **options) -> EvaluateRequest:
    defaults: dict = {"metrics": names, "samples": 100, "steps": 4, "split": "train", "num": 200}
    return EvaluateRequest(workdir, **defaults | options)


def test_the_metrics_are_those_of_the_activations_of_clean_images(run, classifier, tmp_path):
    found = evaluate(asked(run, "fid", "kid", "is", features=classifier), seen := Recorder())
    assert main(["sample", str(run), "--num", "100", "--steps", "4", "--out", str(tmp_path / "x.npz")]) == 0
    (drawn, logits), (reference, _) = (
        activations(classifier, images)
        for images in (np.load(tmp_path / "x.npz")["arr_0"], pictures(digits().open("train"), range(200), 17))
    )
    expected = metrics.frechet(metrics.block_moments(drawn), metrics.moments(reference))
    assert found["fid"]["fid"] == pytest.approx(expected, rel=1e-3)
    assert found["kid"]["kid"] == pytest.approx(metrics.kid(drawn, reference), rel=1e-2, abs=1e-6)
    score = metrics.inception_score(logits)
    assert found["is"]["of_splits"] == pytest.approx(score[:2], rel=1e-3)
    assert seen.lines[0].startswith("Frechet distance (features classifier, 100 samples, 200 train images, sampler")
    assert seen.lines[2].startswith("Score of the classes (features classifier, 100 samples, sampler")


@pytest.mark.slow  # trains a second one
def test_the_protocol_is_that_of_the_classifier_and_not_of_its_folder(run, classifier, tmp_path):
    evaluate(asked(run, "kid", features=classifier), first := Recorder())
    evaluate(asked(run, "kid", features=shutil.copytree(classifier, tmp_path / "moved"), steps=5), moved := Recorder())
    assert main(["train", str(FILE), "--workdir", str(tmp_path / "other"), "--seed", "1"]) == 0
    evaluate(asked(run, "kid", features=tmp_path / "other"), other := Recorder())
    assert len(first.lines) == 1 and "by the same protocol; drawn with steps" in moved.lines[1]
    assert "not comparable, its protocol differs: classifier_digest" in other.lines[1]
    protocol = read_records(run / "evaluation.json")[-1]["kid"]["protocol"]
    assert protocol["classifier"] == "tiny_classifier" and protocol["classifier_step"] == 4


def test_your_own_features_are_a_function_in_a_file(run, tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def features(images):\n    return images.reshape(len(images), -1).astype('float32') / 255\n")
    found, pixels = (evaluate(asked(run, "kid", features=each), Reporter())["kid"]["kid"] for each in (own, "pixels"))
    assert found == pytest.approx(pixels, rel=1e-5)
    assert read_records(run / "evaluation.json")[-2]["kid"]["protocol"]["features"] == "own.py"


FEATURES = {
    "nowhere": "--features nowhere.*is not a workdir|nowhere is not a workdir",
    "{model}": "--features .*: the run there is no classifier: train one with ddpm-jax train classifier",
    "nowhere.py": "--features nowhere.py: there is no such file",
    "{wrong}": r"features\(images\) returns ShapeDtypeStruct\(shape=\(2, 8, 8, 1\), dtype=uint8\), not float32 \[num",
}


@pytest.mark.parametrize("name", FEATURES)
def test_features_that_there_are_none_of(finished, tmp_path, capsys, name):
    (tmp_path / "wrong.py").write_text("def features(images):\n    return images\n")
    given = name.format(model=finished, wrong=tmp_path / "wrong.py")
    message = fails(capsys, "evaluate", str(finished), "--metrics", "kid", "--features", given)
    assert re.search(FEATURES[name], message)


def test_a_classifier_of_other_images_has_no_features(classifier):
    with pytest.raises(ValueError, match=r"classifier there is for images of \(8, 8, 1\), not \(28, 28, 1\)"):
        classifiers.features(classifier, (28, 28, 1))


COMMANDS = {
    "sample {}": "this run is a classifier, which has no samples and no bound: use it for another run",
    "evaluate {} --metrics bpd": "--metrics bpd: this run is a classifier",
    "evaluate {} --metrics fid --features pixels": "--metrics fid: this run is a classifier",
    "export {} {}.stablehlo": "this run is a classifier",
    "study chain {}": "this run is a classifier",
    "tour {}": "this run is a classifier",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_classifier_cannot_do_is_one_line(classifier, capsys, command):
    assert COMMANDS[command] in fails(capsys, *command.replace("{}", str(classifier)).split())
    assert {path.name for path in classifier.iterdir() if path.name.startswith(("samples", "evaluation_"))} == set()


def test_only_a_classifier_has_an_accuracy(finished, capsys):
    assert "this run is no classifier" in fails(capsys, "evaluate", str(finished), "--metrics", "accuracy")


def test_a_classifier_needs_labels_and_a_logit_for_each_class():
    check_network(of_bits(Sign(), 1)[0].experiment)
    with pytest.raises(ValueError, match="a classifier needs labels, and the data bits have none"):
        check_network(of_bits(Sign(), 1, classes=None)[0].experiment)
    with pytest.raises(ValueError, match=r"output has shape \(2,\), and the data bits have 3 classes"):
        check_network(of_bits(Sign(), 1, classes=3)[0].experiment)
    with pytest.raises(ValueError, match="a classifier is trained with labels"):
        made = of_bits(Sign(), 1)[0].experiment
        x_0 = jnp.zeros((2, 1, 1, 1))
        losses.cross_entropy(jax.random.key(0), made.process, made.parameterization, lambda x, t, _: x, x_0)
