"""Random sessions against the method written down a second time, densely and in float64."""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from rekv.core import Answer
from rekv.engine import Session
from tests.reference import Reference
from tests.support import decoder_lm, hidden_states, pictures, tiny_model, words

HIDDEN = 1e-4
LOGITS = 2e-4
MODELS: list[dict[str, Any]] = [
    {"kind": "qwen2", "heads": 4, "kv_heads": 2},
    {"kind": "qwen2", "heads": 6, "kv_heads": 2, "layers": 2},
    {"kind": "llama", "heads": 3, "kv_heads": 3, "layers": 2},
]


@dataclass
class Scenario:
    """A stream and the questions asked of it, drawn at random around the method's corners."""

    seed: int
    model: dict[str, Any] = field(init=False)
    block: int = field(init=False)
    n_local: int = field(init=False)
    init: list[int] = field(init=False)
    before: list[int] = field(init=False)
    after: list[int] = field(init=False)
    frames: int = field(init=False)
    frames_per_call: int = field(init=False)

    def __post_init__(self) -> None:
        draw = self.draw = random.Random(self.seed)
        self.model = draw.choice(MODELS)
        self.block = draw.choice((1, 2, 3, 4, 7))
        # From a window of one frame to one that the stream never fills; from one that ends between frames.
        self.n_local = self.block + draw.choice((draw.randrange(0, 8), draw.randrange(0, 60)))
        # A sink shorter than a frame, longer than a frame, longer than the window.
        self.init = self.ids(draw.choice((1, draw.randrange(1, 9), draw.randrange(1, self.n_local + 12))))
        self.before, self.after = self.ids(draw.randrange(0, 4)), self.ids(draw.randrange(0, 9))
        self.frames = draw.choice((draw.randrange(0, 5), draw.randrange(5, 30)))
        self.frames_per_call = draw.randrange(1, 10)

    def ids(self, n: int) -> list[int]:
        return [self.draw.randrange(1, 101) for _ in range(n)]

    def appends(self) -> list[int]:
        """Frames of each append; 0 asks a question."""
        parts, left = [0], self.frames
        while left:
            n = self.draw.randint(1, left)
            parts += [n] + [0] * self.draw.randrange(0, 2)
            left -= n
        return [*parts, 0]

    def question(self) -> list[int]:
        return self.ids(self.draw.choice((1, self.draw.randrange(1, 8), self.n_local + self.draw.randrange(1, 8))))

    def settings(self, frames: int) -> dict[str, Any]:
        draw = self.draw
        chunk = draw.choice((1, 1, 2, 3))
        settings: dict[str, Any] = {
            "retrieve_size": chunk * draw.randrange(0, 6),
            "chunk_size": chunk,
            "recent_frames": draw.choice((0, 0, 1, 3)),
            "max_new_tokens": draw.randrange(1, 6),
        }
        if draw.random() < 0.3:
            settings["at"] = draw.uniform(0, frames)
        if draw.random() < 0.2:
            settings["start"] = draw.uniform(0, frames)
        if draw.random() < 0.2:
            settings["end"] = settings.get("start", 0) + draw.uniform(0.5, frames + 1)
        return settings

    def visible(self, frames: int, settings: dict[str, Any]) -> range:
        """Frame k stands at second k."""
        seen = [
            k
            for k in range(frames)
            if settings.get("start", 0) <= k < settings.get("end", frames) and k <= settings.get("at", frames)
        ]
        return range(seen[0], seen[-1] + 1) if seen else range(0)


@pytest.mark.parametrize("seed", range(90))
@torch.inference_mode()
def test_random_session_equals_the_dense_reference(seed: int) -> None:
    scenario = Scenario(seed)
    hf = decoder_lm(**scenario.model)
    model = tiny_model(
        hf,
        tokens_per_frame=scenario.block,
        init=words(scenario.init),
        before=words(scenario.before),
        after=words(scenario.after),
    )
    frames = pictures(scenario.frames)
    features = [model.family.frame_features(model.family.pixels([f.image])) for f in frames]
    empty = torch.empty(0, scenario.block, hf.config.hidden_size)
    reference = Reference(hf, n_init=len(scenario.init), block=scenario.block, n_local=scenario.n_local)
    expected, stream = reference.encode(scenario.init, torch.cat([empty, *features]))
    encoded: list[Tensor] = []
    with hidden_states(model.decoder) as hidden:
        session = model.session(n_local=scenario.n_local, frames_per_call=scenario.frames_per_call)
        for n in scenario.appends():
            if n:
                done = session.memory.frames
                session.append(frames[done : done + n])
                encoded += hidden
            else:
                encoded += hidden
                hidden.clear()
                check_question(scenario, session, reference, stream, hidden)
            hidden.clear()
            session.memory.check_integrity()
    close(torch.cat(encoded), expected, HIDDEN, "hidden states of the stream")


def check_question(
    scenario: Scenario, session: Session, reference: Reference, stream: Any, hidden: list[Tensor]
) -> None:
    frames = session.memory.frames
    question, settings = scenario.question(), scenario.settings(frames)
    visible = scenario.visible(frames, settings)
    given = None
    if scenario.draw.random() < 0.25:
        given = scenario.draw.choices(visible, k=scenario.draw.randrange(0, 9)) if visible else []
    answer = session.ask(words(question), frames=given, **settings)
    asked = reference.question(
        question,
        stream,
        visible,
        topk=settings["retrieve_size"],
        chunk=settings["chunk_size"],
        recent=settings["recent_frames"],
        given=given,
    )
    if asked.gap < 1e-4:
        return
    check_retrieval(answer, asked.picks, asked.scores, visible)
    close(hidden[0], asked.hidden, HIDDEN, "hidden states of the question")
    prompt = scenario.before + question + scenario.after
    ids = list(answer.token_ids)
    logits = reference.logits(prompt + ids[:-1], asked.contexts)
    ours = session.model.family.hf.lm_head(torch.cat(hidden[1:]))
    close(ours, logits, LOGITS, "logits")
    top = logits[len(prompt) - 1 :].topk(2)
    for token, best, (first, second) in zip(ids, top.indices[:, 0].tolist(), top.values.tolist(), strict=True):
        assert token == best or first - second < LOGITS


def check_retrieval(answer: Answer, picks: list[list[int]], scores: Tensor, visible: range) -> None:
    assert [list(layer) for layer in answer.retrieval.frames] == picks
    assert list(answer.retrieval.candidates) == list(visible)
    assert answer.frames_seen == len(visible)
    close(answer.retrieval.scores, scores, LOGITS, "scores")


def close(ours: Tensor, expected: Tensor, tolerance: float, name: str) -> None:
    assert ours.shape == expected.shape, name
    difference = float((ours.double() - expected).abs().max()) if ours.numel() else 0.0
    assert difference <= tolerance, f"{name}: {difference:.1e}"
