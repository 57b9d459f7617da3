"""The built-in model's world: scenes drawn from a seed, and questions about them with the truth."""

from rekv.world.clip import clip_question
from rekv.world.event import Event
from rekv.world.film import render_film
from rekv.world.hard import HARD_TYPES, hard_stream
from rekv.world.needle import NEEDLE_TYPES, NeedleStream, needle_stream
from rekv.world.questions import TYPES, Question, QuestionType, Subject
from rekv.world.render import Renderer, frames, render_clip
from rekv.world.scene import Scene
from rekv.world.splits import HELD_OUT_PAIRS, KNOWN_PAIRS, Split
from rekv.world.story import Ask, Story, demo_story
from rekv.world.vocabulary import vocabulary

__all__ = [
    "HARD_TYPES",
    "HELD_OUT_PAIRS",
    "KNOWN_PAIRS",
    "NEEDLE_TYPES",
    "TYPES",
    "Ask",
    "Event",
    "NeedleStream",
    "Question",
    "QuestionType",
    "Renderer",
    "Scene",
    "Split",
    "Story",
    "Subject",
    "clip_question",
    "demo_story",
    "frames",
    "hard_stream",
    "needle_stream",
    "render_clip",
    "render_film",
    "vocabulary",
]
