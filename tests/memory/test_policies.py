"""What memory policies keep, and that questions read it: blocks of unequal length, layer by layer."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rekv.core import Answer
from rekv.engine import Session
from rekv.errors import ConfigError, MemoryFullError
from rekv.memory.kept import packed, unpacked
from rekv.memory.policies import Policy, Redundancy, ValueNorm, find, names, register, registry
from tests.support import decoder_lm, pictures, record, shrink_slabs, tiny_model

TOKENS, LAYERS, DIM = 19, 3, 16  # of a frame; the decoder's
TOKEN = 2 * 2 * DIM * 4  # bytes of one token in one layer
SLABS = LAYERS * (2 * 16 * 2 * DIM * 4 + TOKENS * TOKEN)  # bytes that the index and what is kept grow by
POLICIES = ("value-norm:0.5", "value-norm:0.1", "redundancy:0.05", "merge", "uneven")
QUESTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("w7 w8", {"retrieve_size": 3}),
    ("w30 w2 w5", {"retrieve_size": 4, "chunk_size": 2, "recent_frames": 2}),
    ("w41", {"retrieve_size": 12, "max_new_tokens": 20}),  # whole frames would outgrow the window
    ("w3", {"frames": (1, 2, 30)}),
)


class Merge(Policy):
    """Keeps every other token, each the mean of itself and the one behind it."""

    name = "merge"

    def keep(self, blocks: Tensor, before: Tensor | None) -> Tensor:
        return (torch.arange(blocks.shape[3]) % 2 == 0).expand(len(blocks), -1)

    def reduce(self, block: Tensor, kept: Tensor) -> Tensor:
        following = block.roll(-1, 2)
        following[:, :, -1] = block[:, :, -1]
        return ((block + following) / 2)[:, :, kept]


class Uneven(Policy):
    """Keeps a number of tokens that depends on the block: from one to all."""

    name = "uneven"

    def keep(self, blocks: Tensor, before: Tensor | None) -> Tensor:
        n = (blocks[:, 0, 0, 0, 0].abs() * 1e4).long() % blocks.shape[3] + 1
        return torch.arange(blocks.shape[3]) < n[:, None]


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_POLICIES", dict(registry._POLICIES))
    for policy in (Merge, Uneven):
        register(policy)


def session_of(policy: str | None = None, n_local: int = 120, **settings: Any) -> Session:
    model = tiny_model(tokens_per_frame=TOKENS)
    return model.session(policy=policy, n_local=n_local, frames_per_call=4, sample_fps=1.0, **settings)


def same(ours: Answer, expected: Answer) -> None:
    assert ours.token_ids == expected.token_ids
    assert ours.retrieval.frames == expected.retrieval.frames
    torch.testing.assert_close(ours.retrieval.scores, expected.retrieval.scores, atol=1e-5, rtol=1e-5)


def kept_by_hand(policy: Policy, blocks: Tensor) -> list[Tensor]:
    """Of the blocks of one layer, what the policy keeps of each frame, one frame at a time."""
    found = []
    for i, block in enumerate(blocks):
        mask = policy.keep(block[None], blocks[i - 1] if i else None)[0]
        found.append(policy.reduce(block, mask))
    return found


# -- the policies ----------------------------------------------------------------------------------------------


def test_value_norm_keeps_the_largest() -> None:
    blocks = torch.randn(5, 2, 2, TOKENS, DIM)
    kept = ValueNorm(0.3).keep(blocks, None)
    norms = blocks[:, 1].square().sum((1, 3))
    for mask, norm in zip(kept, norms, strict=True):
        assert mask.sum() == 6  # ceil(0.3 * 19)
        assert norm[mask].min() > norm[~mask].max()
    assert ValueNorm(1.0).keep(blocks, None).all()


def test_redundancy_drops_what_stays_as_it_was() -> None:
    torch.manual_seed(0)
    first = torch.randn(2, 2, TOKENS, DIM)
    second = first + 1e-3 * torch.randn_like(first)
    second[:, :, 4] = torch.randn(2, 2, DIM)
    third = second.clone()
    kept = Redundancy(0.9).keep(torch.stack((first, second, third)), None)
    assert kept[0].all()  # there is nothing before it
    assert kept[1].nonzero().flatten().tolist() == [4]
    assert kept[2].sum() == 1  # one token of a frame always stays
    assert torch.equal(Redundancy(0.9).keep(second[None], first)[0], kept[1])


def test_redundancy_looks_past_what_all_tokens_share() -> None:
    """Keys with a large mean have cosines near 1 with all others; that is not what counts."""
    torch.manual_seed(0)
    blocks = torch.randn(2, 2, 2, TOKENS, DIM) + 1000
    assert Redundancy(0.9).keep(blocks, None)[1].all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("value-nrom", "did you mean 'value-norm'"),
        ("value-norm:0", "above 0 and at most 1"),
        ("value-norm:half", "value-norm:NUMBER"),
        ("redundancy:7", "from -1 to 1"),
        ("redundancy:nan", "from -1 to 1"),
        ("merge:3", "takes no number"),
    ],
)
def test_what_is_no_policy_says_so(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        session_of(text)
    assert {"value-norm", "redundancy", "merge"} <= set(names())


@pytest.mark.parametrize("returned", [torch.zeros(4, TOKENS, dtype=torch.bool), torch.ones(4, TOKENS), torch.ones(4)])
def test_a_policy_that_keeps_nothing_of_a_frame_is_told(returned: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Uneven, "keep", lambda self, blocks, before: returned)
    session = session_of("uneven")
    with pytest.raises(ConfigError, match="a token of each frame"):
        session.append(pictures(4))
    assert session.memory.frames == 0


# -- what questions read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 3, 19, 32, 196])
def test_masks_there_and_back(tokens: int) -> None:
    kept = np.random.default_rng(0).random((7, tokens)) < 0.5
    masks = packed(kept)
    assert masks.shape == (7, 4 * -(-tokens // 32))
    assert (unpacked(masks, tokens) == kept).all()


def test_a_policy_that_keeps_all_changes_nothing() -> None:
    plain, session = session_of(), session_of("value-norm:1")
    record(session, pictures(40)).assert_equal(record(plain, pictures(40)))
    session.memory.check_integrity()


@pytest.mark.parametrize("policy", POLICIES)
def test_questions_read_what_is_kept(policy: str, device: torch.device) -> None:
    """The stream is encoded as without a policy, retrieved by the same keys; what is read is what was chosen."""
    chooser = find(policy)
    assert chooser is not None
    model = tiny_model(decoder_lm().to(device), tokens_per_frame=TOKENS)
    settings: dict[str, Any] = {"n_local": 120, "frames_per_call": 4, "sample_fps": 1.0}
    plain, session = model.session(**settings), model.session(policy=policy, **settings)
    frames = pictures(40)
    for one in (plain, session):
        one.append(frames)
    session.memory.check_integrity()
    total = 0
    for i, layer in session.memory.layers.items():
        twin = plain.memory.layers[i]
        assert layer.kept is not None
        assert torch.equal(layer.index.rows(range(40)), twin.index.rows(range(40)))
        used = session.memory.tokens - layer.window.first
        assert all(map(torch.equal, layer.window.slots(0, used), twin.window.slots(0, used)))
        expected = kept_by_hand(chooser, twin.blocks.read(range(40)).cpu())
        for picks in ([0], [39], [3, 17, 18], [5, 2], []):
            tokens, places = layer.kept.read(picks)
            assert torch.equal(
                tokens.cpu(), torch.cat([plain_empty(twin.blocks.shape), *(expected[f] for f in picks)], 2)
            )
            assert len(places) == tokens.shape[2]
            assert (places.diff() > 0).all()
        total += sum(block.nbytes for block in expected)
    assert session.memory.bytes == total < plain.memory.bytes
    for question, asked in QUESTIONS:
        assert session.ask(question, **asked).retrieval.frames[0] == plain.ask(question, **asked).retrieval.frames[0]


def plain_empty(shape: tuple[int, ...]) -> Tensor:
    return torch.empty(*shape[:2], 0, shape[3])


@pytest.mark.parametrize("policy", POLICIES)
def test_answers_are_those_of_dense_attention_over_what_is_kept(policy: str) -> None:
    """Layers read contexts of unequal length, hand them on to generate(), and to the loop that outgrows the window."""
    session = session_of(policy)
    session.append(pictures(40))
    for question, asked in QUESTIONS:
        asked = {"max_new_tokens": 6} | asked
        first = session.ask(question, **asked)
        again = session.ask(question, **asked)
        same(first, again)
        # The same by the other way of decoding: a window that everything outgrows, but no query does.
        session.config = session.config.but(n_local=TOKENS)
        stepped = session.ask(question, **asked)
        session.config = session.config.but(n_local=120)
        assert stepped.token_ids == first.token_ids


def test_questions_together_read_what_each_alone_does() -> None:
    session = session_of("uneven", n_local=400)
    session.append(pictures(40))
    questions = ("w7 w8", "w3", "w1 w2 w3 w4 w5", "w9 w9")
    asked = {"retrieve_size": 3, "max_new_tokens": 5}
    for together, question in zip(session.ask_many(questions, **asked), questions, strict=True):
        same(together, session.ask(question, **asked))


def test_lengths_differ_between_layers_and_frames() -> None:
    session = session_of("uneven")
    session.append(pictures(40))
    counts = [layer.kept.counts(range(40)).tolist() for layer in session.memory.layers.values() if layer.kept]
    assert len({tuple(row) for row in counts}) == LAYERS
    assert {min(map(min, counts)), max(map(max, counts))} == {1, TOKENS}


@pytest.mark.parametrize("calls", [[1] * 12, [4, 4, 4], [3, 5, 4]], ids=str)
def test_how_frames_come_does_not_matter(calls: list[int]) -> None:
    whole = session_of("redundancy:0.05")
    whole.append(pictures(12))
    session, done = session_of("redundancy:0.05"), 0
    for n in calls:
        session.append(pictures(12)[done : done + n])
        done += n
    for layer, twin in zip(session.memory.layers.values(), whole.memory.layers.values(), strict=True):
        assert layer.kept is not None
        assert twin.kept is not None
        assert (layer.kept.masks(range(12)) == twin.kept.masks(range(12))).all()


# -- budgets ---------------------------------------------------------------------------------------------------


def test_whole_blocks_go_when_they_leave_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_slabs(monkeypatch, block_bytes=TOKENS * TOKEN)
    plain, session = session_of(), session_of("value-norm:0.25")
    for one in (plain, session):
        one.append(pictures(100))
    session.memory.check_integrity()
    for layer in session.memory.layers.values():
        assert layer.blocks.ram.frames * TOKENS <= 1.5 * 120 + 2 * 4 * TOKENS
    assert session.memory.bytes_in_ram < 0.5 * plain.memory.bytes_in_ram


def test_memory_without_a_store_is_full_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is in bytes: of what is kept there is room for more."""
    shrink_slabs(monkeypatch, block_bytes=TOKENS * TOKEN, index_frames=16)
    ram = 40 * LAYERS * (TOKENS * TOKEN + 2 * DIM * 4)
    held = {}
    for policy in (None, "value-norm:0.25"):
        session = session_of(policy, ram=ram)
        with pytest.raises(MemoryFullError):
            session.append(pictures(200))
        session.memory.check_integrity()
        held[policy] = session.memory.frames
        assert session.memory.bytes_in_ram <= ram + SLABS
        session.ask("w3 w4", retrieve_size=8)
    assert held["value-norm:0.25"] > 1.8 * held[None]


def test_forgetting_is_to_leave_the_oldest_out(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_slabs(monkeypatch, block_bytes=TOKENS * TOKEN, index_frames=16)
    ram = 40 * LAYERS * (TOKENS * TOKEN + 2 * DIM * 4)
    plain, session = session_of("uneven"), session_of("uneven", ram=ram, when_full="forget")
    for done in range(0, 200, 20):
        for one in (plain, session):
            one.append(pictures(200)[done : done + 20])
        session.memory.check_integrity()
        assert session.memory.bytes_in_ram <= ram + SLABS
        start = float(session.memory.table.oldest)
        ours, expected = (one.ask("w7 w8", retrieve_size=5, start=start) for one in (session, plain))
        assert (ours.token_ids, ours.retrieval.frames) == (expected.token_ids, expected.retrieval.frames)
    assert session.memory.table.oldest > 0
