"""What every family's session must do, however its frames are laid out."""

from typing import Any

import numpy as np
import torch

from rekv.attention.passes import AnswerPass
from rekv.core import AskConfig, Frame
from rekv.decoding import Transcript, decode
from rekv.engine import Session
from tests.support import hidden_states

TOLERANCE = 1e-4
QUESTION = "what is red"


def pictures(n: int, first: int = 0, size: tuple[int, int] = (48, 80), seconds: float = 1.5) -> list[Frame]:
    """Frames first, first + 1, ... of a video of noise, so many seconds apart."""
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (first + n, *size, 3), dtype=np.uint8)
    return [Frame(images[i], time=seconds * i) for i in range(first, first + n)]


@torch.inference_mode()
def check_own_loop(session: Session) -> None:
    """Retrieved context, handed to `generate()`, and the same context decoded one step at a time by rekv."""
    model, settings = session.model, {"retrieve_size": 3, "max_new_tokens": 8}
    with hidden_states(model.decoder) as hidden:
        answer = session.ask(QUESTION, **settings)
    _, *generated = hidden
    assert {len(layer) for layer in answer.retrieval.frames} == {3}
    config, prompt = AskConfig(**settings), model.family.prompt_ids(QUESTION)  # type: ignore[arg-type]
    (asked,), _ = session._asker.retrieve([(QUESTION, len(prompt))], None, config)
    transcript = Transcript(model.family.tokenizer, frozenset(), (), None, None, lambda: None)
    windowed = AnswerPass(session.memory, asked.contexts)
    with hidden_states(model.decoder) as hidden:
        decode(model.family.hf, prompt, asked.contexts, asked.bound, config, transcript, windowed)
    assert tuple(transcript.ids) == answer.token_ids
    torch.testing.assert_close(torch.cat(hidden), torch.cat(generated), atol=TOLERANCE, rtol=0)


def check_together(session: Session) -> None:
    """Questions together are answered as alone."""
    questions = [QUESTION, "how many", "what is the color of it now"]
    settings: dict[str, Any] = {"retrieve_size": 3, "max_new_tokens": 6}
    alone = [session.ask(question, **settings) for question in questions]
    together = session.ask_many(questions, **settings)
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    assert [answer.retrieval.frames for answer in together] == [answer.retrieval.frames for answer in alone]
