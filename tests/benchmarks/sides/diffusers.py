"""PyTorch with diffusers: channels-last, compiled, with fused Adam and EMA, and scaled-dot-product attention."""

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from sides import CHAIN_TERMS, Work
from sides.on_torch import OnTorch


class Made(OnTorch):
    """The side of diffusers."""

    def __init__(self, work: Work):
        super().__init__(work, UNet2DModel(**work.config), "diffusers")
        self.clean = 2 * self.clean - 1
        self.ancestral = DDPMScheduler(1000, variance_type="fixed_large", clip_sample=False)
        self.ddim = DDIMScheduler(1000, clip_sample=False)
        self.alpha_bar = self.ancestral.alphas_cumprod.to(self.device)
        # on the host as well: a transfer from the device in a loop would block
        self.alpha_bar_host = [1.0, *self.ancestral.alphas_cumprod.tolist()]

    def call(self, x, t):
        with self.cast():
            return self.network(x, t).sample.float()

    @torch.no_grad()
    def forward(self):
        return self.call(self.clean, self.index)

    def train(self):
        t = torch.randint(0, 1000, (self.work.batch,), device=self.device)
        noise, alpha_bar = torch.randn_like(self.clean), self.alpha_bar[t][:, None, None, None]
        x_t = alpha_bar.sqrt() * self.clean + (1 - alpha_bar).sqrt() * noise
        loss = (self.call(x_t, t) - noise).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.update_average()

    @torch.no_grad()
    def _sample(self, scheduler, count, num):
        scheduler.set_timesteps(count)
        x = self.channels_last(torch.randn(num, *self.image, device=self.device))
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
        """The chain term of t in nats per image, or the decoder term for t = 1."""
        alpha_bar, alpha_bar_s, clean = self.alpha_bar_host[t], self.alpha_bar_host[t - 1], self.clean
        x_t = alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * torch.randn_like(clean)
        x_0 = (x_t - (1 - alpha_bar) ** 0.5 * self.call(x_t, torch.full_like(self.index, t - 1))) / alpha_bar**0.5
        beta = 1 - alpha_bar / alpha_bar_s
        if t > 1:
            weight = alpha_bar_s**0.5 * beta / (1 - alpha_bar)
            return (weight**2 * (clean - x_0).square() / (2 * beta)).sum(dim=(1, 2, 3))
        upper, lower = (torch.erf((clean - x_0 + edge) / (2 * beta) ** 0.5) for edge in (1 / 255, -1 / 255))
        return -((upper - lower) / 2).clamp(min=1e-12).log().sum(dim=(1, 2, 3))
