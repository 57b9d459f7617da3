"""A witness, who only watches a scene, frame by frame, reads a question's words, and answers from what was seen."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from rekv.world import Question, Scene
from rekv.world.shapes import CARD, COLORS, KINDS, PLACES

NAME = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(KINDS)})\b")
KIND = re.compile(rf"\b({'|'.join(KINDS)})(?:e?s)?\b")
COLOR = re.compile(rf"\b({'|'.join(COLORS)})\b")
OCCASION = re.compile(r" the (first|last) time\b")

Name = tuple[str, str]
T = TypeVar("T")


class Sighting(NamedTuple):
    frame: int
    clock: str
    color: str
    kind: str
    size: str
    digit: int
    place: str  # the nearest one
    at: tuple[float, float]

    @property
    def name(self) -> Name:
        return self.color, self.kind


def watch(scene: Scene, n_frames: int | None = None) -> list[Sighting]:
    seen = []
    for frame in range(n_frames or scene.n_frames):
        for event in scene.visible(frame):
            x, y = event.position(frame)
            place = min(PLACES, key=lambda name: abs(PLACES[name][0] - x) + abs(PLACES[name][1] - y))
            look = (event.color, event.kind, event.size, event.digit)
            seen.append(Sighting(frame, scene.clock(frame), *look, place, (x, y)))
    return seen


def truth(question: Question, sightings: Sequence[Sighting], last: int) -> str:
    """Answer from what was seen up to the frame `last`."""
    by_name = defaultdict(list)
    for sighting in sightings:
        by_name[sighting.name].append(sighting)
    names: list[Name] = NAME.findall(question.text)
    of_name = by_name[names[0]] if names else []
    match question.type:
        case "color":
            return one({s.color for s in sightings if s.kind == KIND.findall(question.text)[0]})
        case "shape":
            return one({s.kind for s in sightings if s.color == COLOR.findall(question.text)[0]})
        case "digit":
            assert names[0][1] == CARD
            return one({str(s.digit) for s in of_name})
        case "where":
            return one({s.place for s in meant(question, of_name)})
        case "size":
            return one({s.size for s in of_name})
        case "exist":
            return "yes" if of_name else "no"
        case "order":
            first = {name: by_name[name][0].frame for name in names}
            assert len(set(first.values())) == 2, "they came together"
            return "the {} {}".format(*min(names, key=lambda name: first[name]))
        case "motion":
            return motion(of_name)
        case "now":
            on_screen = sorted((s for s in sightings if s.frame == last), key=lambda s: s.at)
            return " and ".join(a(f"{s.color} {s.kind}") for s in on_screen) or "nothing"
        case "count":
            return str(len({s.color for s in sightings if s.kind == KIND.findall(question.text)[0]}))
        case "when":
            return f"at {meant(question, of_name)[0].clock}"
        case "times":
            return str(len(appearances(of_name)))
        case "before":
            came = of_name[0].frame
            previous = max(s.frame for s in sightings if s.frame < came)
            return a("{} {}".format(*one({s.name for s in sightings if s.frame == previous})))
        case "caption":
            return ", then ".join(a("{} {}".format(*name)) for name in told(sightings))
        case "absent":
            kind = KIND.findall(question.text)[0]
            assert not of_name if names else all(s.kind != kind for s in sightings)
            return "there was none"


def appearances(sightings: Sequence[Sighting]) -> list[list[Sighting]]:
    """One thing's sightings, each stretch of frames without a gap for itself."""
    found: list[list[Sighting]] = []
    for sighting in sightings:
        if not found or sighting.frame > found[-1][-1].frame + 1:
            found.append([])
        found[-1].append(sighting)
    return found


def meant(question: Question, sightings: Sequence[Sighting]) -> Sequence[Sighting]:
    """The sightings that the words are about: all, or those of the first or the last time."""
    occasion = OCCASION.findall(question.text)
    if not occasion:
        return sightings
    several = appearances(sightings)
    assert len(several) > 1
    return several[0 if occasion == ["first"] else -1]


def motion(sightings: Sequence[Sighting]) -> str:
    first, last = sightings[0], sightings[-1]
    name = f"{first.color} {first.kind}" if first.kind == CARD else f"{first.size} {first.color} {first.kind}"
    if len(appearances(sightings)) > 1:
        return f"{a(name)} hid behind the wall"
    if first.place != last.place:
        return f"{a(name)} moved from {first.place} to {last.place}"
    where = {"top": "at the top", "bottom": "at the bottom", "center": "in the center"}
    return f"{a(name)} stayed {where.get(first.place, f'on the {first.place}')}"


def told(sightings: Sequence[Sighting]) -> list[Name]:
    """What came into sight, one after the other; the same thing from behind the wall is no news."""
    story: list[Name] = []
    by_frame = defaultdict(set)
    for sighting in sightings:
        by_frame[sighting.frame].add(sighting.name)
    for frame in sorted(by_frame):
        new = by_frame[frame] - by_frame.get(frame - 1, set())
        story += [name for name in new if story[-1:] != [name]]
        assert len(new) <= 1, "they came together"
    return story


def a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def one(answers: set[T]) -> T:
    assert len(answers) == 1, "the question is ambiguous"
    return answers.pop()
