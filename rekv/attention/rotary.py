"""Rotary position embedding at positions we choose, in fp32, from the model's own rotary module."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Angles:
    """Cosines and sines of positions, each (n, rotary_dim) in fp32."""

    cos: Tensor
    sin: Tensor
    interleaved: bool

    def __getitem__(self, positions: slice) -> "Angles":
        return Angles(self.cos[positions], self.sin[positions], self.interleaved)

    def inverse(self) -> "Angles":
        """The angles that undo these."""
        return Angles(self.cos, -self.sin, self.interleaved)

    def view(self, *shape: int) -> "Angles":
        """Split the position axis, e.g. (frames, tokens)."""
        dim = self.cos.shape[-1]
        return Angles(self.cos.view(*shape, dim), self.sin.view(*shape, dim), self.interleaved)


def join(parts: Sequence[Angles]) -> Angles:
    """The angles of all parts, one after the other."""
    return Angles(torch.cat([p.cos for p in parts]), torch.cat([p.sin for p in parts]), parts[0].interleaved)


class Rotary:
    """A decoder's rotary embedding, asked for positions of our choice."""

    def __init__(self, decoder: nn.Module, *, interleaved: bool = False) -> None:
        self._module: nn.Module = decoder.rotary_emb  # type: ignore[assignment]
        self._interleaved = interleaved
        # A model with YaRN scales cos and sin. At position 0 it already scaled what we receive.
        self._scaling = float(getattr(self._module, "attention_scaling", 1.0))
        # Some releases of transformers leave it to the caller to repeat a text's positions on every axis of M-RoPE.
        self._axes = len(getattr(self._module, "mrope_section", ()))
        self._tables: dict[torch.device, Angles] = {}

    def angles(self, start: int, end: int, device: torch.device) -> Angles:
        """Angles of positions start..end-1. Tables grow by doubling and are kept per device."""
        table = self._tables.get(device)
        if table is None or table.cos.shape[0] < end:
            table = self._tables[device] = self._compute(max(1024, 1 << (end - 1).bit_length()), device)
        return table[start:end]

    def at(self, positions: Tensor, device: torch.device) -> Angles:
        """Angles of these positions, (n,), or (axes, n) of a model whose rotary embedding has several."""
        table = self._angles_of(positions)
        return Angles(table.cos.to(device), table.sin.to(device), self._interleaved)

    def depends_on_length(self, longest: int) -> bool:
        """Whether angles of early positions change when a sequence reaches position `longest`.

        True of some long-context schemes (dynamic NTK, LongRoPE): keys rotated early would be wrong later.
        """
        early = torch.arange(16)
        late = torch.cat((early, torch.tensor([longest])))
        short, long = (self._angles_of(positions)[:16] for positions in (early, late))
        return not (torch.equal(short.cos, long.cos) and torch.equal(short.sin, long.sin))

    def _compute(self, n: int, device: torch.device) -> Angles:
        return self.at(torch.arange(n), device)

    def _angles_of(self, positions: Tensor) -> Angles:
        home = next(self._module.buffers()).device
        x = torch.empty(0, dtype=torch.float32, device=home)
        if self._axes and positions.ndim == 1:
            positions = positions.expand(self._axes, -1)
        batch = positions.to(home)[..., None, :]  # of one: (1, n) or (axes, 1, n)
        cos, sin = (t[0] / self._scaling for t in self._module(x, batch))
        return Angles(cos, sin, self._interleaved)


def rotate(x: Tensor, angles: Angles, out: Tensor | None = None) -> Tensor:
    """Rotate x (..., n, head_dim) by angles (n, rotary_dim), computing in fp32, into `out` or a new tensor."""
    if out is None:
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.dtype == out.dtype == torch.float32:
        return _rotate32(x, angles, out)
    out.copy_(_rotate32(x.float(), angles, torch.empty(x.shape, dtype=torch.float32, device=x.device)))
    return out


def _rotate32(x: Tensor, angles: Angles, out: Tensor) -> Tensor:
    cos, sin = angles.cos, angles.sin
    dim = cos.shape[-1]
    if angles.interleaved:
        pairs = [(slice(0, dim, 2), slice(1, dim, 2))]
    else:
        pairs = [(slice(0, dim // 2), slice(dim // 2, dim))]
    torch.mul(x[..., :dim], cos, out=out[..., :dim])
    for first, second in pairs:
        out[..., first].addcmul_(x[..., second], sin[..., first], value=-1)
        out[..., second].addcmul_(x[..., first], sin[..., second])
    if dim < x.shape[-1]:  # partial rotary: the rest passes through
        out[..., dim:] = x[..., dim:]
    return out
