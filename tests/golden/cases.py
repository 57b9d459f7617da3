"""The golden cases: outputs of the published implementation on tiny models, and how to replay them."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

import rekv.attention.hook
from rekv.core import EncodeConfig, Frame, StorageConfig, Turn
from rekv.engine import Model, Session
from rekv.models.base import VideoLM
from rekv.models.pixels import Preprocessor
from rekv.store.keeper import Keeper

DATA = Path(__file__).parent.parent / "data" / "golden"


@dataclass(frozen=True)
class Case:
    name: str
    spec: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])


def find_cases() -> dict[str, Path]:
    """Case name -> its JSON file: the project's own, and those of the folder that REKV_GOLDEN names."""
    folders = [DATA] + ([Path(extra)] if (extra := os.environ.get("REKV_GOLDEN")) else [])
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.json"))}


def load_case(path: Path) -> Case:
    with np.load(path.with_suffix(".npz")) as arrays:
        return Case(path.stem, json.loads(path.read_text()), dict(arrays))


class _Ids:
    """A tokenizer for models that have none: answers stay token ids, nothing ends them."""

    eos_token_id = None

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))


class GoldenLM(VideoLM):
    """A golden model whose prompts are the case's ids; a question is asked by its index in the case."""

    architectures = ("LlavaOnevisionForConditionalGeneration", "VideoLlavaForConditionalGeneration")
    init_prompt = ""

    def __init__(self, hf: Any, case: Case) -> None:
        size = hf.config.vision_config.image_size
        half = (0.5, 0.5, 0.5)
        super().__init__(hf, _Ids(), Preprocessor((size, size), "bicubic", half, half), name=case.spec["model"])  # type: ignore[arg-type]
        self._spec = case.spec

    @property
    def tokens_per_frame(self) -> int:
        return int(self._spec["block_size"])

    def prompt(self, question: str) -> str:
        return question  # a case has ids where others have text: see `prompt_ids`

    def init_ids(self, text: str | None = None) -> list[int]:
        return list(self._spec["init_ids"])

    def question_ids(self, question: str) -> list[int]:
        return list(self._spec["questions"][int(question)]["question_ids"])

    def prompt_ids(self, question: str, choices: Sequence[str] = (), turns: Sequence[Turn] = ()) -> list[int]:
        return list(self._spec["questions"][int(question)]["prompt_ids"])

    def frame_features(self, pixels: Tensor) -> Tensor:
        features = self.hf.model.get_video_features(pixels[None])
        pooled = features.pooler_output
        if pooled.shape[0] == 1:  # LLaVA-OneVision: one row for all frames, and a newline token behind them
            pooled = pooled[0, : len(pixels) * self.tokens_per_frame].view(len(pixels), self.tokens_per_frame, -1)
        return pooled


@cache
def golden_model(name: str, device: str = "cpu") -> Any:
    path = DATA / "models" / name
    hf = AutoModelForImageTextToText.from_pretrained(
        path,
        config=AutoConfig.from_pretrained(path),
        dtype=torch.float32,
        attn_implementation={"text_config": rekv.attention.hook.NAME, "vision_config": "sdpa"},
    )
    hf.generation_config.eos_token_id = None
    return hf.eval().to(device)


@cache
def golden_frames(file: str) -> list[Frame]:
    with np.load(DATA / file) as arrays:
        pictures = arrays["frames_uint8"].transpose(0, 2, 3, 1)
    return [Frame(np.ascontiguousarray(picture), float(i)) for i, picture in enumerate(pictures)]


@dataclass
class Recorder:
    """Hidden states of every forward pass of a decoder, and the outputs of its layers."""

    hidden: list[Tensor] = field(default_factory=list)  # after the final norm, (tokens, dim) each
    layers: list[list[Tensor]] = field(default_factory=list)  # per layer

    def take(self) -> tuple[list[Tensor], list[Tensor]]:
        """What was recorded since the last call: hidden states per pass, and per layer all tokens."""
        hidden, layers = (
            self.hidden,
            [torch.cat(outputs) if outputs else torch.empty(0) for outputs in self.layers],
        )
        self.hidden, self.layers = [], [[] for _ in self.layers]
        return hidden, layers


@contextmanager
def recording(decoder: Any) -> Iterator[Recorder]:
    recorder = Recorder(layers=[[] for _ in decoder.layers])

    def keep_layer(i: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            recorder.layers[i].append((output if isinstance(output, Tensor) else output[0])[0].cpu())

        return hook

    def keep_hidden(module: Any, args: Any, output: Tensor) -> None:
        recorder.hidden.append(output[0].cpu())

    handles = [layer.register_forward_hook(keep_layer(i)) for i, layer in enumerate(decoder.layers)]
    handles.append(decoder.norm.register_forward_hook(keep_hidden))
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()


def golden_session(
    case: Case, frames_per_call: int | None = None, device: str = "cpu", folder: Path | None = None
) -> Session:
    """A session of the case's model; with `folder`, the one that is kept there, with as little RAM as can be."""
    model = Model(GoldenLM(golden_model(case.spec["model"], device), case))
    chunk = frames_per_call or case.spec["events"][0].get("encode_chunk_size", 1)
    config = EncodeConfig(n_local=case.spec["n_local"], frames_per_call=chunk)
    if folder is None:
        return Session(model, config)
    family = model.family.hf.config.get_text_config()
    dim = getattr(family, "head_dim", None) or family.hidden_size // family.num_attention_heads
    frame = family.num_hidden_layers * 2 * family.num_key_value_heads * dim * model.family.tokens_per_frame * 4
    storage = StorageConfig(ram=4 * chunk * frame)
    return Session(model, config, storage, Keeper(folder, model.fingerprint, storage))
