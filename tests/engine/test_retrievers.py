"""Retrievers and their options through `ask`, and what a dual encoder made of the frames, also from disk."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rekv.core import Frame, Image
from rekv.engine import Model, Session
from rekv.errors import ConfigError, SessionError
from rekv.retrieval import Given, registry
from rekv.store.archive import export, import_
from rekv.store.catalog import FILE, Catalog
from rekv.store.store import Store
from rekv.store.verify import verify
from tests.support import QUESTIONS, SIDE, pictures, tiny_model, tiny_session

ENCODER, DIM = "fake", 6
SHORT: dict[str, Any] = {"max_new_tokens": 3, "retrieve_size": 3}


class FakeEncoder:
    """Pictures are what their first pixels say; a text "x 7" is most like the picture that begins with 7."""

    def __init__(self, dim: int = DIM) -> None:
        self.dim, self.seen = dim, 0
        self._codes = torch.nn.functional.normalize(
            torch.randn(256, dim, generator=torch.Generator().manual_seed(3)), dim=1
        )

    def pictures(self, images: Sequence[Image]) -> Tensor:
        self.seen += len(images)
        return self._codes[[int(image[0, 0, 0]) for image in images]]

    def texts(self, texts: Sequence[str]) -> Tensor:
        return self._codes[[int(text.split("w")[1]) for text in texts]]


def numbered(n: int, first: int = 0) -> list[Frame]:
    """Frames whose first pixel is their number."""
    frames = []
    for i in range(first, first + n):
        image = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        image[0, 0, 0] = i
        frames.append(Frame(image, float(i)))
    return frames


def seeing(dim: int = DIM) -> Model:
    model = tiny_model()
    model._encoders[ENCODER] = FakeEncoder(dim)  # type: ignore[assignment]
    return model


def session_of(model: Model, store: Path | None = None, **settings: Any) -> Session:
    known = store is not None and (store / "cam").exists()
    given = {} if known else {"n_local": 40, "frames_per_call": 4, "sample_fps": 1.0, "encoder": ENCODER}
    return model.session(None if store is None else "cam", store=store, **given | settings)


def nearest(session: Session, number: int, **settings: Any) -> tuple[int, ...]:
    """The frames that external retrieval reads for a text that is like one picture."""
    answer = session.ask(f"w{number}", retriever="external", **SHORT | settings)
    assert len(set(answer.retrieval.frames)) == 1, "the same in every layer"
    assert answer.retrieval.by == "external"
    return answer.retrieval.frames[0]


def expected(number: int, frames: Sequence[int], size: int = 3) -> tuple[int, ...]:
    codes = FakeEncoder()._codes.half().float()
    likes = codes[list(frames)] @ FakeEncoder()._codes[number]
    return tuple(sorted(frames[i] for i in likes.topk(min(size, len(frames))).indices.tolist()))


# -- anybody's ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picks", "most", "told"),
    [
        ([1000], 3, "picked frame 1000, which this question does not see"),
        ([1.5], 3, "must be a sequence of frame ids"),
        ([1, 2, 3, 4], 3, "picked 4 frames, where its `most` had said 3"),
    ],
)
def test_a_retriever_that_breaks_its_promises_is_told_so(
    picks: list[Any], most: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(Given):
        def most(self, candidates: Sequence[int]) -> int:
            return most

        def check(self, visible: Sequence[int]) -> None: ...

    monkeypatch.setitem(registry._KNOWN, "faulty", lambda query: Faulty(picks))
    session = tiny_session(n_local=40)
    session.append(pictures(8))
    with pytest.raises(ConfigError, match="faulty") as caught:
        session.ask("w7", retriever="faulty", **SHORT)
    assert told in str(caught.value)


def test_a_retriever_may_pick_by_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._KNOWN, "tensors", lambda query: Given(torch.tensor([1, 4])))  # type: ignore[arg-type]
    session = tiny_session(n_local=40)
    session.append(pictures(8))
    answer = session.ask("w7", retriever="tensors", **SHORT)
    assert answer.retrieval.frames == ((1, 4),) * len(answer.retrieval.frames)


# -- external ------------------------------------------------------------------------------------------------------


def test_frames_are_embedded_once_as_they_are_read() -> None:
    model = seeing()
    session = session_of(model)
    session.append(numbered(22))
    encoder: Any = model.encoder(ENCODER)
    assert encoder.seen == 22
    assert nearest(session, 9) == expected(9, range(22))
    assert 9 in nearest(session, 9)
    session.append(numbered(5, 22))
    assert 25 in nearest(session, 25)
    assert encoder.seen == 27


def test_scope_and_recent_frames_compose_with_it() -> None:
    session = session_of(seeing())
    session.append(numbered(20))
    assert nearest(session, 9, start=3, end=8) == expected(9, range(3, 8))
    assert nearest(session, 9, at=6) == expected(9, range(7))
    assert nearest(session, 9, recent_frames=2) == (*expected(9, range(18)), 18, 19)
    assert nearest(session, 9, start=100) == ()


def test_it_survives_a_restart(tmp_path: Path) -> None:
    with session_of(seeing(), tmp_path) as session:
        session.append(numbered(22))
        before = [nearest(session, number) for number in range(22)]
    again = session_of(seeing(), tmp_path)
    assert [nearest(again, number) for number in range(22)] == before
    again.append(numbered(9, 22))
    assert [nearest(again, number) for number in (3, 25)] == [expected(number, range(31)) for number in (3, 25)]
    again.close()
    assert nearest(session_of(seeing(), tmp_path), 25) == expected(25, range(31))


def test_readers_follow_a_writer(tmp_path: Path) -> None:
    writer = session_of(seeing(), tmp_path)
    writer.append(numbered(6))
    writer.flush()
    reader = session_of(seeing(), tmp_path)
    assert nearest(reader, 4) == expected(4, range(6))
    writer.append(numbered(6, 6))
    writer.flush()
    assert nearest(reader, 10) == expected(10, range(12))
    writer.close()


def test_it_is_in_the_archive(tmp_path: Path) -> None:
    with session_of(seeing(), tmp_path) as session:
        session.append(numbered(22))
    export(tmp_path / "cam", tmp_path / "cam.tar")
    import_(tmp_path / "cam.tar", Store(tmp_path / "other"))
    assert nearest(session_of(seeing(), tmp_path / "other"), 7) == expected(7, range(22))


def test_a_catalog_that_is_made_anew_keeps_it(tmp_path: Path) -> None:
    with session_of(seeing(), tmp_path) as session:
        session.append(numbered(22))
    with closing(sqlite3.connect(tmp_path / "cam" / FILE)) as sql, sql:
        sql.execute("DELETE FROM meta WHERE key = 'session'")
    assert verify(tmp_path / "cam", repair=True).ok
    assert nearest(session_of(seeing(), tmp_path), 7) == expected(7, range(22))


def test_frames_that_are_removed_take_it_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekv.store.writer.SEGMENT_SLOTS", (6, 6))
    monkeypatch.setattr("rekv.store.writer.COMMIT_SECONDS", 0.0)
    with session_of(seeing(), tmp_path, max_age=20.0) as session:
        for start in range(0, 80, 4):
            session.append(numbered(4, start))
            session.flush()
        assert nearest(session, 75) == expected(75, session.memory.table.there(range(80)))
    again = session_of(seeing(), tmp_path)
    left = again.memory.table.there(range(80))
    assert left[0] > 20
    with closing(Catalog(tmp_path / "cam", writable=False)) as catalog:
        assert [frame for frame, _ in catalog.embeddings()] == list(left)
    assert [nearest(again, number) for number in (2, 50, 79)] == [expected(number, left) for number in (2, 50, 79)]
    again.append(numbered(4, 80))
    assert 82 in nearest(again, 82)
    again.close()


def test_sessions_from_before_there_was_any_can_be_read_and_continued(tmp_path: Path) -> None:
    with session_of(tiny_model(), tmp_path, encoder=None) as session:
        session.append(numbered(12))
    with closing(sqlite3.connect(tmp_path / "cam" / FILE)) as sql, sql:
        sql.execute("DROP TABLE embeddings")
        sql.execute("PRAGMA user_version = 1")
    old = session_of(tiny_model(), tmp_path)
    assert old.ask("w7", **SHORT).frames_seen == 12
    with closing(Catalog(tmp_path / "cam", writable=False)) as catalog:
        assert catalog.embeddings() == []
    old.append(numbered(3, 12))
    old.close()
    assert session_of(tiny_model(), tmp_path).ask("w7", **SHORT).frames_seen == 15


def test_frames_that_were_not_embedded_are_the_least_alike(tmp_path: Path) -> None:
    """As after an interrupt between memory and disk."""
    with session_of(seeing(), tmp_path) as session:
        session.append(numbered(12))
    with closing(sqlite3.connect(tmp_path / "cam" / FILE)) as sql, sql:
        sql.execute("DELETE FROM embeddings WHERE frame = 5")
    again = session_of(seeing(), tmp_path)
    assert 5 not in nearest(again, 5)
    assert len(nearest(again, 5, retrieve_size=12)) == 12
    again.append(numbered(2, 12))
    assert 13 in nearest(again, 13)
    again.close()


def test_a_call_that_failed_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(seeing())
    session.append(numbered(4))
    with monkeypatch.context() as patch:
        patch.setattr("rekv.memory.memory.Memory.commit", lambda self, times, **more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.append(numbered(4, 100))
    session.append(numbered(8, 4))
    assert [nearest(session, number) for number in range(12)] == [expected(number, range(12)) for number in range(12)]


def test_without_an_encoder_it_says_what_to_do() -> None:
    session = tiny_session()
    session.append(pictures(5))
    for name in ("external", "fusion"):
        with pytest.raises(ConfigError, match=r"without a dual encoder.*encoder=.*retriever=\"internal\""):
            session.ask("w7", retriever=name)


def test_another_encoder_does_not_continue_a_session(tmp_path: Path) -> None:
    with session_of(seeing(), tmp_path) as session:
        session.append(numbered(5))
    other = session_of(seeing(), tmp_path, encoder="another")
    with pytest.raises(SessionError, match="encoder"):
        other.append(numbered(2, 5))
    narrow = session_of(seeing(4), tmp_path)
    with pytest.raises(ConfigError, match="6 numbers, this dual encoder makes 4"):
        narrow.ask("w3", retriever="external")


# -- the others and their options ----------------------------------------------------------------------------------


def test_the_default_is_the_papers() -> None:
    session = tiny_session()
    session.append(pictures(20))
    for question, settings in QUESTIONS:
        named = session.ask(question, retriever="internal", query="mean", **settings)
        plain = session.ask(question, **settings)
        assert named.retrieval.frames == plain.retrieval.frames
        assert torch.equal(named.retrieval.scores, plain.retrieval.scores)
        assert named.token_ids == plain.token_ids
        best = [row.topk(settings["retrieve_size"]).indices.sort().values for row in plain.retrieval.scores]
        if settings.get("chunk_size", 1) == 1:
            assert [list(frames) for frames in plain.retrieval.frames] == [one.tolist() for one in best]


@pytest.mark.parametrize("name", ["uniform", "recent", "auto"])
def test_every_retriever_reads_what_it_says(name: str) -> None:
    session = tiny_session()
    session.append(pictures(20))
    answer = session.ask("w7 w8", retriever=name, **SHORT)
    reads = {"uniform": (0, 10, 19), "recent": (17, 18, 19)}
    if name in reads:
        assert answer.retrieval.frames == (reads[name],) * 3
    else:  # so short a stream has no background
        assert answer.retrieval.by == "auto: both"
        assert all({16, 17, 18, 19} <= set(layer) for layer in answer.retrieval.frames)
    assert answer.retrieval.by.startswith(name)


def test_oracle_reads_its_spans() -> None:
    session = tiny_session()
    session.append(pictures(20))
    answer = session.ask("w7", retriever="oracle", spans=[(3, 5), (11, 12)], **SHORT)
    assert answer.retrieval.frames == ((3, 4, 11),) * 3
    assert sorted((span.start, span.end) for span in answer.evidence) == [(3, 5), (11, 12)]


def test_shared_picks_are_those_of_the_pass_before() -> None:
    session = tiny_session()
    session.append(pictures(20))
    scores = session.ask("w7 w8", **SHORT).retrieval.scores
    z = (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True, correction=0)
    best = tuple(sorted(z.mean(0).topk(3).indices.tolist()))
    assert session.ask("w7 w8", shared_picks=True, **SHORT).retrieval.frames == (best,) * 3


def test_tokens_are_as_good_as_frames() -> None:
    session = tiny_session()
    session.append(pictures(20))
    block = session.memory.tokens_per_frame
    for tokens, frames in ((3 * block, 3), (4 * block - 1, 3), (block - 1, 0)):
        answer = session.ask("w7", retrieve_tokens=tokens, max_new_tokens=2)
        assert [len(layer) for layer in answer.retrieval.frames] == [frames] * 3
    answer = session.ask("w7", retrieve_tokens=5 * block, retrieve_size=2, chunk_size=2, max_new_tokens=2)
    assert [len(layer) for layer in answer.retrieval.frames] == [4] * 3


def test_a_question_can_be_searched_for_by_its_parts() -> None:
    """The first layer's queries do not depend on what was read: its scores can be had from single words."""
    session = tiny_session()
    session.append(pictures(20))
    parts = session.ask("w7 the w8", query="phrases", **SHORT).retrieval.scores[0]
    tokens = session.ask("w7 the w8", query="tokens", **SHORT).retrieval.scores[0]
    single = torch.stack([session.ask(word, **SHORT).retrieval.scores[0] for word in ("w7", "the", "w8")])
    z = (single - single.mean(1, keepdim=True)) / single.std(1, keepdim=True, correction=0)
    torch.testing.assert_close(tokens, z.amax(0), atol=1e-4, rtol=0)
    assert not torch.equal(parts, tokens)


def test_a_drift_is_taken_out_of_every_layers_scores() -> None:
    session = tiny_session()
    session.append(pictures(20))
    scores = session.ask("w7 w8", detrend=True, **SHORT).retrieval.scores
    times = torch.arange(20.0) - 9.5
    assert (scores @ times).abs().max() < 1e-3 * scores.abs().max() * 20
    assert (session.ask("w7 w8", **SHORT).retrieval.scores @ times).abs().max() > 1


def test_an_answer_says_whether_anything_stands_out() -> None:
    session = tiny_session()
    session.append(pictures(20))
    short = session.ask("w7", **SHORT)
    assert (short.margin, short.stands_out) == (None, True)
    session.append(Frame(frame.image, frame.time + 20) for frame in pictures(180, seed=1))
    answer = session.ask("w7", **SHORT)
    assert answer.margin is not None
    below = session.ask("w7", min_margin=answer.margin + 0.01, **SHORT)
    above = session.ask("w7", min_margin=answer.margin - 0.01, **SHORT)
    assert (below.stands_out, above.stands_out) == (False, True)


def test_what_is_no_setting_is_refused() -> None:
    session = tiny_session()
    session.append(pictures(3))
    for settings, told in (
        ({"retriever": "exernal"}, "did you mean 'external'"),
        ({"query": "words"}, "'mean' or 'phrases' or 'tokens'"),
        ({"retrieve_tokens": 0}, "at least 1"),
        ({"min_gap": -1.0}, "at least 0"),
    ):
        with pytest.raises(ConfigError, match=told):
            session.ask("w7", **settings)
