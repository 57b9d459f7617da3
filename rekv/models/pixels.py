"""From pictures to what the vision tower takes, as the checkpoint's own preprocessor config says.

Frames are treated as transformers' processors treat them: brought to a fixed size, rescaled, normalised. There are
three ways to that size: resize at once (aspect ratio not kept), resize the short side and cut out the middle (CLIP),
resize the long side and then to the size (SmolVLM). torchvision, which those processors need, is not needed here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from torch.nn.functional import pad

from rekv.core import Image
from rekv.errors import ConfigError, ModelError
from rekv.models.resample import Filter, resize

# Where the settings for video may lie, and under which key: first found, first taken, as in transformers.
_FILES = (
    ("processor_config.json", "video_processor"),
    ("video_preprocessor_config.json", None),
    ("preprocessor_config.json", None),
    ("processor_config.json", "image_processor"),
)
_FILTERS: dict[Any, Filter] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # by number in PIL.Image.Resampling
_RESCALE = 1 / 255
_CPU = torch.device("cpu")
_BATCH = {"cpu": 1 << 21, "cuda": 1 << 23}  # pixels resized at once; bounds memory


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Resize, perhaps crop, rescale, normalise: what a checkpoint wants done to each frame."""

    size: tuple[int, int]  # height, width
    resample: Filter
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float = _RESCALE  # pixel values are multiplied by this before they are normalised
    short_side: int | None = None  # resized to this, the middle of `size` is then cut out
    long_side: int | None = None  # resized to this first, then to `size`

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """Read the settings of a checkpoint, a local folder or a Hub name.

        Raises `ModelError` if it has none, or if they ask for something else than the above.
        """
        return cls.from_config(processor_config(source), name=str(source))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, name: str) -> Self:
        """Take the settings from a transformers processor config; `name` is for messages."""
        resample = config.get("resample")
        if not config.get("do_resize", True):
            raise _unsupported(name, "does not resize")
        size, way = _way(config, name)
        if resample not in _FILTERS:
            raise _unsupported(name, f"resamples with filter {resample}, not Lanczos (1), bilinear (2) or bicubic (3)")
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        if config.get("do_normalize", True):
            mean, std = (_colour(config.get(key), key, name) for key in ("image_mean", "image_std"))
        rescale = config.get("rescale_factor", _RESCALE) if config.get("do_rescale", True) else 1.0
        return cls(size, _FILTERS[resample], mean, std, rescale, **way)

    def __call__(self, images: Sequence[Image], device: torch.device = _CPU) -> torch.Tensor:
        """Map pictures (height, width, 3) uint8, of any sizes, to pixels (n, 3, *size) float32 on `device`."""
        pixels = torch.empty(len(images), 3, *self.size, dtype=torch.float32, device=device)
        for batch in _batches(images, _BATCH.get(device.type, _BATCH["cpu"])):
            fitted = self._fitted(_stack([images[i] for i in batch], device))
            for i, picture in zip(batch, fitted, strict=True):
                pixels[i] = picture
        mean, std = (_colours(colour, device) for colour in (self.mean, self.std))
        return pixels.mul_(self.rescale).sub_(mean).div_(std)

    def _fitted(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 pictures of one size (n, 3, height, width) brought to `size`."""
        height, width = images.shape[-2:]
        if self.short_side is not None:
            side, short = self.short_side, min(height, width)
            images = resize(images, (int(side * height / short), int(side * width / short)), self.resample)
            return _middle(images, self.size)
        if self.long_side is not None:
            images = resize(images, _by_long_side(height, width, self.long_side), self.resample)
        return resize(images, self.size, self.resample)


def _stack(images: Sequence[Image], device: torch.device) -> torch.Tensor:
    """uint8 pictures of one size (n, 3, height, width) on `device`."""
    cuda = device.type == "cuda"  # from pinned memory it copies by itself, while this thread goes on
    stack = torch.empty(len(images), *images[0].shape, dtype=torch.uint8, pin_memory=cuda)
    np.stack(images, out=stack.numpy())
    return stack.to(device, non_blocking=cuda).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # for whoever asks next, in whatever mode
def _colours(values: tuple[float, float, float], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device)[:, None, None]


def processor_config(source: str | Path) -> Mapping[str, Any]:
    """What a checkpoint, a local folder or a Hub name, says about video. Raises `ModelError` if it says nothing."""
    for file, key in _FILES:
        config = read_json(str(source), file)
        if key is not None:
            config = config and config.get(key)
        if isinstance(config, Mapping):
            return config
    raise ModelError(
        f"{source} has no preprocessor_config.json (nor a newer form of it), so nothing says what its "
        f"frames should look like; fetch the checkpoint's files again, all of them"
    )


def _middle(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Cut out the middle; what lies beyond a picture's edge is black."""
    (height, width), (new_height, new_width) = images.shape[-2:], size
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return pad(images, (-left, new_width + left - width, -top, new_height + top - height))


def _by_long_side(height: int, width: int, side: int) -> tuple[int, int]:
    """The long side becomes `side`; the short one keeps the aspect ratio and is made even."""
    aspect = width / height
    short = int(side / aspect if width >= height else side * aspect)
    short = max(short + short % 2, 1)
    return (short, side) if width >= height else (side, short)


def _way(config: Mapping[str, Any], name: str) -> tuple[tuple[int, int], dict[str, int]]:
    """The size that pictures come to, and how: see `Preprocessor`."""
    size = config.get("size")
    if isinstance(sampling := config.get("video_sampling"), Mapping):
        size = sampling.get("video_size", size)
    sides = size if isinstance(size, Mapping) else {}
    final, largest = config.get("crop_size"), config.get("max_image_size")
    if config.get("do_center_crop"):
        short = sides.get("shortest_edge") or (size if isinstance(size, int) else None)
        if isinstance(final, int):
            final = {"height": final, "width": final}
        if short is None or not isinstance(final, Mapping) or not (final.get("height") and final.get("width")):
            raise _unsupported(name, f"crops to {final} what it resizes to {size}")
        return (final["height"], final["width"]), {"short_side": short}
    if sides.get("longest_edge") and isinstance(largest, Mapping) and largest.get("longest_edge"):
        return (largest["longest_edge"],) * 2, {"long_side": sides["longest_edge"]}
    if sides.get("height") and sides.get("width"):
        return (sides["height"], sides["width"]), {}
    raise _unsupported(name, f"resizes to {size}, not to a fixed height and width")


def _batches(images: Sequence[Image], pixels: int) -> Iterator[list[int]]:
    """Group the indices of pictures of equal size, as many as have so many pixels."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(image.shape, []).append(i)
    for shape, group in groups.items():
        area = shape[0] * shape[1]
        if area == 0:
            raise ConfigError(f"a picture of shape {shape} has no pixels")
        n = max(1, pixels // area)
        yield from (group[i : i + n] for i in range(0, len(group), n))


def read_json(source: str, file: str) -> dict[str, Any] | None:
    """An object of a JSON file of a checkpoint; None if there is none. Raises `ModelError` if it is not valid."""
    path = _find(source, file)
    if path is None:
        return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); fetch the checkpoint's files again") from error
    return content if isinstance(content, dict) else None


def read_text(source: str, file: str) -> str | None:
    """A text file of a checkpoint; None if there is none."""
    path = _find(source, file)
    return None if path is None else path.read_text(encoding="utf-8")


def _find(source: str, file: str) -> Path | None:
    if Path(source).is_dir():
        path = Path(source, file)
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(source, file))
    except EntryNotFoundError:
        return None


def _colour(value: Any, key: str, name: str) -> tuple[float, float, float]:
    try:
        red, green, blue = map(float, value)
    except (TypeError, ValueError):
        raise _unsupported(name, f"normalises by {key} {value}, not by three numbers") from None
    return red, green, blue


def _unsupported(name: str, what: str) -> ModelError:
    return ModelError(
        f"{name}: its preprocessor {what}. rekv knows those that resize frames to a fixed size, "
        f"rescale and normalise them"
    )
