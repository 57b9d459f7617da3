"""From pictures to what the vision tower takes, as the checkpoint's own preprocessor config says.

Frames are treated as transformers' video processors treat them: resized to a fixed size (no crop, no padding,
aspect ratio not kept), rescaled, normalised. torchvision, which those processors need, is not needed here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

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
_FILTERS: dict[Any, Filter] = {2: "bilinear", 3: "bicubic"}  # by number in PIL.Image.Resampling
_RESCALE = 1 / 255
_BATCH = 1 << 21  # pixels resized at once; bounds memory


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Resize, rescale, normalise: what a checkpoint wants done to each frame."""

    size: tuple[int, int]  # height, width
    resample: Filter
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float = _RESCALE  # pixel values are multiplied by this before they are normalised

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """Read the settings of a checkpoint, a local folder or a Hub name.

        Raises `ModelError` if it has none, or if they ask for something else than the above.
        """
        for file, key in _FILES:
            config = _read(str(source), file)
            if key is not None:
                config = config and config.get(key)
            if isinstance(config, Mapping):
                return cls.from_config(config, name=str(source))
        raise ModelError(
            f"{source} has no preprocessor_config.json (nor a newer form of it), so nothing says what its "
            f"frames should look like; fetch the checkpoint's files again, all of them"
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, name: str) -> Self:
        """Take the settings from a transformers processor config; `name` is for messages."""
        size, resample = config.get("size"), config.get("resample")
        if not config.get("do_resize", True):
            raise _unsupported(name, "does not resize")
        if config.get("do_center_crop"):
            raise _unsupported(name, "crops")
        if not (isinstance(size, Mapping) and size.get("height") and size.get("width")):
            raise _unsupported(name, f"resizes to {size}, not to a fixed height and width")
        if resample not in _FILTERS:
            raise _unsupported(name, f"resamples with filter {resample}, not bilinear (2) or bicubic (3)")
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        if config.get("do_normalize", True):
            mean, std = (_colour(config.get(key), key, name) for key in ("image_mean", "image_std"))
        rescale = config.get("rescale_factor", _RESCALE) if config.get("do_rescale", True) else 1.0
        return cls((size["height"], size["width"]), _FILTERS[resample], mean, std, rescale)

    def __call__(self, images: Sequence[Image]) -> torch.Tensor:
        """Map pictures (height, width, 3) uint8, of any sizes, to pixels (n, 3, *size) float32."""
        pixels = torch.empty(len(images), 3, *self.size, dtype=torch.float32)
        for batch in _batches(images):
            stack = torch.from_numpy(np.stack([images[i] for i in batch])).permute(0, 3, 1, 2)
            pixels[batch] = resize(stack, self.size, self.resample).float()
        mean, std = (torch.tensor(colour)[:, None, None] for colour in (self.mean, self.std))
        return pixels.mul_(self.rescale).sub_(mean).div_(std)


def _batches(images: Sequence[Image]) -> Iterator[list[int]]:
    """Group the indices of pictures of equal size."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(image.shape, []).append(i)
    for shape, group in groups.items():
        area = shape[0] * shape[1]
        if area == 0:
            raise ConfigError(f"a picture of shape {shape} has no pixels")
        n = max(1, _BATCH // area)
        yield from (group[i : i + n] for i in range(0, len(group), n))


def _read(source: str, file: str) -> dict[str, Any] | None:
    path = _find(source, file)
    if path is None:
        return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); fetch the checkpoint's files again") from error
    return content if isinstance(content, dict) else None


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
