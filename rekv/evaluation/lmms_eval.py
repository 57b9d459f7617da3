"""rekv as a model of lmms-eval: `lmms-eval --model rekv --model_args pretrained=llava_ov_7b,retrieve_size=64 ...`.

lmms-eval (MIT; https://github.com/EvolvingLMMs-Lab/lmms-eval) knows of it by its entry point group `lmms_eval.models`
(`lmms_manifest`) and imports this file; nothing in rekv does, so that neither package needs the other.
"""

import logging
import os
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn
from zlib import crc32

import numpy as np
import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from PIL.Image import Image
from tqdm import tqdm

from rekv import retrieval
from rekv.core import EncodeConfig, Frame
from rekv.engine import Session, load
from rekv.errors import ConfigError, DataError, SessionError, VideoError
from rekv.evaluation.frames import Footage
from rekv.evaluation.temporary import temporary

logger = logging.getLogger(__name__)

# Settings of transformers' generate() that change answers, which rekv does not have, and the value that means none.
_WITHOUT = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


class ReKV(lmms):
    """A Video-LLM with ReKV's memory. Questions are grouped by video; each video is encoded once, one at a time.

    The question is the task's whole prompt, options and instructions included, for lmms-eval has no other words.
    """

    is_simple = True  # asks tasks for text and visuals, not for chat messages

    def __init__(
        self,
        pretrained: str = "tiny",
        device: str | None = None,
        dtype: str | None = None,
        weights: str | None = None,
        ram: float | None = None,
        seed: int = 0,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        **settings: Any,
    ) -> None:
        """`pretrained`, `device`, `dtype`, `weights` as in `rekv.load`; `ram`: bytes of a video's memory in RAM, the
        rest lies on disk meanwhile; `seed`: of answers that are sampled; `settings`: fields of `EncodeConfig` and
        `AskConfig`, which hold where a task names none ("none" is None). Batch sizes are taken and have no effect.

        Raises `ConfigError` for settings that there are not, `ModelError` if the model cannot be loaded.
        """
        super().__init__()
        names = {field.name for field in fields(EncodeConfig)}
        given = {key: None if value == "none" else value for key, value in settings.items()}
        self._encode = {key: value for key, value in given.items() if key in names}
        self._ask = {key: value for key, value in given.items() if key not in names}
        self._ram, self._seed = _bytes(ram), seed
        self.model = load(pretrained, device=device or _device(), dtype=dtype, weights=weights)
        self.model.family.encode_config.but(**self._encode)
        retrieval.find(self.model.family.ask_config.but(**self._ask).retriever)

    @property
    def device(self) -> torch.device:
        """Where lmms-eval lets processes count their shares."""
        return self.model.family.device

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answer the requests, whose order is kept.

        Empty are answers about a video that cannot be read, which is told, and what only pads a process's share. Raises
        `VideoError` if the first one cannot.
        """
        videos: dict[Hashable, list[int]] = {}
        for place, request in enumerate(requests):
            if not request.metadata.get("__padding_only__"):
                videos.setdefault(_identity(self._visuals(request)), []).append(place)
        answers = [GenerationResult("") for _ in requests]
        asked: Counter[Hashable] = Counter()
        with tqdm(total=len(requests), disable=self.rank != 0, desc="Model Responding") as progress:
            for places in videos.values():
                with temporary(self.model, self._ram, **self._encode) as session:
                    try:
                        session.append(frames(self._visuals(requests[places[0]]), session.config.sample_fps))
                    except (VideoError, SessionError) as error:
                        if not asked:  # no video can be read: rather a wrong folder than a damaged file
                            raise
                        logger.error("%s; its %d questions get no answer", error, len(places))
                        progress.update(len(places))
                        continue
                    for place in places:
                        question = (requests[place].task_name, requests[place].doc_id)
                        answers[place] = self._answer(session, requests[place], asked[question])
                        asked[question] += 1
                        progress.update()
        return answers

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Raises `ConfigError`: `Session.ask` measures the likelihood of option letters, not of given text."""
        raise ConfigError(
            f"the task {requests[0].task_name!r} compares the likelihoods of given texts, which rekv does not measure; "
            f"choose its variant that generates answers (output_type: generate_until)"
        )

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Raises `ConfigError`: pictures that come between turns have no place in a video that is read once."""
        raise ConfigError(
            f"the task {requests[0].task_name!r} asks in several rounds, which rekv's adapter does not; "
            f"choose a task that asks once (output_type: generate_until)"
        )

    def clean(self) -> None:
        """Give the model's memory back: a judge may need it."""
        self.__dict__.pop("model", None)
        super().clean()

    def _visuals(self, request: Instance) -> list[Any]:
        _, _, doc_to_visual, doc_id, task, split = request.args
        visuals = doc_to_visual(self.task_dict[task][split][doc_id])
        visuals = list(visuals) if isinstance(visuals, list | tuple) else [] if visuals is None else [visuals]
        pictures = all(isinstance(visual, Image) for visual in visuals)
        if not pictures and (len(visuals) > 1 or not isinstance(visuals[0], str | Path)):
            kinds = ", ".join(sorted({type(visual).__name__ for visual in visuals}))
            raise DataError(
                f"question {doc_id} of the task {task!r} shows {len(visuals)} of {kinds}; rekv reads the path of one "
                f"video, or pictures in order: choose another task"
            )
        return visuals

    def _answer(self, session: Session, request: Instance, repetition: int) -> GenerationResult:
        text, given, *_ = request.args
        seed = crc32(f"{self._seed} {request.task_name} {request.doc_id} {repetition}".encode())
        settings: dict[str, Any] = {"seed": seed, **self._ask, **asking(given, request.task_name)}
        answer = session.ask(text, **settings)
        for warning in answer.warnings:
            logger.warning("question %s of the task %s: %s", request.doc_id, request.task_name, warning)
        return GenerationResult(answer.text, TokenCounts(output_tokens=len(answer.token_ids)))


def frames(visuals: Sequence[Any], sample_fps: float) -> Iterator[Frame]:
    """The frames of the one video that is named, sampled by its timestamps; or pictures, as if sampled from one."""
    if visuals and not isinstance(visuals[0], Image):
        yield from Footage(Path(visuals[0]), sample_fps).frames()
        return
    for k, picture in enumerate(visuals):
        yield Frame(np.array(picture.convert("RGB")), k / sample_fps)


def asking(given: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The settings of `Session.ask` that a task's `generation_kwargs` mean; others of them have no influence.

    As in transformers, a temperature counts unless `do_sample` is false. Raises `ConfigError` for what rekv lacks.
    """
    for name, none in _WITHOUT.items():
        if given.get(name) not in (None, none):
            raise ConfigError(
                f"the task {task!r} asks for {name}={given[name]}, which rekv does not have; "
                f"overrule it with --gen_kwargs {name}={none}"
            )
    settings: dict[str, Any] = {}
    if given.get("max_new_tokens") is not None:
        settings["max_new_tokens"] = int(given["max_new_tokens"])
    until = given.get("until") or ()
    if stop := tuple(filter(None, [until] if isinstance(until, str) else until)):
        settings["stop"] = stop
    sampled, temperature = given.get("do_sample"), given.get("temperature")
    if sampled is False:
        settings["temperature"] = 0.0
    elif sampled or temperature is not None:
        settings["temperature"] = 1.0 if temperature is None else float(temperature)
    if settings.get("temperature") and given.get("top_p"):
        settings["top_p"] = float(given["top_p"])
    return settings


def _identity(visuals: Sequence[Any]) -> Hashable:
    """What tells one video from another: its path, or the pictures themselves."""
    return tuple(_digest(visual) if isinstance(visual, Image) else str(visual) for visual in visuals)


def _digest(picture: Image) -> bytes:
    return sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes()).digest()


def _bytes(ram: float | None) -> int | None:
    if ram is None or isinstance(ram, int | float):
        return None if ram is None else int(ram)
    raise ConfigError(f"ram is {ram!r}; write it in bytes: ram=8e9")


def _device() -> str | None:
    """This process's GPU, where accelerate or torchrun has started several; None leaves it to `rekv.load`."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available()
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if several else None
