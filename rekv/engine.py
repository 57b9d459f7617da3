"""The two verbs: `append` frames to a session, `ask` it questions.

append: frames -> pixels -> vision tower -> language model with window + sink attention -> blocks, index -> commit
ask:    question -> each layer retrieves and attends -> [sink | retrieved] -> prompt -> words
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rekv import models
from rekv.attention.hook import run
from rekv.attention.passes import AnswerPass, EncodePass, QuestionPass
from rekv.attention.probe import probe
from rekv.core import Answer, AskConfig, EncodeConfig, Frame, Retrieval, Timings
from rekv.decoding import Transcript, decode, end_ids
from rekv.errors import ConfigError, ModelError, SessionError
from rekv.evidence import evidence
from rekv.memory.memory import Memory
from rekv.models.base import VideoLM
from rekv.retrieval import Given, Internal, Retriever, in_scope
from rekv.turns import Turns


@runtime_checkable
class Source(Protocol):
    """Something that is sampled, such as a video file. `sample_fps` None leaves the rate to the session."""

    sample_fps: float | None

    def frames(self, sample_fps: float) -> Iterator[Frame]: ...


class Model:
    """A Video-LLM that rekv can reproduce. Sessions share it; it holds no state of any stream."""

    def __init__(self, family: VideoLM) -> None:
        self.family = family
        self.decoder: nn.Module = family.hf.get_decoder()  # type: ignore[no-untyped-call]
        self.rotary = probe(self.decoder, family.name)
        # Encode calls and questions take turns, first come, first served. A question's turn ends with its first
        # token: the rest of its decoding runs beside encoding, with which it shares nothing.
        self.turns = Turns()

    def session(self, **settings: Any) -> "Session":
        """Start a stream's memory, held in RAM. `settings` are fields of `EncodeConfig`."""
        return Session(self, self.family.encode_config.but(**settings))


def load(name: str | Path | None = None, *, device: str | None = None, dtype: str | torch.dtype | None = None) -> Model:
    """Load a Video-LLM: an alias such as "llava_ov_7b", a Hub name, a local folder, or None for the built-in model.

    Raises `ModelError` if it cannot be found or loaded, or if the method does not reproduce it.
    """
    return Model(models.load(name, device=device, dtype=dtype))


class Session:
    """One stream's memory: sink, window, blocks, index, frame times. Belongs to one model.

    Questions never change it. Any thread may ask while another appends: a question sees the frames that were
    complete when its turn came.
    """

    def __init__(self, model: Model, config: EncodeConfig) -> None:
        self.model = model
        self.config = config
        self._writer = threading.Lock()
        init = model.family.init_ids(config.init_prompt)
        if not init:
            raise ConfigError("init_prompt is empty; it must have at least one token: frames are placed behind it")
        self.memory = Memory(
            model.rotary,
            n_init=len(init),
            tokens_per_frame=model.family.tokens_per_frame,
            n_local=config.n_local,
        )
        with torch.inference_mode(), model.turns.take():
            self._forward((), input_ids=torch.tensor([init], device=model.family.device))

    # -- the two verbs -----------------------------------------------------------------------------------------

    @torch.inference_mode()
    def append(
        self, frames: Source | Frame | Iterable[Frame], on_progress: Callable[["Session"], None] | None = None
    ) -> int:
        """Read frames, each once, as they come; return how many. `on_progress` is called after every encode call.

        If the source fails or is interrupted, what was read before stays, and the session goes on.
        """
        with self._writer:
            before = self.memory.frames
            for batch in _batches(self._checked(self._frames_of(frames)), self.config.frames_per_call):
                with self.model.turns.take():
                    self._encode(batch)
                if on_progress is not None:
                    on_progress(self)
            return self.memory.frames - before

    @torch.inference_mode()
    def ask(
        self,
        question: str,
        *,
        choices: Sequence[str] = (),
        frames: Sequence[int] | None = None,
        on_text: Callable[[str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        **settings: Any,
    ) -> Answer:
        """Answer a question about the stream so far.

        `choices` asks in the paper's multiple-choice form; `frames` names frames to read instead of retrieving;
        `on_text` receives the words as they come; `cancelled` is polled at every token. `settings` are fields of
        `AskConfig`. Raises `ConfigError` for what cannot be asked.
        """
        config = self.model.family.ask_config.but(**settings)
        begun = perf_counter()
        with self.model.turns.take() as turn:
            started = perf_counter()
            asked = self._retrieve(question, prompt := self._prompt(question, choices), frames, config)
            retrieved = perf_counter()
            transcript = self._transcript(config, on_text, cancelled, turn.end)
            self._decode(asked, prompt, config, transcript)
        done = perf_counter()
        first = transcript.first_token_at
        timings = Timings(
            started - begun,
            retrieved - started,
            asked.load_seconds,
            first - retrieved,
            done - first,
            done - begun,
        )
        return self._answer(question, asked, transcript, timings)

    # -- append, step by step ----------------------------------------------------------------------------------

    def _frames_of(self, frames: Source | Frame | Iterable[Frame]) -> Iterator[Frame]:
        if isinstance(frames, Frame):
            return iter((frames,))
        if isinstance(frames, Source):
            return frames.frames(frames.sample_fps or self.config.sample_fps)
        return iter(frames)

    def _checked(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        last = self.memory.times[self.memory.frames - 1] if self.memory.frames else 0.0
        for frame in frames:
            if not isinstance(frame, Frame):
                raise SessionError(
                    f"append takes frames, a rekv.video(...), or any iterable of rekv.Frame(image, time), "
                    f"not {type(frame).__name__}"
                )
            if frame.time < last:
                raise SessionError(
                    f"a frame at {frame.time:.2f} s comes after one at {last:.2f} s: a session is one stream, whose "
                    f"time does not go back; give another video a session of its own"
                )
            last = frame.time
            yield frame

    def _encode(self, batch: Sequence[Frame]) -> None:
        family = self.model.family
        features = family.frame_features(family.pixels([frame.image for frame in batch]))
        if features.shape[:2] != (len(batch), family.tokens_per_frame):
            raise ModelError(
                f"{family.name} made {tuple(features.shape[:2])} (frames, tokens) of {len(batch)} frames; "
                f"it promised {family.tokens_per_frame} tokens per frame"
            )
        self._forward([frame.time for frame in batch], inputs_embeds=features.flatten(0, 1)[None])

    def _forward(self, times: Sequence[float], **inputs: Tensor) -> None:
        """Run the init prompt or frames through the decoder (no vocabulary logits), then make them visible."""
        n = next(iter(inputs.values())).shape[1]
        self.memory.make_room(n)
        run(self.model.decoder, EncodePass(self.memory, n), **inputs)
        self.memory.commit(times)

    # -- ask, step by step -------------------------------------------------------------------------------------

    def _prompt(self, question: str, choices: Sequence[str]) -> list[int]:
        if not question.strip():
            raise ConfigError("the question is empty")
        if any("\ud800" <= c <= "\udfff" for c in question):
            raise ConfigError("the question is not valid text: it holds half a character (a lone surrogate)")
        return self.model.family.prompt_ids(question, choices)

    def _retrieve(
        self, question: str, prompt: Sequence[int], frames: Sequence[int] | None, config: AskConfig
    ) -> QuestionPass:
        """The question pass: every layer picks its frames and puts its context together."""
        ids = self.model.family.question_ids(question)
        visible = in_scope(self.memory.times, self.memory.frames, config)
        recent = range(max(visible.start, visible.stop - config.recent_frames), visible.stop)
        retriever: Retriever = Internal(config.retrieve_size, config.chunk_size)
        if frames is not None:
            retriever = given = Given(frames)
            given.check(visible)
        room = max(len(ids), len(prompt) + config.max_new_tokens)
        asked = QuestionPass(self.memory, retriever, visible=visible, recent=recent, room=room)
        run(self.model.decoder, asked, input_ids=torch.tensor([ids], device=self.model.family.device))
        return asked

    def _transcript(
        self,
        config: AskConfig,
        on_text: Callable[[str], None] | None,
        cancelled: Callable[[], bool] | None,
        on_first_token: Callable[[], None],
    ) -> Transcript:
        family = self.model.family
        return Transcript(
            family.tokenizer,
            end_ids(family.hf, family.tokenizer),
            config.stop,
            on_text,
            cancelled,
            on_first_token,
        )

    def _decode(self, asked: QuestionPass, prompt: Sequence[int], config: AskConfig, transcript: Transcript) -> None:
        longest = max(context.length for context in asked.contexts.values())
        outgrows = longest + len(prompt) + config.max_new_tokens > self.config.n_local
        windowed = AnswerPass(self.memory, asked.contexts) if outgrows else None
        decode(self.model.family.hf, prompt, asked.contexts, asked.bound, config, transcript, windowed)

    def _answer(self, question: str, asked: QuestionPass, transcript: Transcript, timings: Timings) -> Answer:
        layers = sorted(asked.picks)
        retrieval = Retrieval(
            tuple(asked.picks[i] for i in layers),
            torch.stack([asked.scores[i].cpu() for i in layers]),
            asked.visible,
        )
        times = self.memory.times[: asked.visible.stop]
        last_end = times[-1] + 1 / self.config.sample_fps if times else 0.0
        read = sum(len(asked.picks[i]) * self.memory.layers[i].blocks.bytes_per_frame for i in layers)
        return Answer(
            question=question,
            text=transcript.text,
            evidence=evidence(retrieval, times, last_end),
            retrieval=retrieval,
            token_ids=tuple(transcript.ids),
            finish_reason=transcript.reason,
            timings=timings,
            bytes_read={"ram": read},
            frames_seen=len(asked.visible),
        )


def _batches(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    """Lists of `size` frames. If the source fails, those it gave come first, and the failure after them."""
    batch: list[Frame] = []
    failure: Exception | KeyboardInterrupt | None = None
    try:
        for frame in frames:
            batch.append(frame)
            if len(batch) == size:
                full, batch = batch, []  # before it is given away: an interrupt must not give it twice
                yield full
    except (Exception, KeyboardInterrupt) as error:
        failure = error
    if batch:
        yield batch
    if failure is not None:
        raise failure
