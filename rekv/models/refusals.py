"""Why a checkpoint cannot be used, told from its config before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rekv.errors import ModelError
from rekv.models.registry import families

_FULL = "full_attention"
_SIGHTED = ("vision", "visual")  # in names of what only a config with a vision tower says
_REASONS = {
    "linear_attention": "linear attention, which keeps one state of all frames: no frame can be taken out of it",
    "sliding_attention": "attention to their own sliding window{of}, in which retrieved frames further back are unseen",
    "chunked_attention": "attention to their own chunk, in which a retrieved frame cannot be seen",
}


def unknown(architectures: Sequence[str], config: Mapping[str, Any], source: str) -> ModelError:
    """The error of a checkpoint that no family takes."""
    named = " or ".join(architectures) or "model of no named architecture"
    if architectures and not any(word in key for key in config for word in _SIGHTED):
        return ModelError(
            f"{source} is a {named}, a model of text alone. rekv asks questions of video and needs a Video-LLM, "
            f"{_known()}; `rekv models` lists some"
        )
    own = (
        " Its files are for code of their own (trust_remote_code), which rekv does not run: perhaps there is a "
        "checkpoint of the same model in the format of transformers, its name often ending in -HF."
        if config.get("auto_map")
        else ""
    )
    return ModelError(
        f"{source} is a {named}, which rekv does not know.{own} Use a model {_known()}, or add a family: "
        f"rekv.models.register, docs/adding-a-model.md"
    )


def require_retrievable(source: str) -> None:
    """Raise if layers of the decoder cannot attend to what was retrieved, which no family can mend.

    A config that transformers cannot read is left to the family, which may read it, or else to tell what is wrong.
    """
    from transformers import AutoConfig

    try:
        text = AutoConfig.from_pretrained(source, trust_remote_code=False).get_text_config()
        kinds: list[str] = list(getattr(text, "layer_types", None) or ())
    except Exception:  # a config can be wrong in any way
        return
    others = [kind for kind in kinds if kind != _FULL]
    if not others:
        return
    kind = max(set(others), key=others.count)
    window = getattr(text, "sliding_window", None)
    of = f" of {window} tokens" if isinstance(window, int) else ""
    what = _REASONS.get(kind, f'"{kind}", to which the method does not apply').format(of=of)
    raise ModelError(
        f"{source}: {others.count(kind)} of the {len(kinds)} layers of its decoder are {what}. ReKV needs layers that "
        f"attend to all that is in context. Use a model {_known()}"
    )


def _known() -> str:
    return f"of one of the families {', '.join(dict.fromkeys(families().values()))}"
