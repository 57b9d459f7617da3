"""Where a model is put and in what precision: the options that go to `from_pretrained`."""

import re
from importlib.util import find_spec
from typing import Any

import torch

from rekv.errors import ConfigError, ModelError
from rekv.models.quantization import quantization

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def placement(
    device: str | None, dtype: str | torch.dtype | None, weights: str | None = None
) -> tuple[dict[str, Any], torch.device | None]:
    """Return options for `from_pretrained`, and the device to move the model to afterwards, if any.

    Raises `ConfigError` for names that mean nothing, `ModelError` for a device that is not here.
    """
    target = _device(device)
    on_gpu = torch.cuda.is_available() and target != torch.device("cpu")
    options: dict[str, Any] = {"dtype": _dtype(dtype) or ("auto" if on_gpu else torch.float32)}
    if weights is not None:
        compute = options["dtype"] if isinstance(options["dtype"], torch.dtype) else torch.bfloat16
        options |= {"quantization_config": quantization(weights, compute), "dtype": compute}
    if isinstance(target, str):
        if find_spec("accelerate") is None:
            raise ModelError(f'device "{target}" needs accelerate: pip install accelerate, or name one device')
        return options | {"device_map": target}, None
    if weights is not None or (on_gpu and find_spec("accelerate") is not None):
        return options | {"device_map": {"": target}}, None  # without a copy in RAM
    return options, target


def _device(name: str | None) -> torch.device | str:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "auto":
        return name
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if found is None:
        raise ConfigError(f'device is {name!r}; it must be "cpu", "cuda", "cuda:N" or "auto"')
    if name != "cpu" and int(found[1] or 0) >= (count := torch.cuda.device_count()):
        raise ModelError(
            f"device is {name!r}, but torch sees {count or 'no'} CUDA device{'s' * (count != 1)} here; "
            f'`rekv doctor` says more, and device="cpu" works everywhere'
        )
    return torch.device(name)


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in _DTYPES.values()):
        return dtype
    if isinstance(dtype, str) and dtype in _DTYPES:
        return _DTYPES[dtype]
    raise ConfigError(f"dtype is {str(dtype)!r}; it must be one of {', '.join(_DTYPES)}")
