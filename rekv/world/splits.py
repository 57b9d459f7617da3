"""What the built-in model is never trained on, so that it can be measured on what it has not seen.

Three aspects are held out, each apart from the others: pairs of a colour and a kind, families of backgrounds, and
phrasings. Whatever draws takes a keyword of the aspect's name (`pairs`, `backgrounds`, `phrasings`) that says which
side of the split to draw from, "known" by default: `Scene.draw(rng, 16, pairs="held_out")` shows things in
combinations never trained on, on a known background, and `clip_question(rng, scene, pairs="held_out")` asks about
them in known words.
"""

from itertools import product
from typing import Literal

from rekv.world.shapes import COLORS, KINDS

Split = Literal["known", "held_out"]
Pair = tuple[str, str]  # (colour, kind)

# Each colour and each kind at most once: all of them are well known from other pairs.
HELD_OUT_PAIRS: frozenset[Pair] = frozenset(
    {
        ("red", "triangle"),
        ("green", "heart"),
        ("blue", "cross"),
        ("yellow", "ring"),
        ("purple", "square"),
        ("white", "star"),
    }
)


def _all_pairs() -> frozenset[Pair]:
    return frozenset(product(COLORS, KINDS))


KNOWN_PAIRS = _all_pairs() - HELD_OUT_PAIRS
PAIRS: dict[Split, frozenset[Pair]] = {"known": KNOWN_PAIRS, "held_out": HELD_OUT_PAIRS}
