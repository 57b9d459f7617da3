"""What the core's tests share: tiny random Video-LLMs with real tokenizers, pictures, and their hidden states."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rekv.attention.hook import NAME
from rekv.core import AskConfig, EncodeConfig, Frame
from rekv.engine import Model, Session
from rekv.models.base import VideoLM
from rekv.models.pixels import Preprocessor

VOCABULARY = 101  # a prime, so that no other size is equal to it
SIDE = 4  # pixels of a picture's side
SPOKEN = 12  # tokens of an answer: random models do not end one by themselves
END = "<end>"


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Token i is the word "w<i>"; token 0 ends an answer, and is any other word."""
    vocabulary = {END: 0} | {f"w{i}": i for i in range(1, VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)  # type: ignore[no-untyped-call]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, as GPT-2, Qwen and Llama 3 fall back to; the last token ends an answer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)  # type: ignore[no-untyped-call]


def words(ids: Sequence[int]) -> str:
    return " ".join(f"w{i}" for i in ids)


@cache
def decoder_lm(
    kind: str = "qwen2",
    *,
    layers: int = 3,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    vocabulary: int = VOCABULARY,
) -> Any:
    """A random language model whose attention is far from uniform, so that what it attends to matters."""
    config_class, model_class = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }[kind]
    config = config_class(
        vocab_size=vocabulary,
        hidden_size=heads * head_dim,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return randomise(model_class(config))


def randomise(model: PreTrainedModel, seed: int = 0) -> Any:
    """Fill a model with reproducible weights, attend through rekv."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name and weight.ndim == 1:
                weight.copy_(1 + 0.2 * noise)
            elif "embed_tokens" in name:
                weight.copy_(noise)
            elif weight.ndim == 1:
                weight.copy_(0.5 * noise)
            else:
                weight.copy_(noise * weight[0].numel() ** -0.5)
    model.set_attn_implementation(NAME)
    return model.eval()  # type: ignore[no-untyped-call]


class TinyLM(VideoLM):
    """A language model that sees: a frame's tokens are a fixed random map of its pixels.

    Everything else is as in a real family; prompts are words, so that tests choose their lengths.
    """

    architectures = ()

    def __init__(
        self,
        hf: Any,
        tokenizer: Any = None,
        *,
        tokens_per_frame: int = 3,
        init: str = "w1 w2 w3 w4",
        before: str = "",
        after: str = "w5 w6",
        encode_config: EncodeConfig | None = None,
        ask_config: AskConfig | None = None,
    ) -> None:
        half = (0.5, 0.5, 0.5)
        super().__init__(
            hf,
            tokenizer or word_tokenizer(),
            Preprocessor((SIDE, SIDE), "bilinear", half, half),
            name="tiny",
            encode_config=encode_config,
            ask_config=ask_config or AskConfig(max_new_tokens=SPOKEN),
        )
        self._block, self._init, self._before, self._after = tokens_per_frame, init, before, after
        size = tokens_per_frame * hf.config.hidden_size
        generator = torch.Generator().manual_seed(5)
        self._eye = torch.randn(SIDE * SIDE * 3, size, generator=generator).to(self.device, self.dtype) / 4

    @property
    def tokens_per_frame(self) -> int:
        return self._block

    @property
    def init_prompt(self) -> str:
        return self._init

    def prompt(self, question: str) -> str:
        return f"{self._before} {question} {self._after}"

    def frame_features(self, pixels: Tensor) -> Tensor:
        return (pixels.flatten(1) @ self._eye).view(len(pixels), self._block, -1)


@cache
def pictures(n: int, seed: int = 0) -> tuple[Frame, ...]:
    """Frames of noise, one per second from second 0."""
    images = np.random.default_rng(seed).integers(0, 256, (n, SIDE, SIDE, 3), np.uint8)
    return tuple(Frame(image, float(i)) for i, image in enumerate(images))


def tiny_model(hf: Any = None, **options: Any) -> Model:
    return Model(TinyLM(decoder_lm() if hf is None else hf, **options))


def tiny_session(n_local: int = 40, frames_per_call: int = 4, **options: Any) -> Session:
    return tiny_model(**options).session(n_local=n_local, frames_per_call=frames_per_call, sample_fps=1.0)


@contextmanager
def hidden_states(decoder: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the hidden states (tokens, dim) of every forward pass, after the final norm."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        found.append(output[0].cpu())

    handle = decoder.norm.register_forward_hook(keep)  # type: ignore[union-attr]
    try:
        yield found
    finally:
        handle.remove()


@dataclass
class Record:
    """What a session makes of more frames and of questions: everything the method defines."""

    encoded: Tensor  # hidden states of the frames appended
    answers: list[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]]  # token ids, picks
    scores: list[Tensor]
    spoken: list[Tensor]  # hidden states of each question, its prompt and answer

    def assert_close(self, other: "Record", tolerance: float = 1e-4) -> None:
        assert self.answers == other.answers
        for ours, theirs in zip(self._tensors(), other._tensors(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)

    def assert_equal(self, other: "Record") -> None:
        """To the bit."""
        assert self.answers == other.answers
        assert all(torch.equal(a, b) for a, b in zip(self._tensors(), other._tensors(), strict=True))

    def _tensors(self) -> list[Tensor]:
        return [self.encoded, *self.scores, *self.spoken]


QUESTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("w7 w8 w9", {"retrieve_size": 3, "max_new_tokens": 3}),
    ("w30", {"retrieve_size": 4, "chunk_size": 2, "recent_frames": 1, "max_new_tokens": 12}),
)


def record(session: Session, frames: Sequence[Frame] = ()) -> Record:
    """Append, then ask; the second question outgrows small windows."""
    answers, scores, spoken = [], [], []
    with hidden_states(session.model.decoder) as hidden:
        session.append(frames)
        encoded = torch.cat([torch.empty(0, session.model.family.hf.config.hidden_size), *hidden])
        for question, settings in QUESTIONS:
            hidden.clear()
            answer = session.ask(question, **settings)
            answers.append((answer.token_ids, answer.retrieval.frames))
            scores.append(answer.retrieval.scores)
            spoken.append(torch.cat(hidden))
    return Record(encoded, answers, scores, spoken)


def shrink_slabs(patch: pytest.MonkeyPatch, *, block_bytes: int, index_frames: int = 5) -> None:
    """Make slabs so small that streams of a few frames have many of them."""
    patch.setattr("rekv.memory.pool._SLAB_BYTES", block_bytes)
    patch.setattr("rekv.memory.index._SLAB_FRAMES", index_frames)


def in_time(work: Callable[[], object], seconds: float = 30.0) -> None:
    """Run in a thread of its own: a turn that was lost is an error, not a hang."""
    error: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as caught:
            error.append(caught)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "deadlock"
    if error:
        raise error[0]


def install(folder: Path, module: str, code: str, group: str, points: str, patch: pytest.MonkeyPatch) -> None:
    """Leave what pip leaves of a package, `my_package`, of one module and with these entry points; let it be found."""
    site = folder / "site"
    package, info = site / "my_package", site / "my_package-1.0.dist-info"
    for part in (package, info):
        part.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / f"{module}.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
    patch.syspath_prepend(site)
    for name in ("my_package", f"my_package.{module}"):  # what one test has imported is not the next one's package
        patch.setitem(sys.modules, name, None)  # to be as it was afterwards
        del sys.modules[name]
