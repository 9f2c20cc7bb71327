"""The Inception network against torch-fidelity's and pytorch-fid's own modules, with one random state dict."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import published  # noqa: E402

from ddpm_jax.metrics import inception  # noqa: E402


@pytest.fixture(scope="module")
def state():
    return published.state_dict()


@pytest.fixture(scope="module")
def params(state):
    return inception.params_from_torch({name: value.numpy() for name, value in state.items()})


def images(num: int, height: int, width: int) -> np.ndarray:
    """Noise in blocks of several sizes, so that images differ and have edges."""
    random = np.random.default_rng(height)
    parts = [
        np.kron(random.integers(0, 120, (num, -(-height // size), -(-width // size), 3)), np.ones((1, size, size, 1)))
        for size in (1, 9)
    ]
    return sum(part[:, :height, :width] for part in parts).astype(np.uint8)


def relative(found, expected) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_features_and_logits_are_those_of_torch_fidelity(state, params, tmp_path):
    batch = images(3, 32, 40)
    theirs, spatial = published.torch_fidelity(state, tmp_path), []
    theirs.Mixed_6d.branch1x1.register_forward_hook(lambda *arguments: spatial.append(arguments[-1]))
    pool, logits = theirs(torch.from_numpy(batch.transpose(0, 3, 1, 2).copy()))
    ours = inception.extractor(params)(batch)
    assert relative(ours.pool, pool.numpy()) < 1e-5
    assert relative(ours.logits, logits.numpy()) < 1e-5
    assert relative(ours.spatial, spatial[0][:, :7].numpy().transpose(0, 2, 3, 1).reshape(3, -1)) < 1e-5
    assert pool.std(dim=0).mean() / pool.mean() > 1e-2  # images differ by more than the tolerance


@pytest.mark.slow
def test_features_are_those_of_pytorch_fid(state, params):
    batch = images(3, 330, 310)
    theirs = published.pytorch_fid(state)(torch.from_numpy(batch.transpose(0, 3, 1, 2) / 255).float())[0]
    ours = inception.extractor(params, "pytorch")(batch).pool
    assert relative(ours, theirs.numpy()[:, :, 0, 0]) < 1e-5


@pytest.mark.slow
def test_gray_images_have_three_equal_channels(params):
    gray = images(2, 28, 28)[..., :1]
    extract = inception.extractor(params)
    assert relative(extract(gray).pool, np.asarray(extract(np.repeat(gray, 3, axis=-1)).pool)) < 1e-6


def test_wrong_weights_are_refused_by_name(state):
    arrays = {name: value.numpy() for name, value in state.items()}
    with pytest.raises(ValueError, match=r"fc.weight is missing"):
        inception.params_from_torch({name: value for name, value in arrays.items() if name != "fc.weight"})
    with pytest.raises(ValueError, match=r"kernel of fc has shape \(2048, 1000\)"):
        inception.params_from_torch(arrays | {"fc.weight": arrays["fc.weight"][:1000]})
