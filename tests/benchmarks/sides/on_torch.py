"""The common part of the sides on PyTorch: a batch, fused Adam and EMA, and synchronization with the device."""

import copy
from typing import Any

import torch

from sides import Work


class OnTorch:
    """The base class of the sides on PyTorch."""

    def __init__(self, work: Work, network: torch.nn.Module, library: str):
        self.work, self.device = work, "cuda" if torch.cuda.is_available() else "cpu"
        self.made = network.to(self.device, memory_format=torch.channels_last)
        self.network: Any = torch.compile(self.made, dynamic=False) if work.compiled else self.made
        self.optimizer = torch.optim.Adam(self.made.parameters(), lr=2e-4, fused=True)
        self.average = copy.deepcopy(self.made).requires_grad_(False)
        if self.device == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")  # the default precision of JAX for float32
        self.image = (work.config["in_channels"], work.config["sample_size"], work.config["sample_size"])
        self.clean = self.channels_last(torch.rand(work.batch, *self.image, device=self.device))
        self.index = torch.full((work.batch,), 500, device=self.device)
        self.parameters = sum(each.numel() for each in self.made.parameters())
        self.description = f"PyTorch {torch.__version__}{' compiled' if work.compiled else ''}, {library}"

    def channels_last(self, x: torch.Tensor) -> torch.Tensor:
        """The images in the channels-last memory format."""
        return x.contiguous(memory_format=torch.channels_last)

    def cast(self) -> torch.autocast:
        """The context in which the network computes in the type of the work."""
        return torch.autocast(self.device, getattr(torch, self.work.dtype), enabled=self.work.dtype != "float32")

    def update_average(self) -> None:
        """Updates the moving average of the parameters."""
        torch._foreach_lerp_(list(self.average.parameters()), list(self.made.parameters()), 1e-4)

    def wait(self, result: Any) -> None:
        del result
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None
