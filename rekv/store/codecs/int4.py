"""4-bit integers: 30 % of the bytes of 16-bit blocks at 196 tokens and head_dim 128."""

from torch import Tensor

from rekv.store.codecs.affine import Affine


class Int4(Affine):
    """Keys with a range per (head, channel) and run of tokens, values with one per (head, token) and run of channels.

    A byte holds a key's code in its low half and the code of the value at the same place in its high half.
    """

    name = "int4"
    bits = 4
    key_tokens = 32
    value_channels = 64

    def _merge(self, keys: Tensor, values: Tensor) -> Tensor:
        # The code of NaN may be anything; it must not reach into the other half.
        return ((values << 4) | (keys & 15)).flatten(1)

    def _separate(self, merged: Tensor) -> tuple[Tensor, Tensor]:
        both = merged.view(-1, *self.shape)
        return both & 15, both >> 4
