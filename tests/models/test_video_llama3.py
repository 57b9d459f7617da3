"""VideoLLaMA3 on a tiny random model: equal to the stock model, on the same video."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from torch import Tensor
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import (
    VideoLlama3ImageProcessorPil,
    smart_resize,
)

from rekv.attention.hook import run
from rekv.attention.passes import EncodePass
from rekv.core import Frame
from rekv.engine import Model, Session, load
from rekv.memory.memory import Memory
from tests.models.families import save, text, tokenizer, vision
from tests.models.same import QUESTION, TOLERANCE, check_own_loop, check_together, pictures
from tests.support import hidden_states

ENDLESS = 1 << 20  # a window that holds everything
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|video_pad|>"]
VIDEO = 259  # the last of these
ROWS, COLUMNS = 3, 5  # of tokens, for the pictures here
PICTURE = ROWS * COLUMNS
BLOCK = len("Time 0000.0s:") + PICTURE + len(",")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'text' %}"
    "{{ c['text'] }}{% else %}<|video_pad|>\n{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = hf.VideoLlama3Config(
        text_config=text(),
        vision_config=vision("video_llama_3_vision", patch_size=4),
        video_token_id=VIDEO,
        image_token_id=310,
    )
    save(hf.VideoLlama3ForConditionalGeneration(config), path)
    tokenizer(path, SPECIAL, template=TEMPLATE)
    VideoLlama3ImageProcessorPil(patch_size=4, merge_size=1).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, device="cpu")


def session_of(model: Model, n_local: int = ENDLESS, frames_per_call: int = 3, **settings: Any) -> Session:
    return model.session(n_local=n_local, frames_per_call=frames_per_call, frame_tokens=PICTURE, **settings)


@torch.inference_mode()
def stock_logits(model: Model, frames: Sequence[Frame], ids: Sequence[int]) -> Tensor:
    """Logits of the stock model for [init | video | ids]: patches by the stock processor, times by its format."""
    family = model.family
    tokens = family.init_ids()
    for frame in frames:
        tokens += [*family._ids(f"Time {frame.time:06.1f}s:"), *[VIDEO] * PICTURE, *family._ids(",")]
    processor = VideoLlama3ImageProcessorPil(patch_size=4, merge_size=2, do_resize=False)
    size = (COLUMNS * 8, ROWS * 8)
    images = [np.asarray(Image.fromarray(frame.image).resize(size, Image.Resampling.BICUBIC)) for frame in frames]
    patches = processor(images=images, return_tensors="pt").pixel_values
    stock: Any = family.hf
    return stock(  # type: ignore[no-any-return]
        input_ids=torch.tensor([[*tokens, *ids]]),
        pixel_values_videos=patches,
        video_grid_thw=torch.tensor([[len(frames), 2 * ROWS, 2 * COLUMNS]]),
        video_merge_sizes=torch.tensor([2]),
    ).logits[0]


def test_prompts_are_those_of_the_template(model: Model) -> None:
    family = model.family
    assert type(family).__name__ == "VideoLlama3"
    assert family.init_prompt == "<|im_start|>user\n"
    assert family.prompt("Q") == "\nQ<|im_end|>\n<|im_start|>assistant\n"
    assert family.frame_text(3.5) == ("Time 0003.5s:", ",")
    assert family.frame_text(12345.6) == ("Time 012346s:", ",")


@torch.inference_mode()
def test_the_whole_forward_equals_the_stock_model(model: Model) -> None:
    frames, family = pictures(6), model.family
    ids = family.prompt_ids(QUESTION)
    expected = stock_logits(model, frames, ids)
    embed: Any = family.hf.get_input_embeddings()
    init, end = (embed(torch.tensor(part)) for part in (family.init_ids(), ids))
    shape = family.block_shape(family.encode_config, (ROWS, COLUMNS))
    assert shape.tokens == BLOCK
    video = family.block_inputs([[frame] for frame in frames], shape, 0)["inputs_embeds"][0]
    embeds = torch.cat((init, video, end))[None]
    memory = Memory(model.rotary, n_init=embeds.shape[1], tokens_per_frame=1, n_local=ENDLESS)
    hidden = run(model.decoder, EncodePass(memory, embeds.shape[1]), inputs_embeds=embeds).last_hidden_state
    torch.testing.assert_close(family.hf.lm_head(hidden[0]), expected, atol=TOLERANCE, rtol=0)  # type: ignore[operator]
    stranger = stock_logits(model, pictures(6, first=1), ids)  # of other pictures: the test can fail
    assert (stranger - expected).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("frames_per_call", [1, 3])
@torch.inference_mode()
def test_chunk_by_chunk_equals_the_stock_model(model: Model, frames_per_call: int) -> None:
    """Init prompt, pictures and prompt in calls of their own, all retrieved: one causal sequence."""
    frames, head = pictures(7), model.family.hf.lm_head
    expected = stock_logits(model, frames, model.family.prompt_ids(QUESTION))
    with hidden_states(model.decoder) as hidden:
        session = session_of(model, frames_per_call=frames_per_call)
        hidden.clear()  # of the init prompt, which comes again for pictures of another shape
        session.append(frames)
        session.ask(QUESTION, retrieve_size=8, max_new_tokens=1)
    *encoded, _, prompt = hidden
    ours = torch.cat([head(part) for part in (*encoded, prompt)])  # type: ignore[operator]
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)


def test_generate_equals_our_own_loop(model: Model) -> None:
    session = session_of(model)
    session.append(pictures(12))
    check_own_loop(session)


def test_questions_together_are_answered_as_alone(model: Model) -> None:
    session = session_of(model)
    session.append(pictures(12))
    check_together(session)


def test_resume_through_the_store(model: Model, folder: Path, tmp_path: Path) -> None:
    """Half of the pictures, portrait, a rest on disk, a model loaded anew, the other half: as if nothing happened."""
    settings: dict[str, Any] = {"n_local": 5 * BLOCK + 9}
    ask: dict[str, Any] = {"retrieve_size": 3, "max_new_tokens": 8}
    first, second = pictures(6, size=(80, 48)), pictures(6, first=6, size=(80, 48))
    whole = session_of(model, **settings)
    whole.append([*first, *second])
    expected = whole.ask(QUESTION, **ask)
    with session_of(model, name="s", store=tmp_path, **settings) as session:
        session.append(first)
    with load(folder, device="cpu").session("s", store=tmp_path) as session:
        assert session.block.grid == (COLUMNS, ROWS)
        session.append(second)
        answer = session.ask(QUESTION, **ask)
    assert answer.token_ids == expected.token_ids
    assert answer.retrieval.frames == expected.retrieval.frames
    torch.testing.assert_close(answer.retrieval.scores, expected.retrieval.scores, atol=TOLERANCE, rtol=1e-5)


@pytest.mark.parametrize("size", [(30, 60), (96, 96), (480, 854), (1080, 1920), (1920, 1080)])
def test_sizes_are_those_of_the_stock_processor(model: Model, size: tuple[int, int]) -> None:
    """With 16 tokens at least and, by default, 91 at most: what the checkpoints give to each of 180 pictures."""
    height, width = smart_resize(*size, factor=8, min_pixels=16 * 64, max_pixels=16384 * 64 // 180)
    assert model.family.grid(*size, model.family.encode_config) == (height // 8, width // 8)


@pytest.mark.gpu
def test_answers_on_a_gpu_are_those_on_the_cpu(model: Model, folder: Path) -> None:
    sessions = [session_of(one, n_local=120) for one in (model, load(folder, device="cuda", dtype="float32"))]
    for session in sessions:
        session.append(pictures(12))
    answers = [session.ask(QUESTION, retrieve_size=5, max_new_tokens=6) for session in sessions]
    assert len({(answer.token_ids, answer.retrieval.frames) for answer in answers}) == 1
