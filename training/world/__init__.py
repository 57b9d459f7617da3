"""The built-in model's world: scenes drawn from a seed, and questions about them with the truth."""

from training.world.clip import clip_question
from training.world.event import Event
from training.world.film import render_film
from training.world.hard import HARD_TYPES, hard_stream
from training.world.needle import NEEDLE_TYPES, NeedleStream, needle_stream
from training.world.questions import TYPES, Question, QuestionType, Subject
from training.world.render import Renderer, frames, render_clip
from training.world.scene import Scene
from training.world.splits import HELD_OUT_PAIRS, KNOWN_PAIRS, Split
from training.world.story import Ask, Story, demo_story
from training.world.vocabulary import vocabulary

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
