"""The Inception modules of torch-fidelity and pytorch-fid with random weights: the published ones are not needed."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

# torchvision describes kernels here that a wheel for another device does not load; none of them is needed
sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))

torch = pytest.importorskip("torch")
extractors = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
inception = pytest.importorskip("pytorch_fid.inception")


def torch_fidelity(state: dict[str, Any], folder: Path) -> Any:
    """torch-fidelity's extractor: uint8 [batch, 3, height, width] -> (features, unbiased logits)."""
    torch.save(state, folder / "weights.pth")
    return extractors.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(folder / "weights.pth"))


def pytorch_fid(state: dict[str, Any]) -> Any:
    """pytorch-fid's network: float [batch, 3, height, width] in 0..1 -> [features [batch, 2048, 1, 1]]."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: state)
        return inception.InceptionV3().eval()


def state_dict() -> dict[str, Any]:
    """Random weights, of a scale at which features neither vanish nor grow, and differ between images."""
    shapes: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        Extractor = extractors.FeatureExtractorInceptionV3
        patch.setattr(Extractor, "load_state_dict", lambda module, _: shapes.update(module.state_dict()))
        patch.setattr(extractors, "load_state_dict_from_url", lambda *_, **__: {})
        Extractor("shapes", ["2048"], verbose=False)
    torch.manual_seed(0)
    return {name: _random(name, value) for name, value in sorted(shapes.items())}


def _random(name: str, value: Any) -> Any:
    if not value.is_floating_point():
        return value
    if name.endswith(("running_var", "bn.weight")):
        return torch.rand_like(value) + 0.5
    if value.ndim == 1:
        return 0.1 * torch.randn_like(value)
    return torch.randn_like(value) * np.sqrt(2 / value[0].numel())
