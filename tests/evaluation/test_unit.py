"""One video with its questions: causal, encoded once, failures kept apart."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rekv.core import Frame
from rekv.engine import Model, Session
from rekv.errors import ConfigError
from rekv.evaluation.cell import BASELINES, Cell
from rekv.evaluation.frames import Footage
from rekv.evaluation.schema import Question
from rekv.evaluation.unit import Record, Work, answer
from tests.evaluation.conftest import cell, noise, video
from tests.support import byte_tokenizer, decoder_lm, tiny_model

RETRIEVERS = ("internal", "uniform", "recent", "oracle", "auto", *BASELINES)
WINDOWS = ((3.0, 6.0),)


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def questions(*ends: float | None, **changes: Any) -> list[Question]:
    return [Question(f"w{7 + i} w{9 + i}", "w1", windows=WINDOWS, end=end, **changes) for i, end in enumerate(ends)]


def run(model: Model, path: Path, asked: list[Question], *cells: Cell, **options: Any) -> list[Record]:
    outcome = answer(model, Work(video(path, asked), path, cells, **options))
    assert list(outcome) == list(cells)
    return [record for record, _ in outcome.values()]


def every(**changes: Any) -> list[Cell]:
    return [cell(retriever=name, **changes) for name in RETRIEVERS]


# -- causality -----------------------------------------------------------------------------------------------------


def test_the_future_cannot_leak(model: Model, tmp_path: Path) -> None:
    """Two streams that differ from second 12 on: what is asked before is answered alike to the bit, by every way."""
    asked = questions(11.0, 4.0, 19.0, 11.5)
    cells = every(mode="streaming")
    past = run(model, noise(tmp_path / "a.npy", 20), asked, *cells)
    other = run(model, noise(tmp_path / "b.npy", 20, changed_from=12), asked, *cells)
    for one, two in zip(past, other, strict=True):
        assert [one.questions[i] for i in (0, 1, 3)] == [two.questions[i] for i in (0, 1, 3)]
        assert all(question["newest"] <= question["asked"] for question in one.questions if "asked" in question)
    different = [one.questions[2] != two.questions[2] for one, two in zip(past, other, strict=True)]
    assert any(different), "the futures do differ"


def test_nothing_later_is_encoded_when_a_question_is_asked(model: Model, tmp_path: Path, monkeypatch: Any) -> None:
    seen = []
    ask = Session.ask

    def watched(session: Session, question: str, **settings: Any) -> Any:
        seen.append((settings["at"], session.memory.times[-1], session.memory.frames))
        return ask(session, question, **settings)

    monkeypatch.setattr(Session, "ask", watched)
    run(model, noise(tmp_path / "a.npy", 20), questions(11.0, 4.5, None), cell(mode="streaming"))
    assert seen == [(4.5, 4.0, 5), (11.0, 11.0, 12), (None, 19.0, 20)]


def test_an_unfinished_recording_answers_what_was_asked_before_it_stops(model: Model, tmp_path: Path) -> None:
    """A stream of which only the first 12 seconds exist answers early questions as the whole one does."""
    asked = questions(4.0, 11.0)
    cells = [cell(mode="streaming", retriever=name) for name in ("internal", "uniform", "recent", "oracle", "stock")]
    whole = run(model, noise(tmp_path / "a.npy", 20), asked, *cells)
    np.save(tmp_path / "b.npy", np.load(tmp_path / "a.npy")[:12])
    part = run(model, tmp_path / "b.npy", asked, *cells)
    assert [record.questions for record in whole] == [record.questions for record in part]


def test_offline_questions_see_the_whole_video(model: Model, tmp_path: Path) -> None:
    (record,) = run(model, noise(tmp_path / "a.npy", 20), questions(4.0, 11.0), cell(mode="offline"))
    assert [question["seen"] for question in record.questions] == [20, 20]
    assert not any("asked" in question for question in record.questions)


def test_the_published_order_lets_a_question_see_more_than_it_should(model: Model, tmp_path: Path) -> None:
    """As published: file order, int(end * fps) frames, nothing hidden from an earlier question that comes later."""
    asked = questions(11.0, 4.0)
    path = noise(tmp_path / "a.npy", 20)
    (record,) = run(model, path, asked, cell(mode="streaming", paper=True))
    assert [question["seen"] for question in record.questions] == [11, 11]
    (honest,) = run(model, path, asked, cell(mode="streaming"))
    assert [question["seen"] for question in honest.questions] == [12, 5]


# -- one encoding, many cells --------------------------------------------------------------------------------------


def test_a_video_is_encoded_once_for_all_that_share_it(model: Model, tmp_path: Path, monkeypatch: Any) -> None:
    passes = []
    append = Session.append

    def counted(session: Session, *args: Any, **kwargs: Any) -> int:
        passes.append(read := append(session, *args, **kwargs))
        return read

    monkeypatch.setattr(Session, "append", counted)
    cells = [cell(retriever=name, retrieve_size=size) for name in ("internal", "recent", "oracle") for size in (2, 4)]
    together = run(model, noise(tmp_path / "a.npy", 12), questions(None, None), *cells)
    assert passes == [12]
    alone = [run(model, tmp_path / "a.npy", questions(None, None), one)[0] for one in cells]
    assert together == alone


def test_what_each_baseline_reads(model: Model, tmp_path: Path) -> None:
    records = run(model, noise(tmp_path / "a.npy", 20), questions(None), *every(retrieve_size=4))
    read = {name: record.questions[0] for name, record in zip(RETRIEVERS, records, strict=True)}
    assert read["uniform"]["read"] == [[0, 0], [6, 6], [13, 13], [19, 19]]
    assert read["recent"]["read"] == [[16, 19]]
    assert read["oracle"]["read"] == [[3, 5]]
    assert read["oracle"]["grounding"] == {"recall": 1.0, "precision": 1.0, "f1": 1.0, "hit": 1.0}
    assert read["auto"]["decision"] in ("present", "memory", "both")
    assert read["full"]["read"] == [[0, 19]]
    assert read["full"]["grounding"]["precision"] == pytest.approx(3 / 20)
    assert (read["stock"]["read"], read["stock"]["seen"]) == ([[0, 3]], 4), "frames of its own: seconds 0, 6, 13, 19"
    assert read["stock"]["newest"] == 19.0
    assert read["stock"]["grounding"]["recall"] == 0.0


def test_windows_between_frames_have_the_frame_on_screen(model: Model, tmp_path: Path) -> None:
    asked = [Question("w7", None, windows=((3.4, 3.6), (7.0, 7.0), (9.5, 11.0)))]
    (record,) = run(model, noise(tmp_path / "a.npy", 20), asked, cell(retriever="oracle", retrieve_size=8))
    assert record.questions[0]["read"] == [[3, 3], [7, 7], [9, 10]]


def test_without_windows_the_oracle_is_uniform(model: Model, tmp_path: Path) -> None:
    cells = cell(retriever="oracle"), cell(retriever="uniform")
    oracle, uniform = run(model, noise(tmp_path / "a.npy", 20), [Question("w7", None)], *cells)
    assert oracle.questions == uniform.questions
    assert "grounding" not in oracle.questions[0]


@pytest.mark.parametrize("name", ["stock", "full"])
def test_full_attention_is_the_stock_model(model: Model, tmp_path: Path, name: str) -> None:
    """Both baselines answer as the model does without rekv: one sequence, generate()."""
    path = noise(tmp_path / "a.npy", 9)
    (record,) = run(model, path, questions(None), cell(retriever=name, retrieve_size=4, max_new_tokens=6))
    family = model.family
    frames = list(Footage(path, 1.0).frames())
    frames = [frames[i] for i in (0, 3, 5, 8)] if name == "stock" else frames
    features = family.frame_inputs([frame.image for frame in frames], [frame.time for frame in frames]).flatten(0, 1)
    embed = family.hf.get_input_embeddings()
    before, after = (embed(torch.tensor(ids)) for ids in (family.init_ids(), family.prompt_ids("w7 w9")))
    inputs = torch.cat((before, features, after))[None].detach()
    mask = torch.ones(inputs.shape[:2], dtype=torch.long)
    ids = family.hf.generate(
        inputs_embeds=inputs, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0
    )
    assert record.questions[0]["text"] == family.tokenizer.decode(ids[0], skip_special_tokens=True)


def test_bounded_memory_gives_the_same(model: Model, tmp_path: Path, monkeypatch: Any) -> None:
    """With a budget of RAM the video goes through a store, which is gone afterwards."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = noise(tmp_path / "a.npy", 150)
    asked = questions(10.0, 140.0, None)
    (free,) = run(model, path, asked, cell(mode="streaming"))
    frame = 3 * 2 * 2 * 3 * 16 * 4  # bytes: layers, K and V, heads, tokens, dim, fp32
    (tight,) = run(model, path, asked, cell(mode="streaming"), ram=75 * frame)
    assert tight == free
    with pytest.raises(ConfigError, match="ram is"):
        run(model, path, asked, cell(mode="streaming"), ram=frame)
    assert not list(tmp_path.glob("rekv-eval-*"))


# -- answers, failures, costs --------------------------------------------------------------------------------------


def test_choices_are_answered_and_measured(tmp_path: Path) -> None:
    model = tiny_model(decoder_lm(vocabulary=257), tokenizer=byte_tokenizer())
    asked = [Question("which?", "a hat", ("a cup", "a hat"), ("t",)), Question("what?", "a hat")]
    (record,) = run(model, noise(tmp_path / "a.npy", 4), asked, cell(choice_tokens=2, max_new_tokens=3, n_local=2000))
    first, second = record.questions
    assert (first["choices"], first["answer"], first["tasks"]) == (["a cup", "a hat"], "a hat", ["t"])
    assert len(first["logprobs"]) == 2
    assert all(value < 0 and math.isfinite(value) for value in first["logprobs"])
    assert "logprobs" not in second
    assert second["cut"]  # three tokens of a model that never ends by itself


def test_a_question_that_fails_is_recorded_and_the_rest_goes_on(model: Model, tmp_path: Path) -> None:
    asked = [Question("w7", "w1"), Question("\ud800", "w1"), Question("w8", "w1")]
    (record,) = run(model, noise(tmp_path / "a.npy", 6), asked, cell())
    assert ["error" in question for question in record.questions] == [False, True, False]
    assert "lone surrogate" in record.questions[1]["error"]
    assert record.failed
    assert record.error is None


def test_a_video_that_fails_is_recorded_with_its_questions(model: Model, tmp_path: Path) -> None:
    for record in run(model, tmp_path / "gone.npy", questions(None, None), *every()):
        assert record.error is not None
        assert "no such file" in record.error
        assert [question["error"] for question in record.questions] == [record.error] * 2


def test_a_stream_that_breaks_off_fails_as_a_whole(model: Model, tmp_path: Path, monkeypatch: Any) -> None:
    def broken(footage: Footage) -> Iterator[Frame]:
        yield from list(frames(footage))[:5]
        raise OSError("the disk is gone")

    frames = Footage.frames
    monkeypatch.setattr(Footage, "frames", broken)
    (record,) = run(model, noise(tmp_path / "a.npy", 9), questions(2.0, None), cell(mode="streaming"))
    assert record.error == "OSError: the disk is gone"
    assert all("text" not in question for question in record.questions)


def test_an_interrupt_is_not_a_failure(model: Model, tmp_path: Path) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    path = noise(tmp_path / "a.npy", 6)
    with pytest.raises(KeyboardInterrupt):
        answer(model, Work(video(path, questions(None)), path, (cell(),)), stop)


def test_costs(model: Model, tmp_path: Path) -> None:
    path, heard = noise(tmp_path / "a.npy", 20), []
    work = Work(video(path, questions(None, None)), path, (cell(), cell(retriever="stock", retrieve_size=5)))
    (_, costs), (_, stock) = answer(model, work, heard.append).values()
    assert (costs.frames, stock.frames) == (20, 5)
    assert costs.bytes_per_frame == 3 * 2 * 2 * 3 * 16 * 4
    assert costs.encode_seconds > 0
    assert len(costs.first_token_seconds) == len(costs.answer_seconds) == 2
    assert all(first <= whole for first, whole in zip(costs.first_token_seconds, costs.answer_seconds, strict=True))
    assert costs.peak_ram > 1 << 20
    assert sum(heard) == 19.0, "seconds of video, for the time that is left"


# -- memory that keeps less ----------------------------------------------------------------------------------------


def test_a_memory_policy_keeps_less(model: Model, tmp_path: Path) -> None:
    path = noise(tmp_path / "a.npy", 30)
    found = {}
    for policy in (None, "value-norm:0.34"):
        work = Work(video(path, questions(None)), path, (cell(policy=policy),))
        ((record, costs),) = answer(model, work).values()
        assert record.questions[0]["text"]
        assert costs.frames == 30
        found[policy] = costs.bytes_per_frame
    assert 0 < found["value-norm:0.34"] < 0.8 * found[None]


def test_frames_by_their_tokens(model: Model, tmp_path: Path) -> None:
    path, asked = noise(tmp_path / "a.npy", 20), questions(None)
    cells = cell(retrieve_size=4), cell(retrieve_size=1, retrieve_tokens=12), cell(retrieve_size=9, retrieve_tokens=13)
    frames, same, more = (record.questions[0] for record in run(model, path, asked, *cells))
    assert frames == same == more, "three tokens a frame"


def test_fewer_tokens_of_a_frame_where_its_size_is_fixed(model: Model, tmp_path: Path) -> None:
    """A setting that no video would put right: told, not recorded."""
    path = noise(tmp_path / "a.npy", 6)
    with pytest.raises(ConfigError, match="frame_tokens is 2, but"):
        run(model, path, questions(None), cell(frame_tokens=2))
