"""Every family, on a tiny random model of its real architecture: equal to the stock model, and to itself."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rekv.attention.hook import run
from rekv.attention.passes import EncodePass
from rekv.core import Frame, Turn
from rekv.engine import Model, Session, load
from rekv.memory.memory import Memory
from rekv.models.chat import ChatLM
from tests.models import same
from tests.models.families import FAMILIES, PICTURE, Tiny
from tests.models.same import QUESTION, TOLERANCE, check_own_loop, check_together
from tests.support import hidden_states

ENDLESS = 1 << 20  # a window that holds everything


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def folder(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    tiny.build(path)
    return path


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def model(request: pytest.FixtureRequest, folder: Path) -> Iterator[Model]:
    with torch.backends.cudnn.flags(allow_tf32=False):  # by default a GPU rounds what it convolves to ten bits
        yield load(folder, device=request.param, dtype="float32")


def pictures(n: int, first: int = 0) -> list[Frame]:
    return same.pictures(n, first, (60, 80))


def frame_inputs(model: Model, frames: Sequence[Frame]) -> Tensor:
    return model.family.frame_inputs([frame.image for frame in frames], [frame.time for frame in frames])


def test_what_is_loaded(tiny: Tiny, model: Model) -> None:
    family = model.family
    assert type(family).__name__ == tiny.family
    assert tiny.architecture in family.architectures
    assert family.tokens_per_frame == tiny.tokens_per_frame
    assert family.init_prompt == tiny.init_prompt
    assert family.prompt("Q") == tiny.prompt


def test_tokens_of_the_prompts(tiny: Tiny, model: Model) -> None:
    """The start token, where there is one, comes first and once; the question and the prompt have none."""
    family, tokenizer = model.family, model.family.tokenizer
    start = tokenizer.bos_token or ""
    assert tokenizer.decode(family.init_ids()) == start + tiny.init_prompt.removeprefix(start)
    assert tokenizer.decode(family.question_ids("Q")) == "Q"
    assert tokenizer.decode(family.prompt_ids("Q")) == tiny.prompt
    chosen = tokenizer.decode(family.prompt_ids("Q", ["a", "b"]))
    assert chosen.endswith("Only give the best option." + tiny.prompt.split("Q")[1] + tiny.choice_prefix)


def test_a_conversation_repeats_what_was_said(tiny: Tiny, model: Model) -> None:
    """Each turn as when it was asked, and one that the family's own template would write, where it has one."""
    family = model.family
    turns = [Turn("Q1", "A1"), Turn("Q2", "A2")]
    assert family.dialogue((), "Q") == family.prompt("Q")
    text = family.dialogue(turns, "Q3")
    assert text.startswith(f"{family.prompt('Q1')}A1".rstrip()) or isinstance(family, ChatLM)
    places = [text.index(part) for part in ("Q1", "A1", "Q2", "A2", "Q3")]
    assert places == sorted(places)
    assert text.endswith(tiny.prompt.split("Q")[1])
    if isinstance(family, ChatLM):
        said = [("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2"), ("user", "Q3")]
        messages: list[Any] = [{"role": role, "content": [{"type": "text", "text": part}]} for role, part in said]
        whole = family.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert str(whole).endswith(text[text.index("A1") :])
    assert family.prompt_ids("Q3", turns=turns) == family.tokenizer(text, add_special_tokens=False).input_ids


@torch.inference_mode()
def stock_logits(tiny: Tiny, model: Model, frames: Sequence[Frame], ids: Sequence[int]) -> Tensor:
    """Logits of the stock model for [init | frames | ids], pictures and all where it takes them as the family does."""
    family = model.family
    if tiny.inputs is None:
        embed = family.hf.get_input_embeddings()
        init, end = (embed(torch.tensor(part, device=family.device)) for part in (family.init_ids(), ids))
        embeds = torch.cat((init, frame_inputs(model, frames).flatten(0, 1), end))
        return family.hf(inputs_embeds=embeds[None]).logits[0]  # type: ignore[no-any-return]
    tokens = family.init_ids()
    for frame in frames:
        before, after = (family._ids(text) for text in family.frame_text(frame.time))
        picture = family.tokens_per_frame - len(before) - len(after)
        tokens += [*before, *[PICTURE] * picture, *after]
    pixels = family.pixels([frame.image for frame in frames])
    given = tiny.inputs(pixels) | {"input_ids": torch.tensor([[*tokens, *ids]], device=family.device)}
    return family.hf(**given).logits[0]  # type: ignore[no-any-return]


@torch.inference_mode()
def test_the_whole_forward_equals_the_stock_model(tiny: Tiny, model: Model) -> None:
    frames, family = pictures(8), model.family
    ids = family.prompt_ids(QUESTION)
    expected = stock_logits(tiny, model, frames, ids)
    embed: Any = family.hf.get_input_embeddings()
    init, end = (embed(torch.tensor(part, device=family.device)) for part in (family.init_ids(), ids))
    embeds = torch.cat((init, frame_inputs(model, frames).flatten(0, 1), end))[None]
    memory = Memory(model.rotary, n_init=embeds.shape[1], tokens_per_frame=1, n_local=ENDLESS)
    hidden = run(model.decoder, EncodePass(memory, embeds.shape[1]), inputs_embeds=embeds).last_hidden_state
    torch.testing.assert_close(family.hf.lm_head(hidden[0]), expected, atol=TOLERANCE, rtol=0)  # type: ignore[operator]
    stranger = stock_logits(tiny, model, pictures(8, first=1), ids)  # of other pictures: the test can fail
    assert (stranger - expected).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("frames_per_call", [1, 3])
@torch.inference_mode()
def test_chunk_by_chunk_equals_the_stock_model(tiny: Tiny, model: Model, frames_per_call: int) -> None:
    """Init prompt, frames and prompt in calls of their own, all frames retrieved: one causal sequence."""
    frames, head = pictures(8), model.family.hf.lm_head
    expected = stock_logits(tiny, model, frames, model.family.prompt_ids(QUESTION))
    with hidden_states(model.decoder) as hidden:
        session = model.session(n_local=ENDLESS, frames_per_call=frames_per_call)
        session.append(frames)
        session.ask(QUESTION, retrieve_size=8, max_new_tokens=1)
    *encoded, _, prompt = hidden
    ours = torch.cat([head(part.to(expected.device)) for part in (*encoded, prompt)])  # type: ignore[operator]
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)


def filled(model: Model, n: int = 12, **settings: Any) -> Session:
    session = model.session(n_local=5 * model.family.tokens_per_frame + 40, frames_per_call=4, **settings)
    session.append(pictures(n))
    return session


def test_generate_equals_our_own_loop(model: Model) -> None:
    session = model.session(n_local=ENDLESS, frames_per_call=4)
    session.append(pictures(12))
    check_own_loop(session)


def test_resume_through_the_store(model: Model, folder: Path, tmp_path: Path) -> None:
    """Half of the frames, a rest on disk, a model loaded anew, the other half: as if nothing had happened."""
    expected = filled(model).ask(QUESTION, retrieve_size=3, max_new_tokens=8)
    with filled(model, 6, name="s", store=tmp_path):
        pass
    again = load(folder, device=str(model.family.device), dtype="float32")
    with again.session("s", store=tmp_path) as session:
        session.append(pictures(6, first=6))
        answer = session.ask(QUESTION, retrieve_size=3, max_new_tokens=8)
    assert answer.token_ids == expected.token_ids
    assert answer.retrieval.frames == expected.retrieval.frames
    torch.testing.assert_close(answer.retrieval.scores, expected.retrieval.scores, atol=TOLERANCE, rtol=1e-5)


def test_questions_together_are_answered_as_alone(model: Model) -> None:
    session = model.session(n_local=ENDLESS, frames_per_call=4)
    session.append(pictures(12))
    check_together(session)
