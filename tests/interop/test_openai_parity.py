"""Live against torch (pip install '.[parity]'): the U-Nets of improved-diffusion and guided-diffusion.

    python tests/interop/test_openai_parity.py tests/interop/golden

writes what `test_openai.py` and `test_torch_files.py` compare with where torch is not installed.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from interop.models import gradient_and_output, tensor
from interop.openai_models import MODELS, SIZE, inputs
from networks.variables import num_parameters

torch = pytest.importorskip("torch", reason="the extra [parity] is not installed")

from interop.openai_unet import Options, UNet  # noqa: E402

import ddpm_jax  # noqa: E402
from ddpm_jax import networks  # noqa: E402
from ddpm_jax.commands import main  # noqa: E402
from ddpm_jax.interop import torch_files  # noqa: E402


def model(name: str):
    """In PyTorch, with the tensors of `models`."""
    made = UNet(Options(**MODELS[name].options)).eval()
    made.load_state_dict({key: torch.tensor(tensor(key, tuple(x.shape))) for key, x in made.state_dict().items()})
    return made


def theirs(name: str, made):
    """(output, gradient by the input, gradients by the tensors) of the mean square of the output."""
    x, index, label = inputs(name)
    images = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    scaled = torch.tensor(index) * MODELS[name].time_scale
    output = made(images, scaled, None if label is None else torch.tensor(label))
    output.square().mean().backward()
    as_ours = lambda each: each.detach().numpy().transpose(0, 2, 3, 1)  # noqa: E731
    return as_ours(output), as_ours(images.grad), {key: each.grad.numpy() for key, each in made.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients(name, tmp_path):
    made = model(name)
    file = tmp_path / "ema_0.9999_001000.pt"
    torch.save(made.state_dict(), file)
    assert main(["convert", str(file), str(tmp_path / "run"), *MODELS[name].flags]) == 0
    run = ddpm_jax.load(tmp_path / "run")
    x, index, label = inputs(name)
    output, by_input, _ = theirs(name, made)
    by_x, y = gradient_and_output(run, x, index, label)
    for mine, other in ((y, output), (by_x, by_input)):
        difference = np.abs(mine - other).max() / np.abs(other).max()
        print(f"\n{name}: {difference:.1e}")
        assert difference < 1e-4


def test_files_of_torch_are_read_equal(tmp_path):
    """Views, shared storages, parameters, every type of number, and tensors without elements."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    content = {"whole": base, "view": base.T[1:3], "row": base[2], "parameter": torch.nn.Parameter(base + 1)}
    content |= {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 3), "half": base.half(), "bytes": base.byte()}
    content |= {"double": base.double(), "long": base.long(), "bool": base > 5, "bfloat16": base.bfloat16()}
    for old in (False, True):
        torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=not old)
        found = torch_files.read(tmp_path / "file.pt")
        assert found.keys() == content.keys()
        for name, value in content.items():
            expected = (value.float() if name == "bfloat16" else value).detach().numpy()
            np.testing.assert_array_equal(found[name], expected)
            assert found[name].dtype == expected.dtype


@pytest.mark.parametrize("kind", ["module", "optimizer", "wrapped"])
def test_files_with_other_things_are_refused(kind, tmp_path):
    linear = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(linear.parameters())
    content = {"module": linear, "optimizer": optimizer.state_dict(), "wrapped": {"ema": linear.state_dict()}}[kind]
    messages = {
        "module": r"names torch\.nn\.modules\.linear\.Linear, which could execute code",
        "wrapped": "under 'ema'",
    }
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=messages.get(kind, "not tensors by name")):
        torch_files.read(tmp_path / "file.pt")


PUBLISHED = {
    "ImageNet-64 (ADM)": (Options(192, (1, 2, 3, 4), 3, (1, 2, 3), 4, 64, True, True, True, 1000), 64),
    "128": (Options(256, (1, 1, 2, 3, 4), 2, (2, 3, 4), 4, None, True, True, False, 1000), 128),
    "256": (Options(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), 4, 64, True, True, False, 1000), 256),
    "512": (Options(256, (0.5, 1, 1, 2, 2, 4, 4), 2, (4, 5, 6), 4, 64, True, True, False, 1000), 512),
    "LSUN (2021)": (Options(128, (1, 1, 2, 2, 4, 4), 2, (4,), 1, None, False), 256),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_counted_alike_at_full_size(name):
    """On no device: shapes only."""
    options, size = PUBLISHED[name]
    with torch.device("meta"):
        expected = sum(each.numel() for each in UNet(options).parameters())
    ours = networks.UNet(
        width=options.num_channels,
        multipliers=options.channel_mult,
        num_blocks=options.num_res_blocks,
        attention=tuple(size >> depth for depth in options.attention),
        head_dim=options.num_head_channels,
        heads=options.num_heads,
        out_channels=6,
        num_classes=options.num_classes,
        null_label=False,
        scale_shift=options.use_scale_shift_norm,
        residual_resampling=options.resblock_updown,
    )
    assert num_parameters(ours, (size, size, 3)) == expected


def write_golden(folder: Path) -> None:
    """Names and shapes, output and gradient by the input of each small model, and two small files of tensors."""
    for name in MODELS:
        made = model(name)
        output, by_input, _ = theirs(name, made)
        shapes = {key: list(value.shape) for key, value in made.state_dict().items()}
        (folder / f"openai_{name}.json").write_text(json.dumps({"size": SIZE, "shapes": shapes}) + "\n")
        np.savez_compressed(folder / f"openai_{name}.npz", output=output, gradient=by_input)
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    content = {"whole": base, "transposed": base.T, "half": base.half(), "parameter": torch.nn.Parameter(base[1])}
    for old in (False, True):
        torch.save(content, folder / f"tensors{'_old' * old}.pt", _use_new_zipfile_serialization=not old)


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
