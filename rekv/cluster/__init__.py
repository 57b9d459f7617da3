"""Work that processes share, on this machine or many, through Ray, which is imported only when it is used."""

from rekv.cluster.connection import Cluster, Progress, require_ray, workers

__all__ = ["Cluster", "Progress", "require_ray", "workers"]
