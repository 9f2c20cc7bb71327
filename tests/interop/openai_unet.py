"""The U-Nets of improved-diffusion and guided-diffusion (OpenAI, 2021) in PyTorch, written from their published shapes.

The names of the tensors are those of their checkpoints. An independent implementation for comparison, for tests only.
"""

import math
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch", reason="the extra [parity] is not installed")
nn, F = torch.nn, torch.nn.functional


class Options(NamedTuple):
    """The options, most by their names in the programs' flags; `attention` are the depths with attention, from 0."""

    num_channels: int = 128
    channel_mult: tuple[float, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 3
    attention: tuple[int, ...] = (1, 2)
    num_heads: int = 4
    num_head_channels: int | None = None
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    num_classes: int | None = None
    out_channels: int = 6


class Res(nn.Module):
    def __init__(self, inputs: int, outputs: int, embedding: int, film: bool, resize=None):
        super().__init__()
        self.film, self.resize = film, resize or (lambda x: x)
        self.in_layers = nn.ModuleList([nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, 1, 1)])
        self.emb_layers = nn.ModuleList([nn.SiLU(), nn.Linear(embedding, outputs * (2 if film else 1))])
        last = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.out_layers = nn.ModuleList([nn.GroupNorm(32, outputs), nn.SiLU(), nn.Dropout(0.0), last])
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x, emb):
        norm, silu, conv = self.in_layers
        h = conv(self.resize(silu(norm(x))))
        t = self.emb_layers[1](F.silu(emb))[:, :, None, None]
        norm, silu, _, conv = self.out_layers
        if self.film:
            factor, offset = torch.chunk(t, 2, 1)
            h = norm(h).mul(factor + 1).add(offset)
        else:
            h = norm(h + t)
        return self.skip_connection(self.resize(x)) + conv(silu(h))


class Attention(nn.Module):
    def __init__(self, channels: int, heads: int, new: bool):
        super().__init__()
        self.heads, self.new = heads, new
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x, emb):
        n, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x.flatten(2)))
        length, size = height * width, channels // self.heads
        if self.new:
            q, k, v = qkv.reshape(n, 3, self.heads, size, length).unbind(1)
        else:
            q, k, v = qkv.reshape(n, self.heads, 3, size, length).unbind(2)
        weights = torch.softmax(torch.einsum("nhct,nhcs->nhts", q, k) / math.sqrt(size), -1)
        return x + self.proj_out(torch.einsum("nhts,nhcs->nhct", weights, v).reshape(n, channels, length)).view_as(x)


class Down(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, 2, 1)

    def forward(self, x, emb):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x, emb):
        return self.conv(double(x))


class Plain(nn.Conv2d):
    def forward(self, x, emb):
        return super().forward(x)


def double(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def halve(x):
    return F.avg_pool2d(x, 2)


class UNet(nn.Module):
    """The network; ``forward(x, index, label)`` has images as PyTorch does, and the (rescaled) timestep index."""

    def __init__(self, options: Options):
        super().__init__()
        o, self.width = options, options.num_channels
        embedding = 4 * self.width
        self.time_embed = nn.Sequential(nn.Linear(self.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        if o.num_classes:
            self.label_emb = nn.Embedding(o.num_classes, embedding)
        widths = [int(self.width * mult) for mult in o.channel_mult]

        def res(inputs, outputs, resize=None):
            return Res(inputs, outputs, embedding, o.use_scale_shift_norm, resize)

        def attention(channels):
            heads = channels // o.num_head_channels if o.num_head_channels else o.num_heads
            return Attention(channels, heads, o.use_new_attention_order)

        def at(depth, channels):
            return [attention(channels)] if depth in o.attention else []

        inputs: list[Any] = [[Plain(3, widths[0], 3, 1, 1)]]
        kept, now = [widths[0]], widths[0]
        for depth, channels in enumerate(widths):
            for _ in range(o.num_res_blocks):
                inputs.append([res(now, channels), *at(depth, channels)])
                kept.append(now := channels)
            if depth + 1 < len(widths):
                inputs.append([res(now, now, halve) if o.resblock_updown else Down(now)])
                kept.append(now)
        middle = [res(now, now), attention(now), res(now, now)]
        outputs = []
        for depth in reversed(range(len(widths))):
            for block in range(o.num_res_blocks + 1):
                layers = [res(now + kept.pop(), widths[depth]), *at(depth, now := widths[depth])]
                if depth and block == o.num_res_blocks:
                    layers.append(res(now, now, double) if o.resblock_updown else Up(now))
                outputs.append(layers)
        self.input_blocks = nn.ModuleList(map(nn.ModuleList, inputs))
        self.middle_block = nn.ModuleList(middle)
        self.output_blocks = nn.ModuleList(map(nn.ModuleList, outputs))
        self.out = nn.Sequential(nn.GroupNorm(32, now), nn.SiLU(), nn.Conv2d(now, o.out_channels, 3, 1, 1))

    def forward(self, x, index, label=None):
        half = self.width // 2
        angles = index.float()[:, None] / 10000 ** (torch.arange(half) / half)
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1))
        if label is not None:
            emb = emb + self.label_emb(label)
        kept = []
        for block in self.input_blocks:
            for layer in block:
                x = layer(x, emb)
            kept.append(x)
        for layer in self.middle_block:
            x = layer(x, emb)
        for block in self.output_blocks:
            x = torch.cat([x, kept.pop()], 1)
            for layer in block:
                x = layer(x, emb)
        return self.out(x)
