"""Answers without choices, compared with the truth by words alone: no judge, no network, and less to be said for it."""

import re
from collections import Counter

_ARTICLES = {"a", "an", "the"}
_NUMBERS = {
    word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
}


def words(text: str) -> list[str]:
    """Lower case, without articles and punctuation; small numbers as digits."""
    found = re.findall(r"\w+", text.casefold())
    return [_NUMBERS.get(word, word) for word in found if word not in _ARTICLES]


def exact(answer: str, text: str) -> float:
    """1 if the words are the same, else 0."""
    return float(words(answer) == words(text))


def contains(answer: str, text: str) -> float:
    """1 if the words of the answer come up in the text, in their order and unbroken, else 0."""
    wanted, said = words(answer), words(text)
    return float(bool(wanted) and any(said[i : i + len(wanted)] == wanted for i in range(len(said))))


def count(answer: str, text: str) -> float:
    """1 if the text's first number is the answer; of an answer that is no number, if it comes up. Else 0."""
    if not answer.strip().isdigit():
        return contains(answer, text)
    numbers = [word for word in words(text) if word.isdigit()]
    return float(bool(numbers) and int(numbers[0]) == int(answer))


def token_f1(answer: str, text: str) -> float:
    """The harmonic mean of the shares of words in common (SQuAD's F1): the fallback where there is no judge."""
    wanted, said = Counter(words(answer)), Counter(words(text))
    common = sum((wanted & said).values())
    return 2 * common / (wanted.total() + said.total()) if common else 0.0
