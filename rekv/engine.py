"""The two verbs: `append` frames to a session, `ask` it questions.

append: frames -> pixels -> vision tower -> language model with window + sink attention -> blocks, index -> commit
ask:    question -> each layer retrieves and attends -> [sink | retrieved] -> prompt -> words
"""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import torch
from torch import nn

from rekv import models
from rekv.answering import Times, answer, prompt_of, transcript
from rekv.asking import Asker
from rekv.attention.hook import run
from rekv.attention.passes import AnswerPass, EncodePass, QuestionPass
from rekv.attention.probe import probe
from rekv.core import Answer, AskConfig, EncodeConfig, Frame, Image, StorageConfig, Turn
from rekv.decoding import Transcript, decode, decode_together
from rekv.distinct import Distinct
from rekv.errors import ConfigError
from rekv.memory.memory import Memory
from rekv.models.base import VideoLM
from rekv.models.dual import DualEncoder, load_dual
from rekv.retrieval.embeddings import FrameEmbeddings
from rekv.store.commit import FrameNote
from rekv.store.fingerprint import Fingerprint, fingerprint
from rekv.store.keeper import Keeper
from rekv.store.meta import SessionMeta
from rekv.store.store import Store
from rekv.stream import Source, Unfinished, batches, groups, in_order, pictures
from rekv.turns import Turns


class Model:
    """A Video-LLM that rekv can reproduce. Sessions share it; it holds no state of any stream."""

    def __init__(self, family: VideoLM) -> None:
        self.family = family
        self.decoder: nn.Module = family.hf.get_decoder()  # type: ignore[no-untyped-call]
        self.rotary = probe(self.decoder, family.name)
        # Encode calls and questions take turns, first come, first served. A question's turn ends with its first
        # token: the rest of its decoding runs beside encoding, with which it shares nothing.
        self.turns = Turns()
        self._encoders: dict[str, DualEncoder] = {}
        self._loading = threading.Lock()

    def encoder(self, name: str) -> DualEncoder:
        """A dual encoder beside this model, loaded when it is first needed: see `EncodeConfig.encoder`."""
        with self._loading:
            if name not in self._encoders:
                self._encoders[name] = load_dual(name, device=self.family.device)
            return self._encoders[name]

    def session(self, name: str | None = None, *, store: str | Path | None = None, **settings: Any) -> "Session":
        """Start a stream's memory, or open the one called `name` in the folder `store`; without a name, in RAM only.

        The session is there for whoever opens it again, in this process or another, as soon as it has frames.
        `settings` are fields of `EncodeConfig` and `StorageConfig`; a session that exists keeps the former, and of
        the latter its limits (`disk`, `max_age`, `thin_after`, `thin_keep`) until others are given.
        Raises `StoreError` if it cannot be opened, `SessionError` if another model made it.
        """
        names = {field.name for field in fields(StorageConfig)}
        given = {key: settings.pop(key) for key in names & set(settings)}
        storage = StorageConfig().but(**given)
        if name is None:
            if store is not None:
                raise ConfigError("a session in a store has a name: model.session(name, store=...)")
            if useless := sorted(given.keys() & {"disk", "max_age", "thin_after", "thin_keep", "kv"}):
                raise ConfigError(f"{', '.join(useless)}: of a session in a store; give it a name, or leave this out")
            return Session(self, self.family.encode_config.but(**settings), storage)
        keeper = Keeper(Store(store).path(name), self.fingerprint, storage, given=given)
        config = keeper.meta.encode if keeper.exists else self.family.encode_config
        return Session(self, config.but(**settings), keeper.storage, keeper)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What recognises this model when a session is opened again."""
        return fingerprint(self.family, self.rotary)


def load(
    name: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    weights: str | None = None,
) -> Model:
    """Load a Video-LLM: an alias such as "llava_ov_7b", a Hub name, a local folder, or None for the built-in model.

    See `rekv.models.load` for the rest.

    Raises `ModelError` if it cannot be found or loaded, or if the method does not reproduce it.
    """
    return Model(models.load(name, device=device, dtype=dtype, weights=weights))


class Session:
    """One stream's memory: sink, window, blocks, index, frame times. Belongs to one model.

    Questions never change it. Any thread may ask while another appends: a question sees the frames that were
    complete when its turn came. One that has a name is kept on disk: see `Model.session`.
    """

    def __init__(
        self, model: Model, config: EncodeConfig, storage: StorageConfig | None = None, keeper: Keeper | None = None
    ) -> None:
        self.model, self.config = model, config
        self.storage, self.keeper = storage or StorageConfig(), keeper
        self._writer = threading.Lock()
        self._reference: bytes | None = None  # what near-duplicates of the last frame are recognised by
        stored = keeper.meta if keeper is not None and keeper.exists else None
        init = list(stored.init_ids) if stored else model.family.init_ids(config.init_prompt)
        if not init:
            raise ConfigError("init_prompt is empty; it must have at least one token: frames are placed behind it")
        self._init_ids = init
        self._pictures = model.family.frames_per_block
        self._unfinished = Unfinished()
        self._size = max(1, config.frames_per_call // self._pictures) * self._pictures  # of a call, in pictures
        self.block = model.family.block_shape(stored.encode if stored else config, stored.grid if stored else None)
        with torch.inference_mode(), model.turns.take():
            self._remember(self._begun(stored))
            if keeper is not None:
                weakref.finalize(self, keeper.abandon)
                if stored is not None:
                    keeper.load(self.memory)

    # -- the two verbs -----------------------------------------------------------------------------------------

    @torch.inference_mode()
    def append(
        self, frames: Source | Frame | Iterable[Frame], on_progress: Callable[["Session"], None] | None = None
    ) -> int:
        """Read frames, each once, as they come; return how many. `on_progress` is called after every encode call.

        If the source fails or is interrupted, what was read before stays, and the session goes on. In a store it is on
        disk within a second, at the latest when `flush` or `close` returns. Where a model takes two pictures at once,
        an odd last one is taken twice, to be asked about at once, and written when the next one has the second place.
        """
        with self._writer:
            given = self._fitted(pictures(frames, self.config.sample_fps))
            distinct = self._begin()
            new = in_order(given, after=self.memory.table.latest(self.memory.frames))
            count = 0
            for batch in batches(distinct.of(new), self._size, self._size - len(self._held.pictures)):
                with self.model.turns.take():
                    notes = self._encode(batch)
                self._keep(distinct, batch, notes)
                count += len(batch)
                if batch and on_progress is not None:
                    on_progress(self)
            return count

    @torch.inference_mode()
    def ask(
        self,
        question: str,
        *,
        choices: Sequence[str] = (),
        history: Sequence[Turn] = (),
        frames: Sequence[int] | None = None,
        on_text: Callable[[str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        **settings: Any,
    ) -> Answer:
        """Answer a question about the stream so far.

        `choices` asks in the paper's multiple-choice form, and measures how likely each letter is; `history` is the
        conversation so far, oldest turn first: see `Asker.follow_up`; `frames` names frames to read instead of
        retrieving; `on_text` receives the words as they come; `cancelled` is polled at every token. `settings` are
        fields of `AskConfig`. Raises `ConfigError` for what cannot be asked.
        """
        config = self.model.family.ask_config.but(**settings)
        begun = perf_counter()
        with self.model.turns.take() as turn:
            started = perf_counter()
            prompt = prompt_of(self.model.family, question, choices, history)
            asked, warnings = self._asker.follow_up((question, len(prompt)), history, frames, config)
            retrieved = perf_counter()
            said = transcript(self.model.family, config, on_text, cancelled, turn.end, letters=len(choices))
            self._decode(asked, prompt, config, said)
        return self._answer(question, asked, said, Times(begun, started, retrieved), warnings=warnings, config=config)

    @torch.inference_mode()
    def ask_many(
        self,
        questions: Sequence[str],
        *,
        choices: Sequence[Sequence[str]] = (),
        cancelled: Callable[[], bool] | None = None,
        together: int = 16,
        **settings: Any,
    ) -> list[Answer]:
        """Answer several questions about the stream so far: what `ask` would, in less time.

        `choices` has those of each question, if any do. Up to `together` questions share their forward passes, and need
        room for the frames that each reads; an answer's times are those of all of them. The rest is as in `ask`.
        """
        config = self.model.family.ask_config.but(**settings)
        if choices and len(choices) != len(questions):
            raise ConfigError(f"there are {len(questions)} questions and choices for {len(choices)}")
        if together < 1:
            raise ConfigError(f"together is {together}; it must be at least 1 (questions)")
        options = list(choices) or [()] * len(questions)
        prompts = [prompt_of(self.model.family, *one) for one in zip(questions, options, strict=True)]
        answers: list[Answer] = []
        for first in range(0, len(questions), together):
            part = slice(first, first + together)
            some, their = questions[part], prompts[part]
            begun = perf_counter()
            with self.model.turns.take() as turn:
                started = perf_counter()
                lengths = [len(prompt) for prompt in their]
                asked, warnings = self._asker.retrieve(list(zip(some, lengths, strict=True)), None, config)
                retrieved = perf_counter()
                said = [
                    transcript(self.model.family, config, None, cancelled, letters=len(own)) for own in options[part]
                ]
                said[-1].on_first_token = turn.end  # one forward pass gives all first tokens: the last ends the turn
                passes = [AnswerPass(self.memory, one.contexts, one.shelf) for one in asked]
                decode_together(self.model.family.hf, their, passes, config, said)
            times = Times(begun, started, retrieved)
            answers += [
                self._answer(*one, times, warnings=warnings, config=config)
                for one in zip(some, asked, said, strict=True)
            ]
        return answers

    def fit(self, image: Image) -> None:
        """Choose the size of frames for pictures like this one, while the session has none.

        `append` does so with its first picture. It matters where the model's resolution is dynamic.
        """
        grid = self.model.family.grid(image.shape[0], image.shape[1], self.config)
        made = self.memory.frames or (self.keeper is not None and self.keeper.exists)
        if grid is None or grid == self.block.grid or made:
            return
        with torch.inference_mode(), self.model.turns.take():
            self.block = self.model.family.block_shape(self.config, grid)
            self._remember(self._begun(None))

    # -- life ----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Return when all that was appended is safe from a power cut. Raises `StoreError` if it cannot be."""
        if self.keeper is not None:
            if self._writer.acquire(blocking=False):  # while frames are appended, none is unfinished for long
                try:
                    self._finish()
                finally:
                    self._writer.release()
            self.keeper.catch_up(self.memory)
            self.keeper.flush()

    def close(self) -> None:
        """Make everything durable and let other processes append. Reading goes on; appending begins anew."""
        if self.keeper is not None:
            with self._writer:
                self._finish()
                self.keeper.catch_up(self.memory)
                self.keeper.close()
                with self.model.turns.take():
                    self.keeper.settle(self.memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def name(self) -> str | None:
        """Its name in the store."""
        return None if self.keeper is None else self.keeper.path.name

    # -- append, step by step ----------------------------------------------------------------------------------

    @property
    def _held(self) -> Unfinished:
        """The newest frame, if it may take another picture. What an interrupt has left half done does not count."""
        return self._unfinished if self._unfinished.frame == self.memory.finished else Unfinished()

    def _begin(self) -> Distinct:
        """In a store, become the session's one writer and go on where it stopped."""
        if self.keeper is not None:
            if self.keeper.writing:
                self.keeper.retry()
                self.keeper.catch_up(self.memory)
            else:
                with self.model.turns.take():
                    init = self.model.family.init_ids(self.config.init_prompt)
                    self._reference = self.keeper.begin(self.memory, self.config, init)
        held = len(self._held.pictures)
        first = self.memory.finished + 1 if held else self.memory.frames
        return Distinct(self.config, first, self._reference, self._pictures, held)

    def _keep(self, distinct: Distinct, batch: Sequence[Frame], notes: Sequence[FrameNote]) -> None:
        """After an encode call: note which near-duplicates its frames stand for; in a store, hand it all over."""
        extended = distinct.extended(self.memory.frames)
        self.memory.table.until.update(extended)
        if batch:
            self._reference = distinct.state
        if self.keeper is not None and (notes or extended):
            state = distinct.earlier if self.memory.unfinished else distinct.state
            self.keeper.commit(self.memory, notes, extended, state)

    def _finish(self) -> None:
        """Make the newest frame final, in a store, although it could take another picture."""
        if self.keeper is None or not self._held.pictures:
            return
        if not self.memory.unfinished:  # a call that was to give it another one has failed
            with torch.inference_mode(), self.model.turns.take():
                self._encode(())
        notes, self.memory.unfinished = self._held.notes, 0
        self.keeper.commit(self.memory, notes, {}, self._reference)

    def _fitted(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The same frames, for the first of which the session is made to fit."""
        if self.block.grid is None or self.memory.frames:
            return frames
        first = next(frames, None)
        if isinstance(first, Frame):
            self.fit(first.image)
        return frames if first is None else chain((first,), frames)

    def _encode(self, batch: Sequence[Frame]) -> Sequence[FrameNote]:
        """Encode pictures, with those of the unfinished frame; return notes of finished ones, for a store."""
        held, memory = self._held.pictures, self.memory
        if not batch and (not held or memory.unfinished):
            return ()
        first = memory.finished if held else memory.frames
        blocks = groups([*held, *batch], self._pictures)
        inputs = self.model.family.block_inputs(blocks, self.block, first)
        if self.keeper is not None:
            self.keeper.refresh(memory)
        memory.retract(first)
        vectors = self.embeddings.see([block[0].image for block in blocks])
        self._run(memory, inputs)
        short = len(blocks[-1]) < self._pictures
        memory.commit([block[0].time for block in blocks], unfinished=short)
        self.embeddings.commit()
        notes = [FrameNote.of(block[0], vector) for block, vector in zip(blocks, vectors, strict=True) if self.keeper]
        self._unfinished = Unfinished(memory.finished, blocks[-1], notes[-1:]) if short else Unfinished()
        return notes[:-1] if short else notes

    def _remember(self, memory: Memory) -> None:
        """Take this memory, and what goes with it."""
        keeper, encoder = self.keeper, self.config.encoder
        self.memory = memory
        self.embeddings = FrameEmbeddings(
            memory,
            None if encoder is None else partial(self.model.encoder, encoder),
            lambda: keeper.folder.catalog if keeper is not None and keeper.exists else None,
        )
        self._asker = Asker(self.model.family, self.model.decoder, memory, keeper, self.embeddings.similarity)

    def _begun(self, stored: SessionMeta | None) -> Memory:
        """A memory of the init prompt, without frames."""
        config = stored.encode if stored else self.config
        memory = Memory(
            self.model.rotary,
            n_init=len(self._init_ids),
            tokens_per_frame=self.block.tokens,
            n_local=config.n_local,
            layout=self.block.layout,
            several=self._pictures > 1,
            policy=config.policy,
        )
        memory.backing, memory.grid = self.keeper, self.block.grid
        if self.keeper is not None and stored is not None:
            memory.block_dtype, memory.stored_sink = stored.torch_dtype, self.keeper.sink()
        self._run(memory, {"input_ids": torch.tensor([self._init_ids], device=self.model.family.device)})
        storage = self.storage if self.keeper is None else self.storage.but(ram=self.keeper.ram)
        memory.limit(storage, self._size // self._pictures)
        return memory

    def _run(self, memory: Memory, inputs: Mapping[str, Any]) -> None:
        """Run the init prompt or frames through the decoder (no vocabulary logits); frames are to be committed."""
        n = next(iter(inputs.values())).shape[1]
        memory.make_room(n)
        run(self.model.decoder, EncodePass(memory, n), **inputs)

    # -- ask, step by step -------------------------------------------------------------------------------------

    def _decode(self, asked: QuestionPass, prompt: Sequence[int], config: AskConfig, transcript: Transcript) -> None:
        longest = max(context.length for context in asked.contexts.values())
        outgrows = longest + len(prompt) + config.max_new_tokens > self.config.n_local
        windowed = AnswerPass(self.memory, asked.contexts) if outgrows else None
        decode(self.model.family.hf, prompt, asked.contexts, asked.bound, config, transcript, windowed)

    def _answer(self, question: str, asked: QuestionPass, said: Transcript, times: Times, **more: Any) -> Answer:
        return answer(question, asked, said, times, self.memory.table, 1 / self.config.sample_fps, **more)
