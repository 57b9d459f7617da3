"""Near-duplicate frames: how many are left out on a mostly static scene, and which small objects that costs.

    python benchmarks/duplicates.py --json duplicates.json

Films of 640 x 360 pixels, H.264, one frame sampled a second: a background of the built-in world in which an object is
seen for 4 of every 20 seconds, standing or moving, vivid or faint. An event is missed if every frame that shows its
object was left out. Misses are counted without a longest span, which would hide some by chance.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rekv.core import Frame, Image
from rekv.sources import VideoWriter, video
from rekv.sources.duplicates import DEFAULT_THRESHOLD, MAX_SPAN, Duplicates, difference, tiles
from rekv.world import Renderer, Scene
from rekv.world.film import FILM_HEIGHT, FILM_WIDTH
from rekv.world.shapes import COLORS, PALETTE, RADIUS, SHAPES, inside

Float = NDArray[np.float32]

WIDTH, HEIGHT = 640, 360  # pixels: the lower part of the world's picture, without its clock
FPS, SAMPLE_FPS = 2, 1
CYCLE, SHOWN = 20, 4  # seconds from one event to the next, and of it those with its object: the last ones
SAMPLES = 8  # per pixel and axis, for smooth edges
SIZES = (0.01, 0.02, 0.04, 0.08)  # width of an object as a share of the picture's
FAINT = 30.0  # levels by which a faint object is lighter than the background, or darker
LIGHT = 15.0, 160.0  # levels by which the light rises and falls where it changes, seconds of a period
# Standard deviation of a pixel's noise in levels, and whether the light changes.
CONDITIONS = ((0.0, False), (3.0, False), (8.0, False), (3.0, True))
THRESHOLDS = (4, 6, 8, 10, 12, 14, 16, 20, 24, 32)
ENCODER = {"preset": "veryfast", "g": "8"}  # a keyframe every 4 seconds, as cameras do


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--events", type=int, default=8, help="per film")
    parser.add_argument("--sizes", type=float, nargs="+", default=SIZES, help="of objects, as shares of the width")
    parser.add_argument("--crf", type=int, default=23, help="constant rate factor of H.264")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    films = [Film(rng, size, *condition, args.events) for size, condition in product(args.sizes, CONDITIONS)]
    results = [film.results(args.crf) for film in films]
    report = {
        "threshold": DEFAULT_THRESHOLD,
        "max_span": MAX_SPAN,
        "events_per_film": args.events,
        "crf": args.crf,
        "films": results,
        "by_threshold": [total(results, threshold) for threshold in THRESHOLDS],
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    show(report)


@dataclass(frozen=True)
class Thing:
    """A small object and its way."""

    cover: Float  # (side, side, 1), 0 to 1
    color: Float  # (3,)
    faint: bool
    start: tuple[float, float]  # left, top in pixels
    stop: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator, background: Float, size: float, *, faint: bool, moves: bool) -> "Thing":
        side = max(2, round(size * WIDTH))
        cover = mask(SHAPES[rng.integers(len(SHAPES))], side)
        x0, x1 = rng.uniform(0, WIDTH - side, 2)
        y0, y1 = rng.uniform(0, HEIGHT - side, 2)
        color = np.array(PALETTE[COLORS[rng.integers(len(COLORS))]], np.float32)
        if faint:
            color = background[int(y0), int(x0)] + np.float32(rng.choice((-FAINT, FAINT)))
        return cls(cover, color, faint, (x0, y0), (x1, y1) if moves else (x0, y0))

    def paint(self, canvas: Float, share: float) -> None:
        """Draw it into a picture, after this share of its way."""
        side = len(self.cover)
        left, top = (round(a + (b - a) * share) for a, b in zip(self.start, self.stop, strict=True))
        behind = canvas[top : top + side, left : left + side]
        behind[:] = behind * (1 - self.cover) + self.color * self.cover


def mask(kind: str, side: int) -> Float:
    """Return how much of each pixel a shape of this width covers, 0 to 1: (side, side, 1)."""
    at = ((np.arange(side * SAMPLES) + 0.5) / (side * SAMPLES) * 2 - 1) * RADIUS["large"]
    covered: Float = (
        inside(kind, "large", at[None, :], at[:, None]).reshape(side, SAMPLES, side, SAMPLES).mean((1, 3), np.float32)
    )
    return covered[..., None]


class Film:
    """Events with objects of one size, under one condition."""

    def __init__(self, rng: np.random.Generator, size: float, noise: float, light: bool, events: int) -> None:
        self.size, self.noise, self.light = size, noise, light
        scene = Scene.draw(rng, 1, [])
        self._background = Renderer(scene, FILM_WIDTH, FILM_HEIGHT).picture(0)[-HEIGHT:, :WIDTH].astype(np.float32)
        self._things = [
            Thing.draw(rng, self._background, size, faint=i % 2 == 1, moves=i // 2 % 2 == 1) for i in range(events)
        ]
        self._rng = rng

    def results(self, crf: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            with VideoWriter(path, WIDTH, HEIGHT, FPS, crf=crf, options=ENCODER) as writer:
                for picture in self._pictures():
                    writer.write(picture)
            frames = list(video(path, sample_fps=SAMPLE_FPS))
            kbit = path.stat().st_size * 8 / 1000
        return {
            "size": self.size,
            "noise": self.noise,
            "light_changes": self.light,
            "frames": len(frames),
            "kbit_per_second": round(kbit / (len(frames) / SAMPLE_FPS), 1),
            "still_difference": still_difference(frames),
            "thresholds": [self._judge(frames, threshold) for threshold in THRESHOLDS],
        }

    def _pictures(self) -> Iterator[Image]:
        grain = self._rng.normal(0, self.noise, (4, HEIGHT, WIDTH, 1)).astype(np.float32)
        for event, i in product(range(len(self._things)), range(CYCLE * FPS)):
            time = event * CYCLE + i / FPS
            amplitude, period = LIGHT if self.light else (0.0, 1.0)
            canvas = self._background + np.float32(amplitude * np.sin(2 * np.pi * time / period))
            share = (i / FPS - (CYCLE - SHOWN)) / SHOWN
            if share >= 0:
                self._things[event].paint(canvas, share)
            shift = self._rng.integers(0, HEIGHT, 2).tolist()
            canvas += np.roll(grain[self._rng.integers(len(grain))], shift, (0, 1))
            yield canvas.clip(0, 255).astype(np.uint8)

    def _judge(self, frames: Sequence[Frame], threshold: float) -> dict[str, Any]:
        unlimited, limited = Duplicates(threshold, np.inf), Duplicates(threshold)
        repeats = np.array([unlimited.repeats(frame) for frame in frames]).reshape(-1, CYCLE * SAMPLE_FPS)
        missed: NDArray[np.bool_] = np.all(repeats[:, -SHOWN * SAMPLE_FPS :], axis=1)
        faint = np.array([thing.faint for thing in self._things])
        return {
            "threshold": threshold,
            "skipped": round(float(np.mean([limited.repeats(frame) for frame in frames])), 4),
            "missed_vivid": int(missed[~faint].sum()),
            "missed_faint": int(missed[faint].sum()),
            "vivid": int((~faint).sum()),
            "faint": int(faint.sum()),
        }


def still_difference(frames: Sequence[Frame]) -> int:
    """The largest difference of two neighbouring frames without an object: noise, and what the encoder makes of it."""
    still = [tiles(frame.image) for i, frame in enumerate(frames) if i % CYCLE < CYCLE - SHOWN]
    per_cycle = CYCLE - SHOWN
    return max(difference(still[i], still[i - 1]) for i in range(1, len(still)) if i % per_cycle)


def total(results: Sequence[dict[str, Any]], threshold: float) -> dict[str, Any]:
    """Of all films: frames left out by condition, and events missed by size."""
    runs = [(film, run) for film in results for run in film["thresholds"] if run["threshold"] == threshold]
    skipped = {
        name(noise, light): round(
            float(
                np.mean(
                    [run["skipped"] for film, run in runs if (film["noise"], film["light_changes"]) == (noise, light)]
                )
            ),
            3,
        )
        for noise, light in CONDITIONS
    }
    missed = {
        f"{size:.0%} {kind}": f"{sum(run['missed_' + kind] for run in of_size)} of {sum(run[kind] for run in of_size)}"
        for size in sorted({film["size"] for film, _ in runs})
        for kind in ("vivid", "faint")
        for of_size in [[run for film, run in runs if film["size"] == size]]
    }
    return {"threshold": threshold, "skipped": skipped, "missed": missed}


def name(noise: float, light: bool) -> str:
    return f"noise {noise:g}" + (", light changes" if light else "")


def show(report: dict[str, Any]) -> None:
    for film in report["films"]:
        condition = name(film["noise"], film["light_changes"])
        print(
            f"object {film['size']:4.0%}  {condition:24s} {film['kbit_per_second']:7.1f} kbit/s  "
            f"largest difference of still frames {film['still_difference']}"
        )
    for line in report["by_threshold"]:
        print(f"\nthreshold {line['threshold']:g}" + (" (default)" if line["threshold"] == report["threshold"] else ""))
        print("  left out:", ", ".join(f"{key} {value:.0%}" for key, value in line["skipped"].items()))
        print("  missed:  ", ", ".join(f"{key} {value}" for key, value in line["missed"].items()))


if __name__ == "__main__":
    main()
