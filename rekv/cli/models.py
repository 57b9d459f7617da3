"""`rekv models`: which models there are, what an hour of video takes with each, which ones lie here."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from rekv.cli.options import json_option
from rekv.cli.screen import aligned, format_bytes, format_rate, notes, output, printable
from rekv.core import EncodeConfig
from rekv.models.aliases import BUILTIN, CHECKPOINTS, Checkpoint
from rekv.models.registry import families
from rekv.store.meta import CODECS, ITEMSIZES


@dataclass(frozen=True, slots=True)
class _Row:
    """A model with a short name, at the settings that were asked for."""

    alias: str
    repo: str | None
    architecture: str
    tokens_per_frame: int
    dtype: str
    kv: str
    sample_fps: float
    bytes_per_hour: int
    place: str | None  # where it lies; None if it would be fetched


@click.command()
@click.option("--dtype", type=click.Choice(sorted(ITEMSIZES)), default="bfloat16", show_default=True)
@click.option("--kv", type=click.Choice(CODECS), default="raw", show_default=True, help="How blocks are stored.")
@click.option("--sample-fps", type=click.FloatRange(min=0, min_open=True), help="[default: each model's]")
@json_option
def models(dtype: str, kv: str, sample_fps: float | None, as_json: bool) -> None:
    """List models, families, and what lies here.

    An hour of video takes the bytes given, at --dtype, --kv and --sample-fps. The built-in model is always float32.
    """
    known, cached = families(), _cached()
    rows = [_row(BUILTIN, _builtin(), "float32", kv, sample_fps, "built in")]
    rows += [
        _row(alias, one, dtype, kv, sample_fps, _place(alias, one.repo, cached)) for alias, one in CHECKPOINTS.items()
    ]
    usable = sorted(repo for repo, folder in cached.items() if known.keys() & set(_architectures(folder)))
    if as_json:
        document = {
            "models": [asdict(row) for row in rows],
            "families": [{"family": family, "architecture": one} for one, family in known.items()],
            "cache": {"folder": _cache_folder(), "models": usable},
        }
        click.echo(json.dumps(document, indent=2))
        return
    console = output()
    table = [("MODEL", "FAMILY", "TOKENS PER FRAME", "AN HOUR", "HERE")]
    table += [
        (
            row.alias,
            known[row.architecture],
            str(row.tokens_per_frame),
            f"{format_bytes(row.bytes_per_hour)} at {format_rate(row.sample_fps)}",
            printable(row.place or "no"),
        )
        for row in rows
    ]
    for i, line in enumerate(aligned(table)):
        console.print(line, style="" if i else "bold")
    every = ", ".join(dict.fromkeys(known.values()))
    console.print(f"\nFamilies, of which any local folder or Hub name will do: {every}.")
    if others := [repo for repo in usable if repo not in {row.repo for row in rows}]:
        console.print(f"In {_cache_folder()} besides: {printable(', '.join(others))}.")
    notes().print(f"An hour is that of keys and values: --dtype {dtype}, --kv {kv}.", style="dim")


def _row(alias: str, one: Checkpoint, dtype: str, kv: str, sample_fps: float | None, place: str | None) -> _Row:
    fps = sample_fps or one.encode.sample_fps
    frame = one.values_per_frame * ITEMSIZES[dtype] if kv == "raw" else _packed(one, dtype, kv)
    return _Row(
        alias,
        one.repo or None,
        one.architecture,
        one.tokens_per_frame,
        dtype,
        kv,
        fps,
        round(frame * fps * 3600),
        place,
    )


def _packed(one: Checkpoint, dtype: str, kv: str) -> int:
    """Bytes of a frame in a codec, which only torch knows."""
    import torch

    from rekv.store.codecs import codec

    shape = (one.kv_heads, one.tokens_per_frame, one.head_dim)
    return codec(kv, shape, getattr(torch, dtype)).nbytes * one.layers


def _builtin() -> Checkpoint:
    """The built-in model, from its config."""
    import rekv.models

    config = json.loads((Path(rekv.models.__file__).parent / BUILTIN / "config.json").read_bytes())
    text, vision = config["text_config"], config["vision_config"]
    patches = vision["image_size"] // vision["patch_size"]
    head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    return Checkpoint(
        "",
        config["architectures"][0],
        ((patches + 1) // 2) ** 2,
        text["num_hidden_layers"],
        text["num_key_value_heads"],
        head_dim,
        EncodeConfig(sample_fps=1.0),
    )


def _place(alias: str, repo: str, cached: Collection[str]) -> str | None:
    from rekv.models.finding import in_zoo

    zoo = in_zoo(alias)
    return str(zoo) if zoo else "in the Hub's cache" if repo in cached else None


def _cache_folder() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def _cached() -> dict[str, Path]:
    """Whole checkpoints in the Hub's cache: name on the Hub -> folder."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    from rekv.models.finding import cached

    try:
        repos = [one.repo_id for one in scan_cache_dir(_cache_folder()).repos if one.repo_type == "model"]
    except CacheNotFound:
        return {}
    return {repo: folder for repo in repos if (folder := cached(repo)) is not None}


def _architectures(folder: Path) -> list[str]:
    try:
        names = json.loads((folder / "config.json").read_bytes()).get("architectures")
    except (ValueError, AttributeError, OSError):
        return []
    return names if isinstance(names, list) else []
