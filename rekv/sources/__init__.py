"""Video files: frames sampled by timestamp, decoded as a stream; and a writer."""

from rekv.sources.file import VideoFile, video
from rekv.sources.sampling import Sampler
from rekv.sources.writer import VideoWriter

__all__ = ["Sampler", "VideoFile", "VideoWriter", "video"]
