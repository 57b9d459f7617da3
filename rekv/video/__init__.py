"""Video files: frames sampled by timestamp, decoded as a stream; and a writer."""

from rekv.video.file import VideoFile, video
from rekv.video.sampling import Sampler
from rekv.video.writer import VideoWriter

__all__ = ["Sampler", "VideoFile", "VideoWriter", "video"]
