"""Pictures that show what a question read: a sheet of its frames, and where they lie on the time axis."""

from rekv.pictures.contact_sheet import Group, Still, contact_sheet
from rekv.pictures.timeline import Row, Tick, timeline

__all__ = ["Group", "Row", "Still", "Tick", "contact_sheet", "timeline"]
