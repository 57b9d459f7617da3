"""The architectures: stock classes of transformers, new weights."""

from typing import Any

import torch
from torch import nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerBase,
    Qwen2Config,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)

from rekv.world.shapes import INPUT
from training.settings import Settings

# transformers declares what its models and their configurations have in ways that no type checker accepts.
Model = Any
Shape = Any

PATCH = 8
POSITIONS = 32768
DUAL_WORDS = 32  # tokens of a question, padding included: SigLIP reads its sum from the last of them


def video_llm(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> Model:
    """Return a LLaVA-OneVision of 16 tokens per frame with random weights."""
    vision = SiglipVisionConfig(
        hidden_size=settings.vision_width,
        intermediate_size=settings.vision_inner,
        num_hidden_layers=settings.vision_layers,
        num_attention_heads=settings.vision_heads,
        image_size=INPUT,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = Qwen2Config(  # type: ignore[call-arg]  # head_dim is taken as every further name is
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.inner,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        head_dim=settings.head_dim,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.get_vocab()["<image>"],
        video_token_index=tokenizer.get_vocab()["<video>"],
        image_grid_pinpoints=[[INPUT, INPUT]],
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    torch.manual_seed(settings.seed)
    model = LlavaOnevisionForConditionalGeneration(config)
    _start(model)
    return model


def dual_encoder(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> Model:
    """Return a SigLIP of pictures and questions with random weights."""
    shape: Shape = {
        "hidden_size": settings.dual_width,
        "intermediate_size": settings.dual_inner,
        "num_hidden_layers": settings.dual_layers,
        "num_attention_heads": 4,
    }
    text = SiglipTextConfig(
        **shape,
        vocab_size=len(tokenizer),
        max_position_embeddings=DUAL_WORDS,
        projection_size=settings.dual_width,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = SiglipVisionConfig(**shape, image_size=INPUT, patch_size=PATCH)
    torch.manual_seed(settings.seed + 1)
    return SiglipModel(SiglipConfig(text_config=text, vision_config=vision))


def _start(model: Model) -> None:
    """Draw the language model's weights by the widths: transformers' fixed 0.02 learns slowly at this size."""
    for name, weight in model.model.language_model.named_parameters():
        if "embed_tokens" in name:
            nn.init.normal_(weight, 0, 0.5)
        elif weight.dim() == 2:
            gain = 0.4 if "o_proj" in name or "down_proj" in name else 0.9
            nn.init.normal_(weight, 0, gain / weight.shape[1] ** 0.5)
    nn.init.normal_(model.lm_head.weight, 0, 0.03)
