"""8-bit integers: half the bytes of 16-bit blocks."""

from rekv.store.codecs.affine import Affine


class Int8(Affine):
    """Keys with a range per (head, channel) over the block's tokens, values with one per (head, token)."""

    name = "int8"
