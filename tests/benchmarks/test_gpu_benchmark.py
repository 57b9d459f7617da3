"""The GPU benchmark at its smallest size, on the CPU: its sizes are those it claims, and every figure is there."""

import importlib
import json
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.script import BENCHMARKS, script

FRAMES = 230  # 48 fill the window, 9 chunks of 16, and some more


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    path = tmp_path_factory.mktemp("gpu") / "gpu.json"
    words = ("--shape", "tiny", "--device", "cpu", "--frames", FRAMES, "--json", path)
    done = script("gpu.py", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text())


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


@pytest.fixture
def onevision(gpu: ModuleType) -> ModuleType:
    return importlib.import_module("onevision")


def test_everything_is_measured(run: tuple[str, dict[str, Any]]) -> None:
    _, report = run
    assert report["frames"] == FRAMES
    for key in (
        "encode_frames_per_s",
        "encode_fraction_of_limit",
        "language_frames_per_s",
        "language_fraction_of_limit",
        "vision_frames_per_s",
        "pixels_ms_per_frame",
        "first_token_ms",
        "decode_ms_per_token",
        "load_ms",
        "load_gb_per_s",
        "copy_gb_per_s",
        "ram_peak_gb",
    ):
        assert 0 < report[key] < float("inf"), key
    assert report["gpu_peak_gb"] == report["gpu_reserved_gb"] == 0  # on the CPU
    assert all(rate > 0 for rate in report["device_rates"].values())
    assert len(report["rounds"]["encode_frames_per_s"]) == 9


def test_the_figures_agree_with_each_other(run: tuple[str, dict[str, Any]]) -> None:
    _, report = run
    for name in ("encode", "language"):
        share = report[f"{name}_frames_per_s"] / report[f"{name}_limit_frames_per_s"]
        assert report[f"{name}_fraction_of_limit"] == pytest.approx(share)
    assert report["encode_limit_frames_per_s"] < report["language_limit_frames_per_s"]  # it has vision to do, too
    assert report["question_ms"] < report["first_token_ms"]
    assert report["load_gb"] / (report["load_ms"] / 1e3) == pytest.approx(report["load_gb_per_s"])


def test_bytes_are_those_of_the_sizes(run: tuple[str, dict[str, Any]]) -> None:
    _, report = run
    sizes = report["sizes"]
    block = 2 * sizes["kv_heads"] * sizes["tokens_per_frame"] * sizes["head_dim"] * 2  # keys and values in bf16
    assert report["blocks_gb"] * 1e9 == pytest.approx(FRAMES * sizes["layers"] * block)
    assert report["load_gb"] * 1e9 == pytest.approx(sizes["retrieve_size"] * sizes["layers"] * block)


def test_the_table_shows_what_the_json_holds(run: tuple[str, dict[str, Any]]) -> None:
    printed, report = run
    lines = dict(line.split()[:2] for line in printed.splitlines()[1:] if "TFLOP" not in line)
    assert lines["encode_frames_per_s"] == f"{report['encode_frames_per_s']:.4g}"
    assert set(lines) == {key for key, value in report.items() if isinstance(value, int | float)}


def test_flop_are_those_the_model_does(onevision: ModuleType) -> None:
    sizes, frames = onevision.SIZES["tiny"], 3
    family = onevision.RandomOnevision(sizes, onevision.build(sizes, torch.device("cpu")))
    pixels = family.pixels([np.zeros((*sizes.picture, 3), np.uint8)] * frames)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as vision:
        features = family.frame_features(pixels)
    patches = frames * sizes.patches
    products = sum(2 * i * o * n for i, o, n in sizes.vision_products()) * patches
    assert vision.get_total_flops() == products + frames * sizes.vision_attention_flop()
    tokens = frames * sizes.tokens_per_frame
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as language:
        family.hf.get_decoder()(inputs_embeds=features.flatten(0, 1)[None], use_cache=False)
    products = sum(2 * i * o * n for i, o, n in sizes.language_products()) * tokens
    attention = 4 * tokens**2 * sizes.heads * sizes.head_dim * sizes.layers
    # Some versions of transformers compute the rotary angles by a product, too.
    assert language.get_total_flops() == pytest.approx(products + attention, rel=1e-3)
    window = sizes.tokens_per_frame * (sizes.n_local + sizes.init) / tokens**2
    assert sizes.language_attention_flop() == pytest.approx(attention * window)


@pytest.mark.parametrize(("shape", "billions"), [("7b", 8.03), ("0.5b", 0.894)])
def test_the_large_sizes_are_the_published_ones(onevision: ModuleType, shape: str, billions: float) -> None:
    sizes = onevision.SIZES[shape]
    family = onevision.RandomOnevision(sizes, onevision.build(sizes, torch.device("meta")))
    assert family.hf.num_parameters() / 1e9 == pytest.approx(billions, rel=1e-3)
    assert family.tokens_per_frame == sizes.tokens_per_frame == 196
    assert family.encode_config.n_local == 15000


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--frames", "100", "too few"), ("--device", "tpu", "cuda:N"), ("--device", "cuda:99", "torch sees no")],
)
def test_what_cannot_be_measured_is_said(
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--shape", "tiny", option, value])
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    assert said in capsys.readouterr().err
