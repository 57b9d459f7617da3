"""The forward pass of training: as ReKV reads, but for many questions at once (arXiv 2503.00540, section 3).

Every frame sees the init prompt and a window of frames. Every question sees the init prompt and the frames it is
given, at contiguous positions, whatever their place in the video: keys are rotated when they are read.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rekv.world import TYPES
from training.labels import TOKENS, UNSAID
from training.models import Model
from training.questions import ANY, Clips

_NOW = TYPES.index("now")


@dataclass(frozen=True, slots=True)
class Look:
    """How a batch is read."""

    window: int  # frames that a frame sees, itself included
    newline: bool = False  # put the model's image_newline after the frames, as transformers does
    video_offset: int = 0  # tokens by which the stream is further on than its clip
    question_offset: int = 0  # tokens by which what a question reads is further on
    answers_only: bool = (
        False  # of the words, the last layer works out only those that an answer's next word is told by
    )
    own_choice: bool = False  # every layer reads the frames that it scores highest, as in use


@dataclass(frozen=True, slots=True)
class Read:
    """What came of it."""

    hidden: torch.Tensor  # (r, l, width), normed: what the head takes; anything where no word is
    queries: list[torch.Tensor]  # per layer (r, kv_heads * head_dim): mean un-rotated query, summed over groups
    keys: list[torch.Tensor]  # per layer (b * n, kv_heads * head_dim): mean un-rotated key of each frame


def frame_features(model: Model, images: torch.Tensor) -> torch.Tensor:
    """Return what the language model gets of uint8 pictures (m, h, w, 3): (m, TOKENS, width)."""
    pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
    features: torch.Tensor = model.model.get_video_features(pixels[:, None]).pooler_output[:, :TOKENS]
    return features


def read(
    model: Model,
    clips: Clips,
    features: torch.Tensor,
    init: torch.Tensor,
    look: Look,
) -> Read:
    """Read clips and answer questions.

    `features`: (b * n, TOKENS, width). `init`: ids of the init prompt. Differentiable but for the choice of frames.
    """
    language = model.model.language_model
    config = model.config.text_config
    kv, dim = config.num_key_value_heads, config.head_dim
    n, device = clips.frames, features.device
    b = len(features) // n
    r, c = clips.context.shape

    start = language.embed_tokens(init).expand(b, -1, -1).to(features.dtype)
    video = torch.cat([start, features.reshape(b, n * TOKENS, -1)], 1)
    words, asked, said = language.embed_tokens(clips.ids).to(features.dtype), clips.asked, clips.ids > 0
    if look.newline:
        words = torch.cat([model.model.image_newline.to(words.dtype).expand(r, 1, -1), words], 1)
        asked, said = F.pad(asked, (1, 0)), F.pad(said, (1, 0), value=True)
    s, t, w = len(init), video.shape[1], words.shape[1]
    share = (asked / asked.sum(1, keepdim=True))[..., None]
    # What fills up the rows is left out but for attention, where nothing looks at it: a third of all words.
    words, place = words[said], (said.flatten().cumsum(0) - 1).clamp(min=0)

    rotary = _Rotary(language.rotary_emb.inv_freq)
    frame = torch.cat([torch.full((s,), -1), torch.arange(n).repeat_interleave(TOKENS)]).to(device)
    at_video = rotary(torch.arange(t, device=device) + (frame >= 0) * look.video_offset)
    frames_see = torch.ones(t, t, dtype=torch.bool, device=device).tril()
    frames_see &= (frame < 0) | (frame[:, None] - frame < look.window)
    m = s + c * TOKENS
    shift = (torch.arange(m + w, device=device) >= s) * look.question_offset
    at_words = rotary(torch.arange(m + w, device=device) + shift)
    words_see = torch.ones(w, m + w, dtype=torch.bool, device=device).tril(m)

    context = clips.context
    rows = _rows(clips.clip, context, s, t)
    x = torch.cat([video.reshape(b * t, -1), words])
    queries, keys = [], []
    last = len(language.layers) - 1
    for number, layer in enumerate(language.layers):
        attention = layer.self_attn
        h = _normed(x, layer.input_layernorm)
        k, v = attention.k_proj(h), attention.v_proj(h)
        if number == last:  # nothing reads what the last layer makes of the frames
            x, h = x[b * t :], h[b * t :]
        q = attention.q_proj(h)
        q_words = q[len(q) - len(words) :].index_select(0, place).view(r, w, kv, -1, dim)
        k_words, v_words = (part[b * t :].index_select(0, place).view(r, w, -1) for part in (k, v))
        mean_query = (q_words.flatten(2).float() * share).sum(1).view(r, kv, -1, dim).sum(2).flatten(1)
        mean_key = k[: b * t].view(b, t, -1)[:, s:].float().reshape(b * n, TOKENS, -1).mean(1)
        queries.append(mean_query)
        keys.append(mean_key)
        if look.own_choice:
            rows = _rows(clips.clip, _choose(mean_query, mean_key.view(b, n, -1), clips, c), s, t)
        k_read = torch.cat([k[rows], k_words], 1).view(r, m + w, kv, 1, dim)
        v_read = torch.cat([v[rows], v_words], 1).view(r, m + w, kv, 1, dim)
        at_asked = tuple(part[m:] for part in at_words)
        heard = _attend(rotary.turn(q_words, at_asked), rotary.turn(k_read, at_words), v_read, words_see)
        if number == last and look.answers_only:
            answers = F.pad(clips.labels != UNSAID, (w - clips.labels.shape[1], 0))
            x, heard = x[answers[said]], heard[answers]
            place = (answers.flatten().cumsum(0) - 1).clamp(min=0)
        else:
            heard = heard[said]
        if number < last:
            seen = _attend(
                rotary.turn(q[: b * t].view(b, t, kv, -1, dim), at_video),
                rotary.turn(k[: b * t].view(b, t, kv, 1, dim), at_video),
                v[: b * t].view(b, t, kv, 1, dim),
                frames_see,
            )
            heard = torch.cat([seen.view(b * t, -1), heard])
        x = x + attention.o_proj(heard)
        h = _normed(x, layer.post_attention_layernorm)
        x = x + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(h)) * layer.mlp.up_proj(h))
    hidden = _normed(x, language.norm).index_select(0, place).view(r, w, -1)
    return Read(hidden[:, 1:] if look.newline else hidden, queries, keys)


def matches(clips: Clips) -> torch.Tensor:
    """Say which frames of the batch show what a question names: bool (r, b * n)."""
    wanted, shown = clips.subjects[:, None, :, None], clips.contents[None, :, None, :]
    same = (wanted == shown) | (wanted == ANY)
    return (same.all(-1) & (shown[..., 0] >= 0)).flatten(2).any(-1)


class _Rotary:
    """Rotary position embedding of whole arrays at once."""

    def __init__(self, frequencies: torch.Tensor) -> None:
        self._frequencies = frequencies

    def __call__(self, positions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        angle = positions[:, None].float() * self._frequencies
        angle = torch.cat([angle, angle], -1)[:, None, None]
        return angle.cos(), angle.sin()

    def turn(self, x: torch.Tensor, at: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Rotate (batch, tokens, kv_heads, group, dim) to (batch, kv_heads, group * tokens, dim)."""
        cos, sin = (part.to(x.dtype) for part in at)
        half = x.shape[-1] // 2
        turned = x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin
        return turned.permute(0, 2, 3, 1, 4).flatten(2, 3)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
    """Attend, every head of a group with the rows of its own below each other.

    `query`: (batch, kv_heads, group * l, dim). `key`: (batch, kv_heads, t, dim). `value`: (batch, t, kv_heads, 1, dim).
    `sees`: bool (l, t). Returns (batch, l, heads * dim).
    """
    batch, kv, rows, dim = query.shape
    length = len(sees)
    values = value[:, :, :, 0].transpose(1, 2)
    out = F.scaled_dot_product_attention(query, key, values, attn_mask=sees.repeat(rows // length, 1))
    heard: torch.Tensor = out.view(batch, kv, -1, length, dim).permute(0, 3, 1, 2, 4).reshape(batch, length, -1)
    return heard


def _normed(x: torch.Tensor, norm: Model) -> torch.Tensor:
    normed: torch.Tensor = F.rms_norm(x, (x.shape[-1],), norm.weight.to(x.dtype), norm.variance_epsilon)
    return normed


def _rows(clip: torch.Tensor, context: torch.Tensor, s: int, t: int) -> torch.Tensor:
    """Return where a question's init prompt and frames are among the rows of all clips: (r, s + c * TOKENS)."""
    inside = torch.arange(TOKENS, device=clip.device)
    frames = (s + context[:, :, None] * TOKENS + inside).flatten(1)
    init = torch.arange(s, device=clip.device).expand(len(clip), -1)
    return torch.cat([init, frames], 1) + clip[:, None] * t


@torch.no_grad()
def _choose(query: torch.Tensor, key: torch.Tensor, clips: Clips, c: int) -> torch.Tensor:
    """Take the frames that score highest; a question about the present gets the newest as well, as it does in use."""
    scores = torch.einsum("bnd,bd->bn", key[clips.clip], query)
    scores[clips.types == _NOW, -1] = torch.inf
    best: torch.Tensor = scores.topk(c, 1).indices.sort(1).values
    return best
