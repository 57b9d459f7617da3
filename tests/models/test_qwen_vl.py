"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL on tiny random models: equal to the stock model, on the same video."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from packaging.version import Version
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from rekv.attention.passes import EncodePass
from rekv.attention.rotary import rotate
from rekv.core import Frame
from rekv.engine import Model, Session, load
from rekv.errors import ConfigError, ModelError, SessionError
from rekv.memory.memory import Memory
from rekv.models.patches import fit, patchify
from rekv.store.meta import SessionMeta
from tests.models.families import save, text, tokenizer
from tests.models.same import QUESTION, TOLERANCE, check_own_loop, check_together
from tests.models.same import pictures as pictures_of
from tests.support import hidden_states

ENDLESS = 1 << 20  # a window that holds everything
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"]
VIDEO = 261  # the last of these
FPS = 2.0
TOKENS = 15  # 3 rows of 5 for the pictures here
TEMPLATE = (
    "{% for m in messages %}{% if SYSTEM %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}"
    "{% else %}<|vision_start|><|video_pad|><|vision_end|>{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def rope(section: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": section}


def vision(**more: Any) -> dict[str, Any]:
    return {"depth": 3, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2} | more


def qwen2_vl(folder: Path) -> None:
    config = hf.Qwen2VLConfig(
        text_config=text("qwen2_vl_text", rope_parameters=rope([2, 3, 3])),
        vision_config=vision(embed_dim=32, hidden_size=64),
        video_token_id=VIDEO,
        image_token_id=310,
    )
    save(hf.Qwen2VLForConditionalGeneration(config), folder)


def qwen25_vl(folder: Path) -> None:
    config = hf.Qwen2_5_VLConfig(
        text_config=text("qwen2_5_vl_text", rope_parameters=rope([2, 3, 3])),
        vision_config=vision(
            hidden_size=32,
            intermediate_size=48,
            out_hidden_size=64,
            window_size=16,
            fullatt_block_indexes=[1],
            tokens_per_second=2,
        ),
        video_token_id=VIDEO,
        image_token_id=310,
    )
    save(hf.Qwen2_5_VLForConditionalGeneration(config), folder)


def qwen3_vl(folder: Path) -> None:
    config = hf.Qwen3VLConfig(
        text_config=text("qwen3_vl_text", rope_parameters=rope([4, 2, 2]), head_dim=16),
        vision_config=vision(
            hidden_size=32,
            intermediate_size=48,
            out_hidden_size=64,
            num_position_embeddings=36,
            deepstack_visual_indexes=[0, 2],
        ),
        video_token_id=VIDEO,
        image_token_id=310,
    )
    save(hf.Qwen3VLForConditionalGeneration(config), folder)


BUILD = {"Qwen2VL": qwen2_vl, "Qwen25VL": qwen25_vl, "Qwen3VL": qwen3_vl}


def checkpoint(family: str, path: Path) -> None:
    torch.manual_seed(0)
    BUILD[family](path)
    system = "false" if family == "Qwen3VL" else "loop.first"
    tokenizer(path, SPECIAL, template=TEMPLATE.replace("SYSTEM", system))
    Qwen2VLImageProcessorPil(patch_size=4).save_pretrained(path)


@pytest.fixture(scope="module", params=BUILD)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    checkpoint(request.param, path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, device="cpu")


def pictures(n: int, first: int = 0, size: tuple[int, int] = (48, 80)) -> list[Frame]:
    return pictures_of(n, first, size, 1 / FPS)


def session_of(model: Model, n_local: int = ENDLESS, frames_per_call: int = 4, **settings: Any) -> Session:
    given: dict[str, Any] = {"sample_fps": FPS, "frame_tokens": TOKENS} | settings
    return model.session(n_local=n_local, frames_per_call=frames_per_call, **given)


# -- the stock model -----------------------------------------------------------------------------------------------


def stock_inputs(model: Model, frames: Sequence[Frame], ids: Sequence[int]) -> dict[str, Any]:
    """What the stock model takes for [init | video | ids]: ids, patches of the video, its grid."""
    family: Any = model.family
    rows, columns = 3, 5
    frames = [*frames, frames[-1]] if len(frames) % 2 else frames  # as the stock processors pad
    n = len(frames) // 2
    tokens = list(family.init_ids())
    for i in range(n):
        time = (frames[2 * i].time + frames[2 * i + 1].time) / 2
        before, after = (family._ids(part) for part in family.frame_text(time))
        tokens += [*before, *[VIDEO] * TOKENS, *after]
    preprocessor = Qwen2VLImageProcessorPil(patch_size=4, do_resize=False)
    images = [np.asarray(resized(frame, (rows * 8, columns * 8))) for frame in frames]
    given = preprocessor(images=images, return_tensors="pt").pixel_values
    # An image is put twice into its patches: half of one and half of the next make a pair.
    halves = given.view(n, 2, -1, 3, 2, 16)
    patches = torch.stack((halves[:, 0, :, :, 0], halves[:, 1, :, :, 1]), 3).flatten(0, 1).flatten(1)
    input_ids = torch.tensor([[*tokens, *ids]])
    inputs = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "mm_token_type_ids": 2 * (input_ids == VIDEO).int(),
        "pixel_values_videos": patches,
        "video_grid_thw": torch.tensor([[n, 2 * rows, 2 * columns]]),
    }
    if type(family).__name__ == "Qwen25VL":
        inputs["second_per_grid_ts"] = torch.tensor([2 / FPS])
    return inputs


def resized(frame: Frame, size: tuple[int, int]) -> Any:
    from PIL import Image

    return Image.fromarray(frame.image).resize(size[::-1], Image.Resampling.BICUBIC)


def stock_positions(model: Model, inputs: dict[str, Any], *, behind: bool) -> Tensor:
    """The stock model's own (3, tokens). `behind`: text behind the video stands behind its largest position.

    That is how the models were trained; stock code puts it behind height and width, of which time may be in front.
    """
    inner: Any = model.family.hf.model
    given = {name: inputs[name] for name in inputs if name != "pixel_values_videos"}
    positions, _ = inner.get_rope_index(**given)
    positions = positions[:, 0]
    end = int((inputs["input_ids"][0] == VIDEO).nonzero().max()) + 1
    if behind:
        positions[:, end:] += positions[:, :end].max() + 1 - positions[0, end]
    return positions


@torch.inference_mode()
def stock_logits(model: Model, inputs: dict[str, Any]) -> Tensor:
    positions = stock_positions(model, inputs, behind=True)
    return model.family.hf(**inputs, position_ids=positions[:, None]).logits[0]  # type: ignore[no-any-return]


# -- positions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample_fps", [FPS, 1.0, 0.3])
def test_positions_are_the_stock_models_own(model: Model, sample_fps: float) -> None:
    if 2 / sample_fps % 1 and Version(hf.__version__) < Version("5.18"):
        pytest.skip("this transformers rounds the seconds of a block")
    frames, ids = pictures(22), model.family.prompt_ids(QUESTION)
    inputs = stock_inputs(model, frames, ids)
    if "second_per_grid_ts" in inputs:
        inputs["second_per_grid_ts"] = torch.tensor([2 / sample_fps])
    expected = stock_positions(model, inputs, behind=True)
    session = session_of(model, sample_fps=sample_fps)
    session.fit(frames[0].image)
    positions, cpu = session.memory.positions, torch.device("cpu")
    end = positions.after(11)
    assert expected[:, -len(ids) :].tolist() == [list(range(end, end + len(ids)))] * 3
    whole = model.rotary.at(expected[:, : -len(ids)], cpu)
    ours = positions.context(11, end, cpu)
    torch.testing.assert_close((ours.cos, ours.sin), (whole.cos, whole.sin), atol=1e-5, rtol=0)
    behind = positions.text(end, end + len(ids), cpu)
    whole = model.rotary.at(expected[:, -len(ids) :], cpu)
    torch.testing.assert_close((behind.cos, behind.sin), (whole.cos, whole.sin), atol=1e-5, rtol=0)


def test_of_a_short_video_all_positions_are_the_stock_models_own(model: Model) -> None:
    inputs = stock_inputs(model, pictures(6), model.family.prompt_ids(QUESTION))
    assert torch.equal(*(stock_positions(model, inputs, behind=behind) for behind in (True, False)))


@torch.inference_mode()
def test_the_window_slides_over_positions_as_over_the_whole_stream(model: Model) -> None:
    """One layer of random keys through many calls, against attention over all of the stream at its own positions."""
    session = session_of(model, frame_tokens=TOKENS)
    session.fit(pictures(1)[0].image)
    block, layout = session.block.tokens, session.block.layout
    init, n_local, blocks = 7, 4 * session.block.tokens + 5, 23
    memory = Memory(model.rotary, n_init=init, tokens_per_frame=block, n_local=n_local, layout=layout)
    draw = torch.Generator().manual_seed(3)
    total = init + blocks * block
    query, key, value = (torch.randn(heads, total, 16, generator=draw) for heads in (4, 2, 2))
    out, at = [], 0
    for n in (init, *[k * block for k in (1, 3, 2, 4, 1, 1, 5, 3, 3)]):
        memory.make_room(n)
        part = slice(at, at + n)
        out.append(EncodePass(memory, n).attend(0, query[:, part], key[:, part], value[:, part], 0.25))
        memory.commit([float(k) for k in range(n // block if at else 0)])
        at += n
    assert at == total
    places = memory.positions.context(blocks, memory.positions.after(blocks), torch.device("cpu"))
    far = memory.positions.far(torch.device("cpu"), text=False)
    rotated, keys = rotate(query, places), rotate(key, places).repeat_interleave(2, 0)
    near = rotated @ keys.mT
    distance = torch.arange(total)[:, None] - torch.arange(total)
    near = near.masked_fill((distance < 0) | (distance >= n_local), -torch.inf)
    sink = rotate(query, far) @ key[:, :init].repeat_interleave(2, 0).mT
    ends = init + ((torch.arange(total) - init).clamp(0) // block + 1) * block
    seen = torch.arange(init) < (ends - n_local)[:, None]
    scores = torch.cat((near, sink.masked_fill(~seen, -torch.inf)), -1) * 0.25
    values = torch.cat((value, value[:, :init]), 1).repeat_interleave(2, 0)
    torch.testing.assert_close(torch.cat(out), (scores.softmax(-1) @ values).transpose(0, 1), atol=1e-4, rtol=0)


# -- the whole model -----------------------------------------------------------------------------------------------


def test_prompts_are_those_of_the_template(model: Model) -> None:
    family = model.family
    if type(family).__name__ == "Qwen3VL":
        assert family.init_prompt == "<|im_start|>user\n"
        assert family.prompt("Q") == "Q<|im_end|>\n<|im_start|>assistant\n"
        assert family.frame_text(3.5) == ("<0003.5 seconds><|vision_start|>", "<|vision_end|>")
        assert family.frame_text(12345.6)[0] == "<012346 seconds><|vision_start|>"
    else:
        system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        assert family.init_prompt == f"{system}<|im_start|>user\n<|vision_start|>"
        assert family.prompt("Q") == "<|vision_end|>Q<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("frames_per_call", [1, 6])
@pytest.mark.parametrize("n", [6, 13])
@torch.inference_mode()
def test_chunk_by_chunk_equals_the_stock_model(model: Model, n: int, frames_per_call: int) -> None:
    """Init prompt, pictures and prompt in calls of their own, all retrieved: the stock model's one causal sequence."""
    frames, head = pictures(n), model.family.hf.lm_head
    ids = model.family.prompt_ids(QUESTION)
    expected = stock_logits(model, stock_inputs(model, frames, ids))
    with hidden_states(model.decoder) as hidden:
        session = session_of(model, frames_per_call=frames_per_call)
        hidden.clear()  # of the init prompt, which comes again for pictures of another shape
        assert session.append(frames) == n
        session.ask(QUESTION, retrieve_size=8, max_new_tokens=1)
    *encoded, _, prompt = hidden
    ours = torch.cat([head(part) for part in (*encoded, prompt)])  # type: ignore[operator]
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
    stranger = stock_logits(model, stock_inputs(model, pictures(n, first=1), ids))  # the test can fail
    assert (stranger - expected).abs().max() > 100 * TOLERANCE


@torch.inference_mode()
def test_an_answer_from_all_of_a_video_is_the_stock_models_own(model: Model) -> None:
    frames = pictures(6)
    stock: Any = model.family.hf
    inputs = stock_inputs(model, frames, model.family.prompt_ids(QUESTION))
    expected = stock.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    session = session_of(model)  # what `generate()` left in the model (rope_deltas) does not matter
    session.append(frames)
    assert session.ask(QUESTION, retrieve_size=8, max_new_tokens=8).token_ids == tuple(expected.tolist())


def test_generate_equals_our_own_loop(model: Model) -> None:
    session = session_of(model)
    session.append(pictures(24))
    check_own_loop(session)


@torch.inference_mode()
def test_retrieved_blocks_stand_as_a_video_of_their_own(model: Model) -> None:
    """Two blocks that nothing came before: reading them alone is the stock model on a video of these two."""
    frames = pictures(4)
    session = session_of(model, frames_per_call=2)
    session.append([*frames, *pictures(6, first=4)])
    prompt = model.family.prompt_ids(QUESTION)
    with hidden_states(model.decoder) as hidden:
        session.ask(QUESTION, frames=[0, 1], max_new_tokens=1)
    expected = stock_logits(model, stock_inputs(model, frames, prompt))[-len(prompt) :]
    torch.testing.assert_close(model.family.hf.lm_head(hidden[1]), expected, atol=TOLERANCE, rtol=0)  # type: ignore[operator]


@torch.inference_mode()
def test_what_a_policy_keeps_stays_where_it_was_on_the_grid(model: Model) -> None:
    plain, all_kept, half = (session_of(model, n_local=120, policy=p) for p in (None, "value-norm:1", "value-norm:0.5"))
    for session in (plain, all_kept, half):
        session.append(pictures(25))
        session.memory.check_integrity()
    ours, theirs = (one.ask(QUESTION, retrieve_size=3, max_new_tokens=6) for one in (all_kept, plain))
    assert ours.token_ids == theirs.token_ids
    positions, cpu, n_init = half.memory.positions, torch.device("cpu"), half.memory.n_init
    kept = half.memory.layers[1].kept
    assert kept is not None
    _, places = kept.read([2, 5, 6])
    assert 0 < len(places) < 3 * half.block.tokens
    whole, some = positions.context(3, 900, cpu), positions.kept(places, 3, 900, cpu)
    among = torch.cat((torch.arange(n_init), n_init + places))
    assert torch.equal(some.cos, whole.cos[among])
    assert torch.equal(some.sin, whole.sin[among])
    picked = half.ask(QUESTION, retrieve_size=3, max_new_tokens=6).retrieval.frames
    assert picked[0] == theirs.retrieval.frames[0]  # later layers have read something else


# -- sessions ------------------------------------------------------------------------------------------------------


def test_resume_through_the_store(model: Model, folder: Path, tmp_path: Path) -> None:
    """Half of the pictures, portrait, a rest on disk, a model loaded anew, the other half: as if nothing happened."""
    size, ask = (80, 48), {"retrieve_size": 3, "max_new_tokens": 8}
    whole = session_of(model, n_local=120)
    whole.append(pictures(12, size=size))
    whole.append(pictures(12, first=12, size=size))
    expected = whole.ask(QUESTION, **ask)
    with session_of(model, n_local=120, name="s", store=tmp_path) as session:
        session.append(pictures(12, size=size))
        assert session.block.grid == (5, 3)
    again = load(folder, device="cpu")
    with again.session("s", store=tmp_path) as session:
        assert session.block.grid == (5, 3)
        session.append(pictures(12, first=12, size=size))
        answer = session.ask(QUESTION, **ask)
        assert session.memory.frames == 12
        session.memory.check_integrity()
    assert answer.token_ids == expected.token_ids
    assert answer.retrieval.frames == expected.retrieval.frames
    assert [(s.start, s.end) for s in answer.evidence] == [(s.start, s.end) for s in expected.evidence]
    torch.testing.assert_close(answer.retrieval.scores, expected.retrieval.scores, atol=TOLERANCE, rtol=1e-5)
    with again.session("s", store=tmp_path, frame_tokens=20) as session, pytest.raises(SessionError, match="frame_tok"):
        session.append(pictures(2, first=24))


def test_calls_of_any_size_are_the_same_beyond_the_window(model: Model) -> None:
    """Odd numbers of pictures per call are rounded to whole blocks."""
    answers = []
    for frames_per_call in (1, 3, 8):
        session = session_of(model, n_local=100, frames_per_call=frames_per_call)
        session.append(pictures(30))
        assert session.memory.frames == 15
        answers.append(session.ask(QUESTION, retrieve_size=7, max_new_tokens=6))
    assert len({answer.token_ids for answer in answers}) == 1
    assert len({answer.retrieval.frames for answer in answers}) == 1


def test_the_size_follows_the_first_picture_and_the_budget(model: Model) -> None:
    session = session_of(model, frame_tokens=40)
    text_tokens = session.block.tokens - 8 * 4  # 16:9 until a picture says otherwise
    assert session.block.grid == (4, 8)
    session.append([])
    session.append(pictures(2, size=(64, 64)))
    assert session.block.grid == (6, 6)
    assert session.memory.tokens_per_frame == 36 + text_tokens
    session.append(pictures(2, first=2, size=(64, 256)))  # squeezed
    assert session.block.grid == (6, 6)
    assert session.memory.frames == 2


def test_an_odd_last_picture_is_taken_twice_and_seen_at_once(model: Model) -> None:
    session = session_of(model)
    frames = pictures(5)
    assert session.append(frames) == 5
    assert list(session.memory.times) == [0.0, 1.0, 2.0]
    answer = session.ask(QUESTION, max_new_tokens=1)
    assert answer.frames_seen == 3
    (span,) = answer.evidence
    assert (span.start, span.end) == (0.0, 2.5)  # of the last picture, for half a second
    twice = session_of(model)
    twice.append([*frames, Frame(frames[-1].image, frames[-1].time)])
    expected = twice.ask(QUESTION, max_new_tokens=1)
    assert torch.equal(answer.retrieval.scores, expected.retrieval.scores)
    assert session.append(pictures(1, first=5)) == 1  # takes the second place
    assert list(session.memory.times) == [0.0, 1.0, 2.0]
    (span,) = session.ask(QUESTION, max_new_tokens=1).evidence
    assert (span.start, span.end) == (0.0, 3.0)


def same(ours: Session, theirs: Session) -> None:
    ours.memory.check_integrity()
    assert list(ours.memory.times) == list(theirs.memory.times)
    assert ours.memory.table.until == theirs.memory.table.until
    mine, other = (session.ask(QUESTION, retrieve_size=5, max_new_tokens=6) for session in (ours, theirs))
    assert (mine.token_ids, mine.retrieval.frames) == (other.token_ids, other.retrieval.frames)
    torch.testing.assert_close(mine.retrieval.scores, other.retrieval.scores, atol=TOLERANCE, rtol=1e-5)


@pytest.mark.parametrize("sizes", [[1] * 21, [3, 4, 1, 0, 5, 1, 7]], ids=str)
@pytest.mark.parametrize("stored", [False, True], ids=["ram", "store"])
def test_a_stream_is_the_same_however_it_comes(
    model: Model, sizes: Sequence[int], stored: bool, tmp_path: Path
) -> None:
    """Odd pieces beyond the window, with questions in between; after close a session goes on with another block."""
    where: dict[str, Any] = {"name": "s", "store": tmp_path} if stored else {}
    settings: dict[str, Any] = {"n_local": 120, "skip_duplicates": 8.0}
    whole = session_of(model, **settings)
    whole.append(pictures(sum(sizes)))
    with session_of(model, **settings, **where) as session:
        at = 0
        for n in sizes:
            assert session.append(pictures(n, first=at)) == n
            at += n
            assert session.ask(QUESTION, max_new_tokens=1).frames_seen == (at + 1) // 2
        same(session, whole)
    if stored:
        with model.session("s", store=tmp_path) as session:
            same(session, whole)
            assert session.append(pictures(1, first=21)) == 1
            assert session.memory.frames == 12


def test_flush_makes_an_odd_last_picture_durable(model: Model, tmp_path: Path) -> None:
    with session_of(model, name="s", store=tmp_path) as session:
        session.append(pictures(3))
        session.flush()
        assert len(model.session("s", store=tmp_path).memory.times) == 2
        session.append(pictures(2, first=3))  # a block of its own: what is written stays
        assert list(session.memory.times) == [0.0, 1.0, 1.5]
        assert session.keeper is not None
        assert session.keeper.durable <= 3
    again = model.session("s", store=tmp_path)
    assert list(again.memory.times) == [0.0, 1.0, 1.5]
    assert again.memory.table.until == {0: 0.5, 2: 2.0}


def test_a_call_that_fails_loses_no_picture(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that waited for a second picture is encoded again with what comes next."""
    whole, session = (session_of(model, n_local=120) for _ in range(2))
    whole.append([*pictures(11), *pictures(3, first=12)])
    session.append(pictures(11))
    attend = EncodePass.attend
    with monkeypatch.context() as patched:

        def fail(self: EncodePass, layer: int, *args: Any) -> Tensor:
            if layer == 1:
                raise MemoryError
            return attend(self, layer, *args)

        patched.setattr(EncodePass, "attend", fail)
        with pytest.raises(MemoryError):
            session.append(pictures(1, first=11))
    session.append(pictures(3, first=12))
    same(session, whole)


def test_as_of_a_time_nothing_later_is_seen(model: Model) -> None:
    """A block is seen once both of its pictures were."""
    session = session_of(model)
    session.append(pictures(8))
    assert [session.ask(QUESTION, at=at, max_new_tokens=1).frames_seen for at in (0.4, 0.5, 1.0, 1.5, 9.0)] == [
        0, 1, 1, 2, 4,
    ]  # fmt: skip
    (span,) = session.ask(QUESTION, frames=[1], max_new_tokens=1).evidence
    assert (span.start, span.end) == (1.0, 2.0)


def test_near_duplicates_are_left_out_by_whole_blocks(model: Model) -> None:
    session = session_of(model, skip_duplicates=8.0)
    still, moved = pictures(2)
    shown = [still] * 5 + [moved] * 3
    assert session.append([Frame(frame.image, i / FPS) for i, frame in enumerate(shown)]) == 4
    assert list(session.memory.times) == [0.0, 2.5]
    assert session.memory.table.until == {0: 2.0, 1: 3.5}
    (span,) = session.ask(QUESTION, max_new_tokens=1).evidence
    assert (span.start, span.end) == (0.0, 4.0)


def test_sessions_of_before_there_were_grids_open(model: Model, tmp_path: Path) -> None:
    with session_of(model, name="s", store=tmp_path) as session:
        session.append(pictures(2))
        assert session.keeper is not None
        meta = session.keeper.meta
    assert SessionMeta.loads(meta.dumps()) == meta
    values = json.loads(meta.dumps())
    assert values.pop("grid") == [3, 5]
    assert values["encode"].pop("frame_tokens") == TOKENS
    older = SessionMeta.loads(json.dumps(values))
    assert (older.grid, older.encode.frame_tokens, older.tokens_per_frame) == (None, None, session.block.tokens)


# -- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(45, 80), (480, 854), (1080, 1920), (1920, 1080), (100, 100), (31, 977)])
def test_sizes_are_those_of_the_stock_processor(size: tuple[int, int]) -> None:
    height, width = smart_resize(*size, factor=28, min_pixels=128 * 784, max_pixels=256 * 784)
    rows, columns = fit(*size, 28, least=128, most=256)
    if height * width <= 256 * 784:
        assert (rows, columns) == (height // 28, width // 28)
    assert rows * columns <= 256


@pytest.mark.parametrize("most", [1, 7, 15, 256])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (1080, 1920)])
def test_no_size_is_beyond_the_budget(size: tuple[int, int], most: int) -> None:
    rows, columns = fit(*size, 28, least=min(128, most), most=most)
    assert rows >= 1
    assert columns >= 1
    assert rows * columns <= most


def test_patches_are_those_of_the_stock_processor() -> None:
    image = pictures(1, size=(16, 24))[0].image
    stock = Qwen2VLImageProcessorPil(patch_size=4, do_resize=False)(images=[image], return_tensors="pt").pixel_values
    mean, std = (torch.tensor(Qwen2VLImageProcessorPil().to_dict()[f"image_{name}"]) for name in ("mean", "std"))
    pixels = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1).expand(2, -1, -1, -1)
    torch.testing.assert_close(patchify(pixels, patch=4, merge=2, frames=2), stock, atol=1e-5, rtol=0)


@pytest.mark.gpu
def test_answers_on_a_gpu_are_those_on_the_cpu(model: Model, folder: Path) -> None:
    sessions = [session_of(one, n_local=120) for one in (model, load(folder, device="cuda", dtype="float32"))]
    for session in sessions:
        session.append(pictures(21))
    answers = [session.ask(QUESTION, retrieve_size=5, max_new_tokens=6) for session in sessions]
    assert len({(answer.token_ids, answer.retrieval.frames) for answer in answers}) == 1


# -- refusals ------------------------------------------------------------------------------------------------------


def test_a_budget_is_for_models_of_dynamic_resolution() -> None:
    with pytest.raises(ConfigError, match="always has 16 tokens"):
        load(device="cpu").session(frame_tokens=9)
    with pytest.raises(ConfigError, match="at least 1"):
        load(device="cpu").session(frame_tokens=0)


def test_a_tokenizer_without_the_marks_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    tokenizer(copy, SPECIAL[:2], template=TEMPLATE.replace("SYSTEM", "false"))
    with pytest.raises(ModelError, match=r"does not know <\|vision_start"):
        load(copy, device="cpu")


def test_questions_together_are_answered_as_alone(model: Model) -> None:
    session = session_of(model)
    session.append(pictures(11))
    check_together(session)
