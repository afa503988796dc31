"""The U-Net of improved-diffusion and guided-diffusion, plainly: its published names, one operation at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block; ``change`` halves or doubles the size of both branches."""

    def __init__(self, inputs: int, outputs: int, told: int, scale_shift: bool, change: str = "") -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(told, 2 * outputs if scale_shift else outputs))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, outputs), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        if inputs != outputs:
            self.skip_connection = nn.Conv2d(inputs, outputs, 1)
        self.scale_shift, self.change = scale_shift, change

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = F.silu(self.in_layers[0](x))
        if self.change == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.change == "up":
            h, x = (y.repeat_interleave(2, 2).repeat_interleave(2, 3) for y in (h, x))
        h = self.in_layers[2](h)
        told = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told[:, : h.shape[1]], told[:, h.shape[1] :]
            h = self.out_layers[0](h) * (1 + scale) + shift
        else:
            h = self.out_layers[0](h + told)
        h = self.out_layers[3](F.silu(h))
        return (self.skip_connection(x) if hasattr(self, "skip_connection") else x) + h


class Attended(nn.Module):
    """Self-attention of one image and one head at a time."""

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(32, channels), nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        self.heads, self.new_order = heads, new_order

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        flat = x.flatten(2)
        fused, width = self.qkv(self.norm(flat)), x.shape[1] // self.heads
        out = []
        for head in range(self.heads):
            starts = [part * x.shape[1] + head * width for part in range(3)]
            if not self.new_order:
                starts = [(3 * head + part) * width for part in range(3)]
            q, k, v = (fused[:, start : start + width] for start in starts)
            weight = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(width), dim=-1)
            out.append(v @ weight.transpose(1, 2))
        return x + self.proj_out(torch.cat(out, 1)).view_as(x)


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class Conv(nn.Conv2d):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return super().forward(x)


def run(layers: nn.ModuleList, x: Tensor, emb: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x, emb)
    return x


class GuidedUNet(nn.Module):
    """``attention``: the factors of reduction at which there is attention; ``mults``: widths in units of ``width``."""

    def __init__(
        self,
        *,
        width: int = 32,
        mults: Sequence[float] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (2,),
        heads: int = 1,
        head_width: int = -1,
        new_order: bool = False,
        scale_shift: bool = False,
        resampled: bool = False,
        learned: bool = False,
        classes: int = 0,
        channels: int = 3,
    ) -> None:
        super().__init__()
        told, self.width = 4 * width, width
        self.time_embed = nn.Sequential(nn.Linear(width, told), nn.SiLU(), nn.Linear(told, told))
        self.label_emb = nn.Embedding(classes, told) if classes else None

        def block(inputs: int, outputs: int, change: str = "") -> Block:
            return Block(inputs, outputs, told, scale_shift, change)

        def attended(channels: int) -> Attended:
            return Attended(channels, channels // head_width if head_width > 0 else heads, new_order)

        now = int(mults[0] * width)
        skips, factor = [now], 1
        self.input_blocks = nn.ModuleList([nn.ModuleList([Conv(channels, now, 3, padding=1)])])
        for level, mult in enumerate(mults):
            for _ in range(blocks):
                layers: list[nn.Module] = [block(now, int(mult * width))]
                now = int(mult * width)
                layers += [attended(now)] if factor in attention else []
                self.input_blocks.append(nn.ModuleList(layers))
                skips.append(now)
            if level < len(mults) - 1:
                self.input_blocks.append(nn.ModuleList([block(now, now, "down") if resampled else Down(now)]))
                skips.append(now)
                factor *= 2
        self.middle_block = nn.ModuleList([block(now, now), attended(now), block(now, now)])
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(mults))):
            for i in range(blocks + 1):
                layers = [block(now + skips.pop(), int(mult * width))]
                now = int(mult * width)
                layers += [attended(now)] if factor in attention else []
                if level and i == blocks:
                    layers += [block(now, now, "up") if resampled else Up(now)]
                    factor //= 2
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(
            nn.GroupNorm(32, now), nn.SiLU(), nn.Conv2d(now, 2 * channels if learned else channels, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N,) timesteps and (N,) classes -> (N, C or 2 C, H, W)."""
        half = self.width // 2
        angle = t[:, None].float() * torch.exp(-math.log(10_000) * torch.arange(half).float() / half)
        emb = self.time_embed(torch.cat([angle.cos(), angle.sin()], dim=1))
        if self.label_emb is not None:
            emb = emb + self.label_emb(y)
        kept = []
        for layers in self.input_blocks:
            x = run(layers, x, emb)
            kept.append(x)
        x = run(self.middle_block, x, emb)
        for layers in self.output_blocks:
            x = run(layers, torch.cat([x, kept.pop()], dim=1), emb)
        return self.out(x)
