"""PyTorch with denoising-diffusion-pytorch: another U-Net with the same widths, compiled."""

from typing import Any

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet

from sides import Work
from sides.on_torch import OnTorch


def unet(config: dict[str, Any]) -> Any:
    """The library's U-Net with the widths and the attention of a config of diffusers."""
    widths = config["block_out_channels"]
    return Unet(
        widths[0],
        dim_mults=tuple(width // widths[0] for width in widths),
        channels=config["in_channels"],
        full_attn=tuple(kind.startswith("Attn") for kind in config["down_block_types"]),
        flash_attn=torch.cuda.is_available(),
    )


class Made(OnTorch):
    """The side of denoising-diffusion-pytorch."""

    def __init__(self, work: Work):
        super().__init__(work, unet(work.config), "denoising-diffusion-pytorch")
        self.diffusion, self.ancestral = self._process(1000, None), self._process(work.steps, None)
        self.ddim = self._process(1000, min(50, work.steps))

    def _process(self, timesteps: int, sampled: int | None) -> Any:
        options = {"image_size": self.image[1], "objective": "pred_noise", "beta_schedule": "linear"}
        made = GaussianDiffusion(self.network, timesteps=timesteps, sampling_timesteps=sampled, **options)
        return made.to(self.device)

    @torch.no_grad()
    def forward(self):
        with self.cast():
            return self.network(self.clean, self.index)

    def train(self):
        self.optimizer.zero_grad(set_to_none=True)
        with self.cast():
            loss = self.diffusion(self.clean)
        loss.backward()
        self.optimizer.step()
        self.update_average()

    @torch.no_grad()
    def _sample(self, process: Any, num: int):
        with self.cast():
            process.sample(batch_size=num)

    def sample_one(self):
        self._sample(self.ancestral, 1)

    def sample_batch(self):
        self._sample(self.ancestral, self.work.batch)

    def ddim_batch(self):
        self._sample(self.ddim, self.work.batch)

    def bits(self):
        raise NotImplementedError("denoising-diffusion-pytorch has no likelihood")
