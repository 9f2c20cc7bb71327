"""Folders of diffusers, in and out, where diffusers is not installed: against what it computed once, and by laws."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from interop.models import MODEL, SMALL, check_golden, inputs, load, write
from safetensors.numpy import load_file, save_file

import ddpm_jax
from ddpm_jax.commands import main
from ddpm_jax.diffusion import samplers
from ddpm_jax.interop import schedulers, tensors, unets
from ddpm_jax.networks import MLP, UNet
from ddpm_jax.runs import workdir


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) if name == "256" else name for name in SMALL]
)
def converted(request, tmp_path_factory) -> tuple[str, Path, ddpm_jax.Run]:
    """(name, diffusers' folder, our run of it)."""
    folder = write(tmp_path_factory.mktemp(request.param) / "theirs", request.param)
    return request.param, folder, load(folder)


def test_outputs_and_gradients_are_those_of_diffusers(converted):
    name, _, run = converted
    check_golden(run, inputs(SMALL[name]), f"{name}.npz")


def test_there_and_back(converted):
    """Whatever is read is written again: the same tensors to the bit, the same model."""
    _, folder, _ = converted
    assert main(["convert", str(folder.parent / "run"), str(folder.parent / "back")]) == 0
    before, after = load_file(folder / MODEL), load_file(folder.parent / "back" / "unet" / MODEL)
    assert before.keys() == after.keys()
    for key in before:
        np.testing.assert_array_equal(after[key][: len(before[key])], before[key])
    configs = [
        json.loads((folder.parent / each).read_text()) for each in ("theirs/config.json", "back/unet/config.json")
    ]
    fields, again = map(unets.to_fields, configs)
    assert again == fields | {
        "num_classes": fields["num_classes"] and fields["num_classes"] + 1
    }  # the row for "no label"


def test_schedulers_of_2022_and_of_ddim_are_followed(tmp_path):
    old = {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": "0.1.1",
        "timestep_values": None,
        "tensor_format": "np",
    }
    knobs = schedulers.to_knobs(old | {"clip_predicted_image": False, "predict_epsilon": False})
    assert (knobs["clip"], knobs["prediction"]) == (None, "x0")
    assert load(write(tmp_path / "theirs", _class_name="DDIMScheduler")).experiment.sampler is samplers.ddim


def test_averages_that_diffusers_trained_are_known_as_such(tmp_path):
    """`EMAModel.save_pretrained` writes its own numbers into the model's config."""
    folder = write(tmp_path / "unet_ema")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"decay": 0.9999, "optimization_step": 7}))
    assert main(["convert", str(folder), str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "experiment.json").read_text())["weights"] == "ema"


@pytest.mark.parametrize("dtype", [pytest.param(np.float16, marks=pytest.mark.slow), ml_dtypes.bfloat16])
def test_old_names_and_half_precision_are_read(dtype, tmp_path):
    folder = write(tmp_path / "theirs")
    old = {new: name for name, new in tensors.OLD.items()}
    content = {}
    for name, value in load_file(folder / MODEL).items():
        for new, before in old.items():
            name = name.replace(new, before) if "attentions" in name else name
        content[name] = value.astype(dtype)
    (folder / MODEL).unlink()
    save_file(content, folder / MODEL.replace(".safetensors", ".fp16.safetensors"))
    assert any(".query." in name for name in content)
    params = load(folder).params
    kernel = params["mid_0_attention"]["query"]["kernel"]
    name = next(name for name in content if name.startswith("mid_block") and name.endswith(".query.weight"))
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(np.ravel(kernel), np.ravel(content[name].astype(np.float32).T))


def without(folder: Path, name: str) -> None:
    content = load_file(folder / MODEL)
    del content[name]
    save_file(content, folder / MODEL)


def with_(folder: Path, name: str, value: np.ndarray) -> None:
    save_file(load_file(folder / MODEL) | {name: value}, folder / MODEL)


def configured(folder: Path, file: str = "config.json", **changed: Any) -> None:
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changed))


class Payload:
    """A pickle that creates the file when it is loaded."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def pickled(folder: Path, name: str) -> None:
    (folder / MODEL).unlink()
    (folder / name).write_bytes(pickle.dumps(Payload(folder.parent / "executed")))


MISTAKES = {
    "missing tensor mid_block.resnets.0.conv1.weight": lambda f: without(f, "mid_block.resnets.0.conv1.weight"),
    "unexpected tensor extra.weight": lambda f: with_(f, "extra.weight", np.zeros(3, np.float32)),
    "the tensor conv_in.bias of shape (3,)": lambda f: with_(f, "conv_in.bias", np.zeros(3, np.float32)),
    "conv_in.bias has values that are not finite": lambda f: with_(f, "conv_in.bias", np.full(8, np.nan, np.float32)),
    "it has the type F8_E4M3": lambda f: with_(f, "conv_in.bias", np.zeros(8, ml_dtypes.float8_e4m3fn)),
    "safetensors cannot be read": lambda f: (f / MODEL).write_bytes(b"not a safetensors file at all"),
    "a .bin is a pickle": lambda f: pickled(f, "diffusion_pytorch_model.bin"),
    f"{MODEL} cannot be read": lambda f: pickled(f, MODEL),
    "has no scheduler_config.json": lambda f: (f / "scheduler_config.json").unlink(),
    "has neither config.json": lambda f: (f / "config.json").unlink(),
    "cannot be read as JSON": lambda f: (f / "config.json").write_text("{"),
    "entries that ddpm_jax does not know: warp": lambda f: configured(f, warp=9),
    "act_fn 'gelu' is not supported": lambda f: configured(f, act_fn="gelu"),
    "is of a UNet2DConditionModel": lambda f: configured(f, _class_name="UNet2DConditionModel"),
    "blocks of type SkipDownBlock2D": lambda f: configured(f, down_block_types=["SkipDownBlock2D", "DownBlock2D"]),
    "do not match": lambda f: configured(f, up_block_types=["UpBlock2D", "AttnUpBlock2D"]),
    "block_out_channels do not match": lambda f: configured(f, down_block_types=["UpBlock2D", "AttnDownBlock2D"]),
    "sample_size None must be the size": lambda f: configured(f, sample_size=None),
    "sample_size (12,) must be": lambda f: configured(f, sample_size=[12]),
    "block_out_channels ('8',) must be a list": lambda f: configured(f, block_out_channels=["8"]),
    "attention_head_dim 0 must be": lambda f: configured(f, attention_head_dim=0),
    "freq_shift 0.5 must be 0 or 1": lambda f: configured(f, freq_shift=0.5),
    "out_channels 3 must be in_channels 1, or twice that": lambda f: configured(f, out_channels=3),
    "out_channels 2 does not fit": lambda f: configured(f, out_channels=2),
    "num_train_timesteps '9' must be": lambda f: configured(f, "scheduler_config.json", num_train_timesteps="9"),
    "clip_sample_range -1 must be": lambda f: configured(f, "scheduler_config.json", clip_sample_range=-1),
    "attn_norm_num_groups None is not supported with": lambda f: configured(f, resnet_time_scale_shift="scale_shift"),
    "attn_norm_num_groups 8 is not supported with": lambda f: configured(f, attn_norm_num_groups=8),
    "under their old and their current names": lambda f: with_(
        f, "mid_block.attentions.0.query.weight", np.zeros((16, 16), np.float32)
    ),
    "but shards of it": lambda f: (f / MODEL).rename(f / f"{MODEL}.index.json"),
    "prediction_type 'flow' is not supported": lambda f: configured(f, "scheduler_config.json", prediction_type="flow"),
    "variance_type learned_range, since": lambda f: configured(
        f, "scheduler_config.json", variance_type="learned_range"
    ),
    "variance_type 'learned' is not": lambda f: configured(f, "scheduler_config.json", variance_type="learned"),
    "PNDMScheduler is not supported": lambda f: configured(f, "scheduler_config.json", _class_name="PNDMScheduler"),
    "thresholding True": lambda f: configured(f, "scheduler_config.json", thresholding=True),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_wrong_folder_gets_one_line_and_leaves_nothing(message, tmp_path, capsys):
    folder = write(tmp_path / "theirs")
    MISTAKES[message](folder)
    assert main(["convert", str(folder), str(tmp_path / "run"), "--weights", "raw"]) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("whole", [True, False], ids=["a pickle", "an array of objects"])
def test_an_npz_with_a_pickle_is_not_loaded(whole, finished, tmp_path, capsys):
    """`sample` reads what an existing file holds before it replaces it."""
    out, objects = tmp_path / "images.npz", np.array([Payload(tmp_path / "executed")], object)
    if whole:
        out.write_bytes(pickle.dumps(objects))
    else:
        np.savez(out, provenance=objects, allow_pickle=True)
    before = out.read_bytes()
    assert main(["sample", str(finished), "--num", "1", "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["images.npz"]


@pytest.mark.parametrize("spacing, reported", [({}, True), ({"timestep_spacing": "trailing"}, False)])
def test_a_spacing_that_is_ignored_is_reported(spacing, reported, tmp_path, capsys):
    folder = write(tmp_path / "theirs", **spacing)
    assert main(["convert", str(folder), str(tmp_path / "run"), "--weights", "raw"]) == 0
    line = capsys.readouterr().out
    assert ("spaced as trailing, not by timestep_spacing leading" in line) == reported and line.count("\n") == 1


def test_questions_that_only_the_user_can_answer(finished, tmp_path, capsys):
    folder = write(tmp_path / "theirs")
    for arguments, message in [
        ((folder, tmp_path / "run"), "pass --weights ema or --weights raw"),
        ((folder, tmp_path / "run", "--weights", "0.1"), "does not record an average of this length"),
        ((folder, folder, "--weights", "raw"), "exists: choose another name"),
        ((tmp_path / "nowhere", tmp_path / "run"), "there is no file or folder"),
        ((finished, tmp_path / "out", "--test-percent", "9"), "--test-percent: only for other checkpoints"),
        ((folder, tmp_path / "run", "--heads", "4"), "--heads: only for a file"),
    ]:
        assert main(["convert", *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize(
    "network, message",
    [
        (MLP(), "is a MLP: diffusers has a model for UNet only"),
        (UNet(multipliers=(2, 2)), "the first multiplier of a UNet2DModel must be 1"),
        (UNet(heads=4), "has one head, or heads of a given head_dim"),
        (UNet(residual_resampling=True), "residual_resampling: only"),
        (UNet(time_scale=0.25), "time_scale 0.25"),
    ],
    ids=["MLP", "multipliers", "heads", "resampling", "time"],
)
def test_a_network_that_diffusers_does_not_have_is_refused(finished, tmp_path, capsys, monkeypatch, network, message):
    run = ddpm_jax.load(finished)
    other = run._replace(experiment=dataclasses.replace(run.experiment, network=network))
    monkeypatch.setattr(workdir, "load", lambda folder, weights, checkpoint: other)
    assert main(["convert", str(finished), str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
