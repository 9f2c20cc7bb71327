"""PyTorch with diffusers: channels-last, compiled, fused Adam and average, scaled-dot-product attention."""

import copy
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from sides import CHAIN_TERMS, Side, Work

ROOT = 2**0.5


def make(work: Work) -> Side:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = getattr(torch, work.dtype)
    made = UNet2DModel(**work.config).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(made).requires_grad_(False)
    network: Any = torch.compile(made, dynamic=False) if work.compiled else made
    optimizer = torch.optim.Adam(made.parameters(), lr=2e-4, fused=True)
    size, channels = work.config["sample_size"], work.config["in_channels"]
    clean = torch.rand(work.batch, channels, size, size, device=device) * 2 - 1
    clean = clean.contiguous(memory_format=torch.channels_last)
    index = torch.full((work.batch,), 500, device=device)
    ancestral = DDPMScheduler(1000, variance_type="fixed_large", clip_sample=False)
    alpha_bar = ancestral.alphas_cumprod.to(device)
    # on the host too: a number taken off the device in a loop would make it wait
    kept_of = [1.0, *ancestral.alphas_cumprod.tolist()]

    def call(x, t):
        with torch.autocast(device, kind, enabled=work.dtype != "float32"):
            return network(x, t).sample.float()

    def train():
        t = torch.randint(0, 1000, (work.batch,), device=device)
        noise, kept = torch.randn_like(clean), alpha_bar[t][:, None, None, None]
        loss = (call(kept.sqrt() * clean + (1 - kept).sqrt() * noise, t) - noise).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        torch._foreach_lerp_(list(average.parameters()), list(made.parameters()), 1e-4)

    @torch.no_grad()
    def sample(scheduler, count, num):
        scheduler.set_timesteps(count)
        x = torch.randn(num, channels, size, size, device=device).contiguous(memory_format=torch.channels_last)
        for t in scheduler.timesteps.tolist():
            x = scheduler.step(call(x, torch.full((num,), t, device=device)), t, x).prev_sample

    @torch.no_grad()
    def term(t):
        """Of the chain, in nats of each image, or of the decoder at t = 1."""
        kept, before = kept_of[t], kept_of[t - 1]
        x_t = kept**0.5 * clean + (1 - kept) ** 0.5 * torch.randn_like(clean)
        guess = (x_t - (1 - kept) ** 0.5 * call(x_t, torch.full_like(index, t - 1))) / kept**0.5
        beta = 1 - kept / before
        if t > 1:
            weight = before**0.5 * beta / (1 - kept)
            return (weight**2 * (clean - guess).square() / (2 * beta)).sum(dim=(1, 2, 3))
        ends = (
            torch.erf((clean - guess + 1 / 255) / (ROOT * beta**0.5)),
            torch.erf((clean - guess - 1 / 255) / (ROOT * beta**0.5)),
        )
        return -((ends[0] - ends[1]) / 2).clamp(min=1e-12).log().sum(dim=(1, 2, 3))

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    steps, ddim = work.steps, DDIMScheduler(1000, clip_sample=False)
    return Side(
        forward=torch.no_grad()(lambda: (call(clean, index), wait())),
        train=lambda: (train(), wait()),
        sample_one=lambda: (sample(ancestral, steps, 1), wait()),
        sample_batch=lambda: (sample(ancestral, steps, work.batch), wait()),
        ddim_batch=lambda: (sample(ddim, min(50, steps), work.batch), wait()),
        bits=lambda: ([term(t) for t in range(1, 2 + CHAIN_TERMS)], wait()),
        peak=lambda: torch.cuda.max_memory_allocated() if device == "cuda" else None,
        parameters=sum(p.numel() for p in made.parameters()),
        flops=0.0,
        told=f"PyTorch {torch.__version__}{' compiled' if work.compiled else ''}, diffusers",
    )
