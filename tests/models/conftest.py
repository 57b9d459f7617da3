"""A LLaVA-OneVision checkpoint with random weights, made by transformers; ways to damage a copy of it."""

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

Edit = Callable[..., None]

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = ["<unk>", *"what where who is the ball red blue on a system user assistant You are helpful .".split()]


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Work this small gains nothing from threads, and on busy cores they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_tokenizer(folder: Path, special: list[str] = SPECIAL, words: list[str] = WORDS) -> None:
    vocabulary = {word: i for i, word in enumerate(special + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token=special[-1],
        additional_special_tokens=special,
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint: 42 x 42 pixels, 3 x 3 patches of 14, so 4 tokens per frame; bf16 on disk."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    text = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,  # as the 0.5B checkpoint
    )
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=42,
        patch_size=14,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(text_config=text, vision_config=vision, image_token_index=60, video_token_index=61)
    LlavaOnevisionForConditionalGeneration(config).bfloat16().save_pretrained(folder)
    save_tokenizer(folder)
    LlavaOnevisionImageProcessorPil(size={"height": 42, "width": 42}).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "checkpoint"))


@pytest.fixture
def edit(checkpoint: Path) -> Edit:
    """Change entries of one of the copy's JSON files: edit("config.json", "text_config", hidden_size=8)."""

    def change(file: str, *path: str, **changes: Any) -> None:
        content = json.loads((checkpoint / file).read_text())
        part = content
        for key in path:
            part = part[key]
        part.update(changes)
        (checkpoint / file).write_text(json.dumps(content))

    return change


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """No connection can be made, and what was tried is listed: transformers hides some failures."""
    tried: list[object] = []

    def refuse(*address: object) -> None:
        tried.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tried
