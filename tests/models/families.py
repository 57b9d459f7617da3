"""One tiny checkpoint per family: the real architecture with random weights, on disk as the Hub has it.

A family joins the tests of `test_families.py` by a line in `FAMILIES`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tests.support import randomise

SIDE, PATCH = 56, 14  # 16 patches
VOCABULARY, PICTURE = 320, 300  # PICTURE: the token in whose place stock models put a frame's features

Build = Callable[[Path], None]


@dataclass(frozen=True)
class Tiny:
    """How to make a family's checkpoint, and what its stock model wants to be given."""

    architecture: str  # in the checkpoint's config.json
    family: str  # class of rekv
    build: Build
    tokens_per_frame: int
    inputs: Callable[[Tensor], dict[str, Tensor]] | None  # pixels to arguments of the stock model; None = embeddings
    init_prompt: str
    prompt: str  # for the question "Q"
    choice_prefix: str = "Best option: ("


# -- parts ---------------------------------------------------------------------------------------------------------


def tokenizer(folder: Path, special: Sequence[str], *, start: str | None = None, template: str | None = None) -> None:
    """One token per byte, and the special ones; `start` is put before all text, as Llama does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(BPE({c: i for i, c in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    names = ["<end>", *([start] if start else []), *special]
    made.add_special_tokens(names)
    if start:
        made.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, made.token_to_id(start))]
        )
    saved = hf.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, eos_token="<end>", bos_token=start, additional_special_tokens=list(special)
    )
    saved.chat_template = template
    saved.save_pretrained(folder)


def text(model_type: str = "qwen2", **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    } | more


def vision(model_type: str, **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
    } | more


def clip(**more: Any) -> dict[str, Any]:
    return vision("clip_vision_model", projection_dim=32, **more)


def save(model: Any, folder: Path) -> None:
    model.generation_config.eos_token_id = None
    randomise(model).save_pretrained(folder)


def cropping(folder: Path) -> None:
    square = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square).save_pretrained(folder)


# -- checkpoints ---------------------------------------------------------------------------------------------------

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] }}{% else %}<video>\n{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'].upper() }}: {% for c in m['content'] %}"
    "{% if c['type'] == 'text' %}{{ '\n' + c['text'] }}{% else %}<video>{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def llava_onevision(folder: Path) -> None:
    config = hf.LlavaOnevisionConfig(
        text_config=text(),
        vision_config=vision("siglip_vision_model", vision_use_head=False),
        image_token_index=PICTURE,
        video_token_index=PICTURE,
    )
    save(hf.LlavaOnevisionForConditionalGeneration(config), folder)
    tokenizer(folder, ["<|im_start|>", "<|im_end|>"])
    LlavaOnevisionImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def video_llava(folder: Path) -> None:
    config = hf.VideoLlavaConfig(
        text_config=text("llama"), vision_config=clip(), image_token_index=PICTURE + 1, video_token_index=PICTURE
    )
    save(hf.VideoLlavaForConditionalGeneration(config), folder)
    tokenizer(folder, [], start="<s>")
    cropping(folder)


def llava_next_video(folder: Path) -> None:
    config = hf.LlavaNextVideoConfig(
        text_config=text("llama"),
        vision_config=clip(),
        image_token_index=PICTURE + 1,
        video_token_index=PICTURE,
        image_grid_pinpoints=[[SIDE, SIDE]],
    )
    save(hf.LlavaNextVideoForConditionalGeneration(config), folder)
    tokenizer(folder, [], start="<s>")
    # Beside the tokenizer, as older checkpoints have it.
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": VICUNA}))
    cropping(folder)


def internvl(folder: Path) -> None:
    parts = vision("internvl_vision", image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH])
    config = hf.InternVLConfig(
        text_config=text("qwen3", head_dim=16), vision_config=parts, image_token_id=PICTURE, downsample_ratio=0.5
    )
    save(hf.InternVLForConditionalGeneration(config), folder)
    tokenizer(folder, ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<video>"], template=CHATML)
    LlavaOnevisionImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def smolvlm(folder: Path) -> None:
    from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

    config = hf.SmolVLMConfig(
        text_config=text("llama"), vision_config=vision("smolvlm_vision"), image_token_id=PICTURE, scale_factor=2
    )
    save(hf.SmolVLMForConditionalGeneration(config), folder)
    special = ["<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>", "<image>"]
    tokenizer(folder, special, template=DEFAULT_CHAT_TEMPLATE)
    SmolVLMImageProcessorPil(size={"longest_edge": 4 * SIDE}, max_image_size={"longest_edge": SIDE}).save_pretrained(
        folder
    )
    path = folder / "preprocessor_config.json"
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": SIDE}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"video_sampling": sampling}))


def longva(folder: Path, *, with_tower: bool = True, **changes: Any) -> None:
    """In the format of the original LLaVA code: its config, its names for weights, the tower a model of its own."""
    tower = folder / "clip-tower"
    config = hf.LlavaConfig(
        text_config=text(), vision_config=clip(), image_token_index=PICTURE, projector_hidden_act="gelu"
    )
    model = randomise(hf.LlavaForConditionalGeneration(config))
    state = {original_name(key): value.contiguous() for key, value in model.state_dict().items()}
    state["model.image_newline"] = torch.zeros(64)
    if not with_tower:
        state = {key: value for key, value in state.items() if "vision_tower" not in key}
    alone = hf.CLIPVisionModel(model.model.vision_tower.config)
    alone.load_state_dict(model.model.vision_tower.state_dict())
    alone.save_pretrained(tower)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    original = text("llava_qwen", rope_theta=1_000_000_000.0, torch_dtype="float32") | {
        "architectures": ["LlavaQwenForCausalLM"],
        "mm_vision_tower": str(tower),
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "unires",
        "mm_spatial_pool_mode": "average",
        "mm_spatial_pool_stride": 2,
    }
    (folder / "config.json").write_text(json.dumps(original | changes))
    tokenizer(folder, ["<|im_start|>", "<|im_end|>"])
    cropping(tower)


def original_name(key: str) -> str:
    """What the original LLaVA code calls a weight of transformers' LLaVA."""
    for ours, theirs in (
        ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
        ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
        ("model.language_model.", "model."),
    ):
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return key


# -- the list ------------------------------------------------------------------------------------------------------


def videos(pixels: Tensor) -> dict[str, Tensor]:
    return {"pixel_values_videos": pixels[None]}


FAMILIES: dict[str, Tiny] = {
    "llava_onevision": Tiny(
        "LlavaOnevisionForConditionalGeneration",
        "LlavaOnevision",
        llava_onevision,
        4,
        None,  # stock appends an image_newline token, which the published method leaves out
        "<|im_start|>system \nYou are a helpful assistant.<|im_end|><|im_start|>user ",
        "\nQ<|im_end|><|im_start|>assistant\n",
    ),
    "video_llava": Tiny(
        "VideoLlavaForConditionalGeneration",
        "VideoLlava",
        video_llava,
        17,
        videos,
        "USER: ",
        "\nQ ASSISTANT:",
        " Best option: (",
    ),
    "longva": Tiny(
        "LlavaQwenForCausalLM",
        "LongVA",
        longva,
        4,
        None,  # stock does not pool
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
        "\nQ<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llava_next_video": Tiny(
        "LlavaNextVideoForConditionalGeneration",
        "LlavaNextVideo",
        llava_next_video,
        4,
        videos,
        "<s>USER: ",
        "\nQ ASSISTANT:",
    ),
    "internvl": Tiny(
        "InternVLForConditionalGeneration",
        "InternVL",
        internvl,
        4 + 2 + 1,
        lambda pixels: {"pixel_values": pixels},
        "<|im_start|>user\n",
        "\nQ<|im_end|>\n<|im_start|>assistant\n",
    ),
    "smolvlm": Tiny(
        "SmolVLMForConditionalGeneration",
        "SmolVLM",
        smolvlm,
        4 + len("\nFrame from 00:00:") + 3,
        lambda pixels: {"pixel_values": pixels[None]},
        "<|im_start|>User: You are provided the following series of frames from a video.\n",
        "\n\nQ<end_of_utterance>\nAssistant:",
    ),
}
