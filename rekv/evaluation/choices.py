"""Which option did an answer choose? By its text, as published or with care; by how likely each letter was."""

import re
from collections.abc import Sequence

_FIRST = re.compile(r"\(?([A-Za-z])(?:[).:,]|\s*$)")
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_NAMED = re.compile(r"(?:answer|option|choice)\s*(?:is|:)?\s*\(?([A-Za-z])\b", re.IGNORECASE)


def published(text: str) -> str:
    """The rule of the published harness: the character before the first ")", else the first character.

    Whatever that is; it need not be a letter. Where the published code crashes (an empty answer), "" is returned.
    """
    text = text.strip()
    if ")" in text:
        place = text.index(")")
        return text[place - 1 : place]
    return text[:1]


def letter(text: str, choices: Sequence[str]) -> str | None:
    """The letter that the text names, or whose option it repeats; None if it does neither, or more than one.

    Prompts end in "(", so an answer usually begins with the letter: "B) a red ball".
    """
    text = text.strip()
    first = _FIRST.match(text)
    for found in ([first[1]] if first else [], _BRACKETED.findall(text), _NAMED.findall(text)):
        named = {name.upper() for name in found} & set(letters(choices))
        if len(named) == 1:
            return named.pop()
    return _repeated(text, choices)


def likeliest(logprobs: Sequence[float]) -> str | None:
    """The letter that was the most likely first token; None if nothing was measured."""
    if not logprobs:
        return None
    return letters(logprobs)[max(range(len(logprobs)), key=logprobs.__getitem__)]


def letters(choices: Sequence[object]) -> list[str]:
    return [chr(ord("A") + i) for i in range(len(choices))]


def right(choices: Sequence[str], answer: str) -> set[str]:
    """The letters whose option is the answer: some data sets list it twice."""
    return {name for name, choice in zip(letters(choices), choices, strict=True) if choice == answer}


def _repeated(text: str, choices: Sequence[str]) -> str | None:
    said = _plain(text)
    options = [_plain(choice) for choice in choices]
    for same in (lambda option: option == said, lambda option: bool(option) and f" {option} " in f" {said} "):
        found = [name for name, option in zip(letters(choices), options, strict=True) if same(option)]
        if len(found) == 1:
            return found[0]
    return None


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
