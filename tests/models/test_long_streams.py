"""Qwen-VL on streams of many times its window, against a restatement in plain loops that lays positions out itself."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rekv.core import Frame
from rekv.engine import Model, Session
from tests.models import test_qwen_vl as qwen
from tests.models.same import QUESTION, TOLERANCE
from tests.reference import Layer, Reference
from tests.support import hidden_states

folder, model = qwen.folder, qwen.model  # fixtures: the same checkpoints
ROWS, COLUMNS = 3, 5
FPS = 0.6  # Qwen2.5-VL's blocks are then 6 2/3 positions apart
SECONDS_PER_POSITION = 0.5


class GridReference(Reference):
    """Positions in time, height and width: those that the documentation of the design names, written out."""

    def __init__(self, model: Model, *, n_init: int, n_local: int) -> None:
        family: Any = model.family
        self.kind = type(family).__name__
        before, after = (len(family._ids(part)) for part in family.frame_text(0.0))
        block = [(0, row, column) for row in range(ROWS) for column in range(COLUMNS)]
        if self.kind == "Qwen3VL":  # text, the picture, text, and the next block behind the largest position
            end = before + max(ROWS, COLUMNS)
            block = [(i,) * 3 for i in range(before)]
            block += [(before, before + row, before + column) for row in range(ROWS) for column in range(COLUMNS)]
            block += [(end + i,) * 3 for i in range(after)]
            self.step = (float(end + after),) * 3
        else:
            self.step = (2 / FPS / SECONDS_PER_POSITION if self.kind == "Qwen25VL" else 1.0, 0.0, 0.0)
        self.grid = block
        self.blocks = 0  # of the context at hand, or of the stream
        self.deep: Sequence[Tensor] = ()  # features that are added behind the first layers
        self.seen = torch.empty(0, dtype=torch.long)  # and the tokens to which they are
        super().__init__(family.hf, n_init=n_init, block=len(block), n_local=n_local)

    def stream(self, init_ids: Sequence[int], inputs: dict[str, Any]) -> tuple[Tensor, list[Layer]]:
        frames = inputs["inputs_embeds"].unflatten(1, (-1, self.block))[0]
        self.blocks, self.deep = len(frames), inputs.get("deepstack_visual_embeds", ())
        if self.deep:
            self.seen = torch.nonzero(inputs["visual_pos_masks"][0])[:, 0] + self.n_init
        encoded = self.encode(init_ids, frames)
        self.deep = ()
        return encoded

    def follow(self, i: int, hidden: Tensor, context: Layer) -> Tensor:
        self.blocks = (context.keys.shape[1] - self.n_init) // self.block
        return super().follow(i, hidden, context)

    def layer(self, i: int, hidden: Tensor, seen: Layer, at: Tensor, sinks: Tensor) -> Tensor:
        hidden = super().layer(i, hidden, seen, at, sinks)
        if i < len(self.deep):
            hidden[self.seen] += self.deep[i].double()
        return hidden

    def project(self, i: int, hidden: Tensor, tokens: int) -> tuple[Tensor, Layer]:
        query, own = super().project(i, hidden, tokens)
        attention = self.decoder.layers[i].self_attn
        if self.kind == "Qwen3VL":
            query, own.keys = self.norm(attention.q_norm, query), self.norm(attention.k_norm, own.keys)
        return query, own

    def place(self, token: int) -> tuple[int, ...]:
        """Of a token of the stream or of a context, in time, height and width."""
        if token < self.n_init:
            return (token,) * 3
        k, inside = divmod(token - self.n_init, self.block)
        if k >= self.blocks:  # text, behind the largest position on any axis
            return (self.behind(self.blocks) + token - self.n_init - self.blocks * self.block,) * 3
        return tuple(self.n_init + int(k * step) + own for step, own in zip(self.step, self.grid[inside], strict=True))

    def behind(self, blocks: int) -> int:
        if not blocks:
            return self.n_init
        last = [max(place[axis] for place in self.grid) + int((blocks - 1) * self.step[axis]) for axis in range(3)]
        return self.n_init + max(last) + 1

    def from_afar(self, query: Tensor, at: Tensor) -> Tensor:
        """As far as it was when the window filled up: on each axis for frames, for text behind the largest."""
        full = (self.n_local - self.n_init) // self.block
        frames = tuple(self.n_init + int(full * step) for step in self.step)
        stream = self.n_init + self.blocks * self.block
        places = [frames if token < stream else (self.behind(full),) * 3 for token in at.tolist()]
        return self.turned(query, places)

    def rope(self, x: Tensor, at: Tensor) -> Tensor:
        return self.turned(x, [self.place(token) for token in at.tolist()])

    def turned(self, x: Tensor, places: Sequence[tuple[int, ...]]) -> Tensor:
        """Rotate, each frequency by the position on the axis that the model gives it to."""
        parameters = self.config.rope_parameters
        half = x.shape[-1] // 2
        counts = parameters["mrope_section"]
        if self.kind == "Qwen3VL":  # interleaved
            axes = [i % 3 if i < 3 * counts[i % 3] else 0 for i in range(half)]
        else:
            axes = [axis for axis, count in enumerate(counts) for _ in range(count)]
        at = torch.tensor(places, dtype=torch.float64)[:, axes]
        angles = at * parameters["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), -1)


def pictures(n: int) -> list[Frame]:
    return [Frame(frame.image, i / FPS) for i, frame in enumerate(qwen.pictures(n))]


@torch.inference_mode()
def both(model: Model, spare: int, **settings: Any) -> tuple[Session, GridReference, Tensor, Tensor, list[Layer]]:
    """A session and the reference, their hidden states of a stream of ten windows, and what the reference has of it.

    The window is four blocks and `spare` tokens.
    """
    plain = qwen.session_of(model)
    plain.fit(pictures(1)[0].image)
    n_local = 4 * plain.block.tokens + spare
    frames = pictures(2 * (10 * n_local // plain.block.tokens + 1))
    with hidden_states(model.decoder) as hidden:
        session = qwen.session_of(model, n_local=n_local, sample_fps=FPS, **settings)
        hidden.clear()  # of the init prompt, which comes again for pictures of another shape
        session.append(frames)
    assert session.memory.tokens > 10 * n_local
    pairs = [frames[i : i + 2] for i in range(0, len(frames), 2)]
    reference = GridReference(model, n_init=len(session._init_ids), n_local=n_local)
    encoded, stream = reference.stream(session._init_ids, model.family.block_inputs(pairs, session.block, 0))
    return session, reference, torch.cat(hidden), encoded, stream


@pytest.mark.parametrize("frames_per_call", [2, 10])
def test_ten_windows_are_encoded_as_token_by_token(model: Model, frames_per_call: int) -> None:
    _, _, ours, expected, _ = both(model, spare=5, frames_per_call=frames_per_call)
    torch.testing.assert_close(ours.double(), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("retrieve_size", "spare"), [(2, 120), (9, 5)], ids=["in the window", "beyond the window"])
@torch.inference_mode()
def test_questions_after_ten_windows(model: Model, retrieve_size: int, spare: int) -> None:
    """What is retrieved, and the logits of every token of the prompt and of the answer."""
    session, reference, _, _, stream = both(model, spare)
    ids, prompt = model.family.question_ids(QUESTION), model.family.prompt_ids(QUESTION)
    with hidden_states(model.decoder) as hidden:
        answer = session.ask(QUESTION, retrieve_size=retrieve_size, max_new_tokens=6)
    asked = reference.question(ids, stream, range(session.memory.frames), topk=retrieve_size, chunk=1)
    assert asked.gap > TOLERANCE
    assert [list(layer) for layer in answer.retrieval.frames] == asked.picks
    torch.testing.assert_close(answer.retrieval.scores.double(), asked.scores, atol=TOLERANCE, rtol=1e-5)
    torch.testing.assert_close(hidden[0].double(), asked.hidden, atol=TOLERANCE, rtol=0)
    tokens = [*prompt, *answer.token_ids[:-1]]
    context = asked.contexts[0].keys.shape[1]
    assert (context + len(tokens) < session.config.n_local) == (retrieve_size == 2)
    expected = reference.logits(tokens, asked.contexts)
    ours = model.family.hf.lm_head(torch.cat(hidden[1:]))  # type: ignore[operator]
    torch.testing.assert_close(ours.double(), expected, atol=TOLERANCE, rtol=0)
    assert answer.token_ids == tuple(expected[len(prompt) - 1 :].argmax(-1).tolist())
