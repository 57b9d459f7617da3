"""The parts of a question that name things: each can be searched for on its own."""

from collections.abc import Sequence
from typing import Any

from rekv.core import QueryForm

# Words that name nothing that could be seen. Between two of them, or punctuation, stands what is taken for a phrase.
_FUNCTION_WORDS = frozenset(
    """
    a an the this that these those some any no not
    i you he she it we they me him her us them my your his its our their one
    who whom whose which what when where why how
    is are was were be been being am do does did done have has had can could will would shall should may might must
    and or but if than then as so nor
    in on at of to from by with for about into onto over under after before during between while until since
    there here ever never please tell say
    """.split()
)


def parts_of(form: QueryForm, tokenizer: Any, ids: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Groups of a question's tokens, by place, as `AskConfig.query` says; () = the question as a whole.

    "tokens": each on its own. "phrases": runs of words that are neither function words nor punctuation, in English;
    in other languages what stands between punctuation.
    """
    if form == "mean":
        return ()
    if form == "tokens":
        return tuple((i,) for i in range(len(ids)))
    return tuple(phrases([tokenizer.decode([i]) for i in ids], _starts_words(tokenizer, ids)))


def phrases(pieces: Sequence[str], starts: Sequence[bool]) -> list[tuple[int, ...]]:
    """Group tokens, given as text and by whether each begins a word, to phrases; of those said twice, both."""
    words: list[list[int]] = []
    for i, start in enumerate(starts):
        if start or not words:
            words.append([])
        words[-1].append(i)
    found: list[list[int]] = [[]]
    for word in words:
        text = "".join(pieces[i] for i in word).strip().lower()
        if text in _FUNCTION_WORDS or not any(c.isalnum() for c in text):
            found.append([])
        else:
            found[-1] += word
    return [tuple(phrase) for phrase in found if phrase]


def _starts_words(tokenizer: Any, ids: Sequence[int]) -> list[bool]:
    """Whether each token begins a word, or is punctuation, as the tokenizer's own marks of blanks say.

    Byte-level and SentencePiece vocabularies mark them within the token; those of whole words have no marks.
    """
    names = tokenizer.convert_ids_to_tokens(list(ids))
    if not any(name.startswith(("Ġ", "▁")) for name in names):
        return [not name.startswith("##") for name in names]
    return [name.startswith(("Ġ", "▁")) or not any(c.isalnum() for c in name) for name in names]
