"""Memory does not grow with the length of a video."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from tests.sources.films import film

PICTURES = 4000
SIZE = (64, 48)

# In a process of its own, for the operating system only tells the peak since the start. Linux's ru_maxrss will not
# do: it starts from the peak of the process that started this one.
READ = """
import resource, sys
from rekv.sources import video

def peak():
    if sys.platform == "linux":
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2

path, sample_fps, settled = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
early = None
for count, frame in enumerate(video(path, sample_fps=sample_fps), 1):
    if early is None and frame.time >= settled:
        early = peak()
print(count, peak() - early)
"""


@pytest.fixture(scope="session")
def hours(folder: Path) -> Path:
    """A picture every second for more than an hour."""
    return film(folder / "hours.mp4", PICTURES, "mpeg4", tick=Fraction(1), gop=300, size=SIZE)


@pytest.mark.parametrize(("sample_fps", "frames"), [(1.0, PICTURES), (0.003, 12)])
def test_memory_stays_flat(hours: Path, sample_fps: float, frames: int) -> None:
    command = [sys.executable, "-W", "error", "-c", READ, str(hours), str(sample_fps), "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, growth = done.stdout.split()
    assert int(count) == frames
    # The pictures that come after the first reading of the peak are 28 MB of RGB.
    assert float(growth) < 8
