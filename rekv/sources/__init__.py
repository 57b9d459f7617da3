"""Video files: frames sampled by timestamp, decoded as a stream; near-duplicates; and a writer."""

from rekv.sources.duplicates import Duplicates
from rekv.sources.file import Identity, VideoFile, video
from rekv.sources.sampling import Sampler
from rekv.sources.writer import VideoWriter

__all__ = ["Duplicates", "Identity", "Sampler", "VideoFile", "VideoWriter", "video"]
