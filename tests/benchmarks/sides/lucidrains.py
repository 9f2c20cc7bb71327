"""PyTorch with denoising-diffusion-pytorch: its own U-Net of the same widths, which is another one, compiled."""

from typing import Any

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from ema_pytorch import EMA

from sides import Side, Work


def make(work: Work) -> Side:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, channels = work.config["sample_size"], work.config["in_channels"]
    widths = work.config["block_out_channels"]
    network: Any = Unet(
        widths[0],
        dim_mults=tuple(width // widths[0] for width in widths),
        channels=channels,
        full_attn=tuple(kind.startswith("Attn") for kind in work.config["down_block_types"]),
        flash_attn=device == "cuda",
    ).to(device, memory_format=torch.channels_last)
    parameters = list(network.parameters())
    model = torch.compile(network, dynamic=False) if work.compiled else network
    common = {"image_size": size, "objective": "pred_noise", "beta_schedule": "linear"}
    diffusion = GaussianDiffusion(network, timesteps=1000, **common).to(device)
    walk = GaussianDiffusion(network, timesteps=work.steps, **common).to(device)
    ddim = GaussianDiffusion(network, timesteps=1000, sampling_timesteps=min(50, work.steps), **common).to(device)
    average = EMA(diffusion, beta=0.9999, update_every=1).to(device)
    for each in (diffusion, walk, ddim):  # after the average has copied the one that is not compiled
        each.model = model
    optimizer = torch.optim.Adam(parameters, lr=2e-4, fused=True)
    clean = torch.rand(work.batch, channels, size, size, device=device)
    clean = clean.contiguous(memory_format=torch.channels_last)
    index = torch.full((work.batch,), 500, device=device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def cast():
        return torch.autocast(device, getattr(torch, work.dtype), enabled=work.dtype != "float32")

    def train():
        optimizer.zero_grad(set_to_none=True)
        with cast():
            loss = diffusion(clean)
        loss.backward()
        optimizer.step()
        average.update()

    def quiet(sampler, num):
        with cast(), torch.no_grad():
            sampler.sample(batch_size=num)

    def forward():
        with cast(), torch.no_grad():
            model(clean, index)

    def bits():
        raise NotImplementedError("it has no likelihood")

    return Side(
        forward=lambda: (forward(), wait()),
        train=lambda: (train(), wait()),
        sample_one=lambda: (quiet(walk, 1), wait()),
        sample_batch=lambda: (quiet(walk, work.batch), wait()),
        ddim_batch=lambda: (quiet(ddim, work.batch), wait()),
        bits=bits,
        peak=lambda: torch.cuda.max_memory_allocated() if device == "cuda" else None,
        parameters=sum(each.numel() for each in parameters),
        flops=0.0,
        told=f"PyTorch {torch.__version__}{' compiled' if work.compiled else ''}, denoising-diffusion-pytorch",
    )
