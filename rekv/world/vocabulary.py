"""The words of the world: all that is asked and answered is made of them."""

import re

from rekv.world.phrasings import PHRASINGS
from rekv.world.questions import NONE, plural
from rekv.world.shapes import COLORS, KINDS, PLACES, SIZES

_PHRASES = (  # of slots and answers
    "a an the first last time",
    "yes no nothing and then at",
    "moved from to hid behind the wall stayed on in at",
    NONE,
)


def vocabulary() -> list[str]:
    """Return every word of the questions, in any phrasing, and of their answers: in lower case, sorted.

    Each digit is a word; punctuation, as the colon in 14:05, is not among them.
    """
    templates = [template for types in PHRASINGS.values() for texts in types.values() for template in texts]
    texts = [re.sub(r"{\w+}", " ", template) for template in templates]
    texts += [*_PHRASES, *KINDS, *map(plural, KINDS), *COLORS, *SIZES, *PLACES, *"0123456789"]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+|\d", text.lower())})
