"""PyTorch with diffusers: channels-last, compiled, fused Adam and average, scaled-dot-product attention."""

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from sides import CHAIN_TERMS, Work
from sides.on_torch import OnTorch


class Made(OnTorch):
    def __init__(self, work: Work):
        super().__init__(work, UNet2DModel(**work.config), "diffusers")
        self.clean = 2 * self.clean - 1
        self.ancestral = DDPMScheduler(1000, variance_type="fixed_large", clip_sample=False)
        self.ddim = DDIMScheduler(1000, clip_sample=False)
        self.alpha_bar = self.ancestral.alphas_cumprod.to(self.device)
        # on the host too: a number taken off the device in a loop would make it wait
        self.kept = [1.0, *self.ancestral.alphas_cumprod.tolist()]

    def call(self, x, t):
        with self.cast():
            return self.network(x, t).sample.float()

    @torch.no_grad()
    def forward(self):
        return self.call(self.clean, self.index)

    def train(self):
        t = torch.randint(0, 1000, (self.work.batch,), device=self.device)
        noise, kept = torch.randn_like(self.clean), self.alpha_bar[t][:, None, None, None]
        loss = (self.call(kept.sqrt() * self.clean + (1 - kept).sqrt() * noise, t) - noise).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.follow()

    @torch.no_grad()
    def _sample(self, scheduler, count, num):
        scheduler.set_timesteps(count)
        x = self.laid(torch.randn(num, *self.image, device=self.device))
        for t in scheduler.timesteps.tolist():
            x = scheduler.step(self.call(x, torch.full((num,), t, device=self.device)), t, x).prev_sample

    def sample_one(self):
        self._sample(self.ancestral, self.work.steps, 1)

    def sample_batch(self):
        self._sample(self.ancestral, self.work.steps, self.work.batch)

    def ddim_batch(self):
        self._sample(self.ddim, min(50, self.work.steps), self.work.batch)

    @torch.no_grad()
    def bits(self):
        for t in range(1, 2 + CHAIN_TERMS):
            self._term(t)

    def _term(self, t):
        """Of the chain, in nats of each image, or of the decoder at t = 1."""
        kept, before, clean = self.kept[t], self.kept[t - 1], self.clean
        x_t = kept**0.5 * clean + (1 - kept) ** 0.5 * torch.randn_like(clean)
        guess = (x_t - (1 - kept) ** 0.5 * self.call(x_t, torch.full_like(self.index, t - 1))) / kept**0.5
        beta = 1 - kept / before
        if t > 1:
            weight = before**0.5 * beta / (1 - kept)
            return (weight**2 * (clean - guess).square() / (2 * beta)).sum(dim=(1, 2, 3))
        upper, lower = (torch.erf((clean - guess + edge) / (2 * beta) ** 0.5) for edge in (1 / 255, -1 / 255))
        return -((upper - lower) / 2).clamp(min=1e-12).log().sum(dim=(1, 2, 3))
