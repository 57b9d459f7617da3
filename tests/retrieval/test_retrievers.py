"""The retrievers by name: what each picks of what a question tells it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from rekv.core import AskConfig, QueryForm
from rekv.errors import ConfigError
from rekv.retrieval import Given, Query, Retriever, Top, find, names, needs_pictures, register, registry
from rekv.retrieval.fusion import reciprocal_ranks


@dataclass
class FakeQuery:
    """A question of which everything is known."""

    config: AskConfig = field(default_factory=AskConfig)
    candidates: Sequence[int] = range(10)
    times: Sequence[float] = tuple(map(float, range(400)))
    text: str = "?"
    alike: Sequence[float] = ()
    scans: dict[QueryForm, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.config.retrieve_size

    def similarity(self) -> Tensor:
        return torch.tensor(self.alike)

    def scan(self, form: QueryForm) -> Tensor:
        return self.scans[form]


def picks(name: str, query: FakeQuery, scores: Sequence[float] = ()) -> list[int]:
    retriever = find(name)(query)
    found = retriever.pick(0, torch.tensor(scores or [0.0] * len(query.candidates)), query.candidates)
    assert len(found) <= retriever.most(query.candidates)
    return list(found)


def asking(size: int, **settings: Any) -> AskConfig:
    return AskConfig(retrieve_size=size, **settings)


def test_uniform_takes_the_ends_and_what_lies_between_evenly() -> None:
    assert picks("uniform", FakeQuery(asking(4), range(10, 20))) == [10, 13, 16, 19]
    assert picks("uniform", FakeQuery(asking(1), range(10, 20))) == [10]
    assert picks("uniform", FakeQuery(asking(8), range(3))) == [0, 1, 2]
    assert picks("uniform", FakeQuery(asking(8), ())) == picks("uniform", FakeQuery(asking(0))) == []


def test_recent_takes_the_newest() -> None:
    assert picks("recent", FakeQuery(asking(3), (1, 4, 6, 9))) == [4, 6, 9]
    assert picks("recent", FakeQuery(asking(9), (1, 4))) == [1, 4]
    assert picks("recent", FakeQuery(asking(0))) == picks("recent", FakeQuery(asking(4), ())) == []


def test_oracle_reads_its_spans_and_nothing_else() -> None:
    assert picks("oracle", FakeQuery(asking(8, spans=[(2, 4), (7, 7.5)]))) == [2, 3, 7]
    assert picks("oracle", FakeQuery(asking(8, spans=[(4, 6), (3, 5)]))) == [3, 4, 5], "none twice"
    assert picks("oracle", FakeQuery(asking(8, spans=[(70, 80)]))) == []


def test_oracle_shares_its_frames_out_between_spans() -> None:
    query = FakeQuery(asking(4, spans=[(0, 100), (200, 201), (300, 350)]), range(400))
    assert picks("oracle", query) == [0, 99, 200, 300]


def test_oracle_wants_spans() -> None:
    with pytest.raises(ConfigError, match="spans="):
        picks("oracle", FakeQuery())
    with pytest.raises(ConfigError, match="start before end"):
        AskConfig(spans=[(3, 3)])


def test_external_takes_what_is_most_alike_in_every_layer() -> None:
    query = FakeQuery(asking(2), range(5, 9), alike=[0.1, 0.9, 0.2, 0.8])
    assert picks("external", query, [9.0, 0, 9, 0]) == [6, 8]


def test_fusion_finds_what_both_like() -> None:
    own, other = [5.0, 4, 3, 0, 1], [0.0, 4, 1, 5, 3]
    assert picks("fusion", FakeQuery(asking(1), range(5), alike=other), own) == [1]
    ranks = reciprocal_ranks(torch.tensor(own)) + reciprocal_ranks(torch.tensor(other))
    by_hand = [1 / 61 + 1 / 65, 1 / 62 + 1 / 62, 1 / 63 + 1 / 64, 1 / 65 + 1 / 61, 1 / 64 + 1 / 63]
    assert ranks.tolist() == pytest.approx(by_hand)


@pytest.mark.parametrize("name", ["internal", "fusion"])
def test_shared_picks_are_the_best_on_average(name: str) -> None:
    scan = torch.tensor([[0.0, 9, 0, 5, 0], [0.0, 0, 9, 5, 0]])  # each layer has a favourite, both like the fourth
    query = FakeQuery(asking(1, shared_picks=True), range(5), alike=[0.0, 1, 2, 3, 1], scans={"mean": scan})
    assert picks(name, query, [7.0, 0, 0, 0, 0]) == [3]


@pytest.mark.parametrize("seed", range(20))
def test_picks_keep_their_distance_the_best_ones_first(seed: int) -> None:
    draw = random.Random(seed)
    n, gap, size = draw.randrange(0, 40), draw.uniform(0.5, 9), draw.randrange(0, 12)
    times = sorted(draw.uniform(0, 60) for _ in range(n))
    scores = [draw.uniform(-1, 1) for _ in range(n)]
    taken: list[int] = []
    for frame in sorted(range(n), key=lambda f: -scores[f]):
        if len(taken) < size and all(abs(times[frame] - times[other]) >= gap for other in taken):
            taken.append(frame)
    found = Top(size, min_gap=gap, times=times).pick(torch.tensor(scores), range(n))
    assert found == sorted(taken)
    assert all(times[b] - times[a] >= gap for a, b in pairwise(found))


def test_a_gap_and_chunks_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="min_gap"):
        AskConfig(min_gap=1.0, chunk_size=2)


# -- auto ----------------------------------------------------------------------------------------------------------


def scan(*peaks: tuple[int, float], n: int = 400) -> Tensor:
    """Two layers of noise with peaks at some frames."""
    noise = torch.randn(2, n, generator=torch.Generator().manual_seed(0)).clamp_(-2, 2)
    for frame, height in peaks:
        noise[:, frame : frame + 2] += height
    return noise


def decided(phrases: Tensor, mean: Tensor | None = None, **settings: Any) -> tuple[str, list[int]]:
    n = phrases.shape[1]
    scans: dict[QueryForm, Tensor] = {"phrases": phrases, "mean": phrases if mean is None else mean}
    query = FakeQuery(asking(3, **settings), range(n), scans=scans)
    retriever: Any = find("auto")(query)
    found = retriever.pick(0, phrases[0], query.candidates)
    assert len(found) <= retriever.most(query.candidates)
    return retriever.decision, found


def test_what_stands_out_is_read_from_memory() -> None:
    decision, found = decided(scan((120, 12.0)))
    assert decision == "memory"
    assert {120, 121} <= set(found)
    assert len(found) == 3


def test_where_nothing_stands_out_the_newest_frames_are_read() -> None:
    assert decided(scan()) == ("present", [396, 397, 398, 399])


def test_a_question_that_names_nothing_is_about_the_present() -> None:
    flat = torch.tensor([-1.0, 1.0]).repeat(200).expand(2, -1)
    assert decided(scan((120, 12.0)), mean=flat)[0] == "present"


def test_what_stands_out_just_now_is_read_with_the_newest_frames() -> None:
    decision, found = decided(scan((398, 12.0)))
    assert decision == "both"
    assert {396, 397, 398, 399} <= set(found)


def test_a_short_stream_is_read_from_both_ends() -> None:
    decision, found = decided(scan((3, 12.0), n=100))
    assert decision == "both"
    assert {3, 4, 96, 97, 98, 99} <= set(found)


def test_the_margin_that_counts_can_be_chosen() -> None:
    assert decided(scan((120, 12.0)), min_margin=100.0)[0] == "present"


# -- by name -------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_told_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"no retriever 'externl'; did you mean 'external'\?.*fusion"):
        find("externl")


def newest_first(query: Query) -> Retriever:
    """A retriever as somebody else would write it."""
    return Given(list(query.candidates)[: -query.size - 1 : -1])


def test_a_retriever_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    register("backwards", newest_first)
    assert names()[-1] == "backwards"
    assert picks("backwards", FakeQuery(asking(3))) == [9, 8, 7]
    assert not needs_pictures("backwards")


def test_a_retriever_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("ours", "tests.retrieval.test_retrievers:newest_first", registry.GROUP),
        EntryPoint("broken", "rekv.no_such_module:it", registry.GROUP),
    ]
    monkeypatch.setattr("rekv.plugins.entry_points", lambda group: entries if group == registry.GROUP else [])
    assert {"ours", "broken", "internal"} <= set(names())
    assert picks("ours", FakeQuery(asking(3))) == [9, 8, 7]
    with pytest.raises(ConfigError, match=r"'broken' cannot be imported from rekv\.no_such_module:it"):
        find("broken")


def test_who_needs_pictures() -> None:
    assert [name for name in names() if needs_pictures(name)] == ["external", "fusion"]
