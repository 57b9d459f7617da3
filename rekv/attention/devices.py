"""Where a model takes its inputs."""

import torch
from torch import nn


def input_device(embedding: nn.Embedding) -> torch.device:
    """The device for token ids. Weights that accelerate keeps elsewhere are on "meta"; it moves inputs to them."""
    device = embedding.weight.device
    return torch.device("cpu") if device.type == "meta" else device
