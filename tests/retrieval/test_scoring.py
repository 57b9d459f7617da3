"""How frames are scored: parts of a question, drift, and how far the best moment stands out."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rekv.memory.index import Index
from rekv.retrieval import Scoring, parts_of
from rekv.retrieval.parts import phrases
from rekv.retrieval.scoring import level, margin, z_scores

KV_HEADS, DIM, FRAMES = 2, 8, 30


def index() -> Index:
    made = Index(KV_HEADS, DIM, torch.device("cpu"))
    made.put(0, noise(FRAMES, KV_HEADS * DIM))
    return made


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


QUERY = noise(4, 6, DIM, seed=1)  # heads, tokens, head_dim


def test_without_options_it_is_the_score_of_the_mean_query() -> None:
    assert torch.equal(Scoring()(index(), QUERY, range(FRAMES), None), index().scores(QUERY, range(FRAMES)))


def test_frames_that_are_gone_are_left_out() -> None:
    kept = torch.tensor([0, 3, 29])
    assert torch.equal(Scoring()(index(), QUERY, range(FRAMES), kept), index().scores(QUERY, range(FRAMES))[kept])


def test_parts_count_by_the_best_of_their_z_scores() -> None:
    found = Scoring(parts=((0, 1), (4,)))(index(), QUERY, range(FRAMES), None)
    each = torch.stack([index().scores(QUERY[:, [0, 1]], range(FRAMES)), index().scores(QUERY[:, [4]], range(FRAMES))])
    expected = ((each - each.mean(1, keepdim=True)) / each.std(1, keepdim=True, correction=0)).amax(0)
    torch.testing.assert_close(found, expected)


def test_one_part_ranks_by_its_own_scores() -> None:
    found = Scoring(parts=((2, 3),))(index(), QUERY, range(FRAMES), None)
    assert torch.equal(found, index().scores(QUERY[:, [2, 3]], range(FRAMES)))


def test_a_drift_is_taken_out_and_nothing_else() -> None:
    times = torch.tensor([0.0, 1, 2, 5, 9, 10], dtype=torch.float64)
    shape = torch.tensor([1.0, -2, 3, 0, -1, 2])
    flat = level(shape, times)
    drifted = flat + 0.7 * times.float()
    torch.testing.assert_close(level(drifted, times) - drifted.mean(), flat - flat.mean(), atol=1e-5, rtol=0)
    assert float(level(drifted, times).mean()) == pytest.approx(float(drifted.mean()), abs=1e-5)
    slope = float((times - times.mean()).float() @ level(drifted, times))
    assert slope == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_frames_have_no_drift(n: int) -> None:
    assert torch.equal(level(torch.ones(n), torch.arange(float(n))), torch.ones(n))


def test_frames_of_one_time_have_no_drift() -> None:
    scores = torch.tensor([1.0, 5.0])
    assert torch.equal(level(scores, torch.tensor([3.0, 3.0])), scores)


def test_equal_scores_have_no_z_scores() -> None:
    assert z_scores(torch.full((2, 3), 4.0)).tolist() == [[0.0] * 3] * 2


# -- margin --------------------------------------------------------------------------------------------------------


def stream(heights: Sequence[float], n: int = 400) -> Tensor:
    """One layer that is flat but for moments of these heights, 30 frames apart."""
    scores = torch.zeros(1, n)
    for i, height in enumerate(heights):
        scores[0, 30 * i + 5 : 30 * i + 8] = height
    return scores


def test_the_margin_is_that_of_the_best_moment_over_the_fifth_best() -> None:
    scores = stream([3.0, 9.0, 4.0, 8.0, 5.0, 2.0])
    spread = float(scores.std(correction=0))
    assert margin(scores) == pytest.approx((9.0 - 3.0) / spread, rel=1e-4)


def test_neighbours_are_of_the_same_moment() -> None:
    one = torch.zeros(1, 400)
    one[0, 100:105] = torch.tensor([5.0, 6, 7, 6, 5])
    assert margin(one) == pytest.approx(7 / float(one.std(correction=0)), rel=1e-4)


def test_what_is_no_better_than_the_rest_has_no_margin() -> None:
    assert margin(stream([5.0] * 6)) == 0
    assert margin(torch.zeros(3, 400)) == 0


def test_layers_that_disagree_leave_little_margin() -> None:
    agreed = torch.cat((stream([9.0]), stream([9.0])))
    apart = torch.cat((stream([9.0]), stream([0, 9.0])))
    together, divided = margin(agreed), margin(apart)
    assert together is not None
    assert divided is not None
    assert divided < 0.6 * together


@pytest.mark.parametrize("n", [0, 1, 169])
def test_without_a_background_there_is_no_margin(n: int) -> None:
    assert margin(torch.zeros(2, n)) is None


def test_the_margin_hardly_depends_on_the_length_of_the_stream() -> None:
    """The largest score of noise grows with the stream, its margin does not."""
    margins = {n: [m for s in range(40) if (m := margin(noise(1, n, seed=s))) is not None] for n in (500, 20_000)}
    means = {n: sum(values) / len(values) for n, values in margins.items()}
    assert means[20_000] < means[500] + 0.15


# -- parts of a question -------------------------------------------------------------------------------------------


def phrase_words(words: str, pieces: Sequence[str] = (), starts: Sequence[bool] = ()) -> list[str]:
    pieces = pieces or words.split()
    starts = starts or [True] * len(pieces)
    return [" ".join(pieces[i] for i in phrase) for phrase in phrases(pieces, starts)]


def test_phrases_are_what_stands_between_function_words_and_punctuation() -> None:
    words = "Which came first , the red ring or the blue star ?"
    assert phrase_words(words) == ["came first", "red ring", "blue star"]
    assert phrase_words("Where is it ?") == []
    assert phrase_words("") == []


def test_words_in_pieces_are_put_together() -> None:
    pieces = ["What", " colour", " was", " the", " um", "brel", "la", "?"]
    starts = [False, True, True, True, True, False, False, True]
    assert phrases(pieces, starts) == [(1,), (4, 5, 6)]


class Marked:
    """A tokenizer with marks of blanks."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.names[i] for i in ids]

    def decode(self, ids: Sequence[int]) -> str:
        return self.names[ids[0]].replace("Ġ", " ").replace("▁", " ")


@pytest.mark.parametrize("mark", ["Ġ", "▁"])
def test_marks_of_blanks_tell_where_words_begin(mark: str) -> None:
    tokenizer = Marked(["Did", f"{mark}the", f"{mark}um", "brella", f"{mark}or", f"{mark}hat", "?"])
    assert parts_of("phrases", tokenizer, range(7)) == ((2, 3), (5,))


def test_other_forms_need_no_words() -> None:
    assert parts_of("mean", None, range(3)) == ()
    assert parts_of("tokens", None, range(3)) == ((0,), (1,), (2,))
