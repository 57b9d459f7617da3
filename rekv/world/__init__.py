"""The built-in model's world: scenes drawn from a seed, and questions about them with the truth."""

from rekv.world.clip import clip_question
from rekv.world.event import Event
from rekv.world.film import render_film
from rekv.world.needle import NEEDLE_TYPES, NeedleStream, needle_stream
from rekv.world.questions import Question, QuestionType
from rekv.world.render import Renderer, frames, render_clip
from rekv.world.scene import Scene
from rekv.world.story import Ask, Story, demo_story

__all__ = [
    "NEEDLE_TYPES",
    "Ask",
    "Event",
    "NeedleStream",
    "Question",
    "QuestionType",
    "Renderer",
    "Scene",
    "Story",
    "clip_question",
    "demo_story",
    "frames",
    "needle_stream",
    "render_clip",
    "render_film",
]
