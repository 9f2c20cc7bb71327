"""Models: those that come with the library are what their cards state, and `pack` writes the run it is given."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from mistakes import fails

import ddpm_jax
from ddpm_jax import figures
from ddpm_jax.commands import main
from ddpm_jax.experiment import first_state, init_fn, shapes
from ddpm_jax.runs import experiment_files, models, pack, resume, workdir
from ddpm_jax.runs.requests import PackRequest, TrainRequest
from ddpm_jax.runs.versions import versions
from ddpm_jax.sampling import Run
from ddpm_jax.training import checkpoints
from ddpm_jax.training.digests import digest

ROOT = Path(__file__).parents[2]
MOST_BYTES = 2_000_000
"""All models together, compressed as in a wheel."""
SMALL, KNOBS = "sohl_dickstein_2015/swiss_roll", {"timesteps": 10, "train_betas": False, "seed": 3}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The workdir of a small, untrained run of an experiment of the library. Not to be written to."""
    folder, file = tmp_path_factory.mktemp("small") / "run", experiment_files.shipped()[SMALL]
    function = experiment_files.read(file)
    experiment = function(**KNOBS)
    params = init_fn(experiment)(jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    data = {"found": "100 points", "digest": "0"}
    workdir.prepare(folder, file, experiment_files.defaults(function) | KNOBS, data=data)
    with checkpoints.manager(folder / "checkpoints") as manager:
        checkpoints.save(manager, first_state(experiment, params))
    return folder


@pytest.fixture(scope="module")
def packed(small):
    """The same run as a model."""
    out = small.parent / "mine"
    pack.pack(PackRequest(small, out, num=6, times=3))
    return out


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drawn(run: Run) -> np.ndarray:
    return np.asarray(run.sampler()(ddpm_jax.keys(0, 4)))


@pytest.mark.parametrize("name", models.shipped())
def test_the_card_is_that_of_the_files(name):
    folder = models.shipped()[name]
    record, run = workdir.read_record(folder), ddpm_jax.load(folder)
    assert models.sha256(folder / models.WEIGHTS) == record["sha256"]
    assert digest(run.params) == record["digest"] and run.step == record["step"]
    assert sum(leaf.size for leaf in jax.tree.leaves(run.params)) == record["parameters"]
    assert pack.card(name, record) == (folder / "README.md").read_text()
    (mean, _), (_, error) = (record["bits_per_dim"][key] for key in ("difference", "float32"))
    assert abs(mean) < 0.1 * error  # what rounding costs


def test_the_models_are_in_the_wheel_and_small():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["ddpm_jax"] and models.FOLDER == ROOT / "ddpm_jax" / "models"
    assert "exclude" not in wheel and "models" not in (ROOT / ".gitignore").read_text()
    files = contents(models.FOLDER)
    assert {Path(path).name for path in files} == {models.WEIGHTS, "experiment.json", "README.md"}  # no program
    assert sum(len(zlib.compress(content)) for content in files.values()) < MOST_BYTES


ALONE = """
import contextlib, socket, sys
import ddpm_jax.data.digits  # the module, which the function of this name hides

def refused(*_):
    raise OSError("this cannot be opened")

socket.socket.connect = socket.getaddrinfo = refused
sys.modules["ddpm_jax.data.digits"]._open = refused
from ddpm_jax.commands import main
sys.exit(main(["sample", "digits", "--steps", "3", "--num", "4"]))
"""


def test_it_samples_without_network_and_without_its_data(here):
    environment = os.environ | {"HOME": str(here), "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run([sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True)
    picture = Path("outputs/digits/samples/ancestral_steps3_seed0_num4_at2000.png")
    assert done.stdout == f"4 images in {picture}\n", done.stderr
    assert figures.provenance_of(picture)["parameters"] == workdir.read_record(models.FOLDER / "digits")["digest"]


@pytest.mark.slow  # measures the bound of the model
def test_evaluate_agrees_with_the_card_and_leaves_the_package_as_it_is(here, capsys):
    """Up to the error of fewer examples and times."""
    before = contents(models.FOLDER)
    assert main(["evaluate", "digits", "--num", "24", "--times", "4", "--json", "bits.json"]) == 0
    assert contents(models.FOLDER) == before and Path("outputs/digits/evaluation.json").is_file()
    mean, error = json.loads(Path("bits.json").read_text())["bpd"]["total"]
    stated = workdir.read_record(models.FOLDER / "digits")["bits_per_dim"]["stored"][0]
    assert abs(mean - stated) < 3 * error


def test_a_refused_evaluation_leaves_no_folder(here, capsys):
    fails(capsys, "evaluate", "digits", "--times", "1000")
    assert not list(here.iterdir())


@pytest.mark.parametrize("dtype", [pytest.param("float16", marks=pytest.mark.slow), "bfloat16"])
def test_samples_are_those_of_the_rounded_parameters(dtype, small, tmp_path):
    pack.pack(PackRequest(small, tmp_path / "mine", dtype=dtype, num=2, times=3))
    run, model = ddpm_jax.load(small), ddpm_jax.load(tmp_path / "mine")
    rounded = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), run.params)
    assert digest(model.params) == digest(rounded) != digest(run.params)
    np.testing.assert_array_equal(drawn(model), drawn(run._replace(params=rounded)))
    whole = models.tensors_of(run.params, "float32").values()
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(whole, jax.tree.leaves(run.params), strict=True))
    assert f"stored as {dtype}" in (tmp_path / "mine" / "README.md").read_text()


def test_the_numbers_of_the_card_are_those_of_evaluate(packed, here):
    stated = workdir.read_record(packed)["bits_per_dim"]
    options = ["--metrics", "bpd", "--num", "6", "--times", "3", "--json", "bits.json"]
    assert main(["evaluate", str(packed), *options]) == 0
    assert json.loads(Path("bits.json").read_text())["bpd"]["total"] == pytest.approx(stated["stored"])
    assert stated["difference"][0] == pytest.approx(stated["stored"][0] - stated["float32"][0])
    card = (packed / "README.md").read_text()
    assert f"`ddpm-jax train {SMALL} --timesteps 10 --no-train-betas --seed 3`, 0 steps" in card


def test_the_card_has_several_metrics_of_one_measurement(small, tmp_path):
    """Curves are left out."""
    run = shutil.copytree(small, tmp_path / "run")
    protocol = {"metrics": ["fid", "kid", "pr"], "samples": 9, "sampler": "ddim"}
    measured = {"fid": {"fid": [1.5, 0.1]}, "kid": {"kid": [0.01, 0.001]}, "pr": {"precision": [0.8, 0.1], "k": 3}}
    bound = {"bpd": {"total": [2.5, 0.1], "rate": [0.1, 0.2, 0.3]}, "protocol": {"metrics": ["bpd"]}}
    records = [each | {"step": 0, "weights": "ema"} for each in (measured | {"protocol": protocol}, bound)]
    (run / "evaluation.json").write_text(json.dumps(records))
    pack.pack(PackRequest(run, tmp_path / "mine", num=2, times=3))
    card = (tmp_path / "mine" / "README.md").read_text()
    for row in ("fid fid | 1.5000 +- 0.1000", "kid kid | 0.0100 +- 0.0010", "pr precision | 0.8000 +- 0.1000"):
        assert f"| {row} | samples 9, sampler ddim |" in card
    assert "| bpd total | 2.5000 +- 0.1000 |" in card
    assert '"rate"' not in (tmp_path / "mine" / "experiment.json").read_text()


def test_what_commands_write_about_a_model_goes_into_the_current_folder(packed, here):
    """Pictures, locks, and the statistics of the analytic variance."""
    before = contents(packed)
    assert main(["sample", str(packed), "--num", "2", "--variance", "analytic"]) == 0
    assert contents(packed) == before and [path.name for path in here.iterdir()] == ["outputs"]
    assert {path.name for path in (here / "outputs" / "mine").iterdir()} == {"samples", "statistics.npz"}


def test_a_model_without_its_data_at_hand_is_loaded(tmp_path, monkeypatch):
    """Such as one of a data set of TFDS that was never prepared."""
    monkeypatch.setattr("ddpm_jax.data.tfds._open", lambda *_: pytest.fail("the data were opened"))
    function = experiment_files.read(experiment_files.shipped()["fashion_mnist"])
    knobs = {"width": 16, "conditional": True}
    params = jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float32), shapes(function(**knobs)))
    bits = dict.fromkeys(("stored", "float32", "difference"), (1.0, None))
    bits |= {"split": "test", "num_examples": 1, "times": 1, "seed": 0}
    made = {"experiment": "fashion_mnist.py", "knobs": knobs, "versions": versions(), "commit": None}
    made |= {"description": "", "command": "", "step": 5, "weights": "ema", "dtype": "float16"}
    record = made | {"parameters": 0, "digest": "", "bits_per_dim": bits, "results": []}
    pack.write(tmp_path / "coats", record, models.tensors_of(params, "float16"))
    run = ddpm_jax.load(tmp_path / "coats")
    assert run.step == 5 and run.experiment.num_classes == 10 and digest(run.params) == digest(params)


def test_a_run_can_start_from_a_model(here):
    """The record has the name: the folder of the package is another one elsewhere."""
    request = TrainRequest(workdir=Path("runs/mine"), start_from=Path("digits"))
    assert resume.origin_of(request) == {"workdir": "digits", "weights": "ema"}
    model = ddpm_jax.load("digits")
    assert digest(resume.start(request, model.experiment)) == digest(model.params)


def test_a_folder_of_the_name_wins(small, here):
    shutil.copytree(small, "digits")
    assert ddpm_jax.load("digits").experiment.data.name == "swiss_roll"
    assert models.home(Path("digits")) == Path("digits")


def test_mistakes_are_one_line(small, packed, here, capsys):
    assert "come with the library (digits" in fails(capsys, "sample", "digts")
    assert "come with the library (digits" in fails(capsys, "evaluate", "digts")
    assert "ema weights only" in fails(capsys, "sample", "digits", "--weights", "raw")
    assert "digits is not a workdir, and is a model" in fails(capsys, "pack", "digits", "out")
    Path("digits").mkdir()
    assert "hides the model digits" in fails(capsys, "sample", "digits")
    assert "exists" in fails(capsys, "pack", str(small), str(packed))
    assert "is not a workdir" in fails(capsys, "pack", "nothing", "out")
    assert not Path("out").exists()


@pytest.mark.slow
def test_an_experiment_that_has_changed_is_found(small, here, capsys):
    changed = Path(shutil.copytree(small, "changed")) / "experiment.py"
    changed.write_text(changed.read_text().replace("np.geomspace(beta_1,", "np.geomspace(2 * beta_1,"))
    assert "it has changed since" in fails(capsys, "pack", "changed", "out")
    assert not Path("out").exists()


def test_only_runs_of_the_experiments_of_the_library_are_packed(small, here, capsys):
    changed = Path(shutil.copytree(small, "changed"))
    record = workdir.read_record(changed) | {"experiment": "mine.py"}
    (changed / "experiment.json").write_text(json.dumps(record))
    assert "--experiment: give the name of mine.py" in fails(capsys, "pack", "changed", "out")


def test_damage_and_other_parameters_are_refused(packed, tmp_path):
    copy = shutil.copytree(packed, tmp_path / "copy")
    content = bytearray((copy / models.WEIGHTS).read_bytes())
    content[-1] ^= 1
    (copy / models.WEIGHTS).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: its SHA-256"):
        ddpm_jax.load(copy)
    record = workdir.read_record(copy) | {"sha256": models.sha256(copy / models.WEIGHTS)}
    record["knobs"]["hidden"] = 17
    (copy / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="are not those of the experiment"):
        ddpm_jax.load(copy)
    with pytest.raises(ValueError, match=r"the parameter a/b has values that float16 does not have"):
        models.tensors_of({"a": {"b": np.array([1e5], np.float32)}}, "float16")
