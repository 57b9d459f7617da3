"""What the harness asks of a benchmark."""

from abc import ABC
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from rekv.errors import DataError
from rekv.evaluation.rows import Row
from rekv.evaluation.schema import Question, Video

Mode = Literal["offline", "streaming"]
OpenMetric = Literal["judge", "exact", "contains", "count"]


class Dataset(ABC):
    """A benchmark: where its files lie below `data/`, how it is asked, how its original release becomes our schema."""

    name: ClassVar[str]
    title: ClassVar[str]
    annotations: ClassVar[str]  # below the data folder; `videos/` lies beside it
    mode: ClassVar[Mode] = "offline"  # streaming: a question is asked at its time, and sees nothing later
    open_metric: ClassVar[OpenMetric] = "judge"  # how answers without choices are judged
    submission: ClassVar[bool] = False  # answers are not published: predictions go to a file for its server
    release: ClassVar[str]  # what `prepare` wants, in words
    source: ClassVar[str]  # where that is to be had
    hub: ClassVar[tuple[str, tuple[str, ...]] | None] = None  # data set on the Hugging Face Hub, patterns of its files

    def convert(self, release: Path) -> list[Video]:
        """Read the original release's annotation files, which lie in this folder.

        Raises `DataError` that names file, entry and field.
        """
        raise DataError(f"{self.title} has no original release that differs from what is read")

    def advice(self) -> str:
        """How to come by the annotations: what messages end with."""
        prepare = f"`rekv data prepare {self.name}"
        if self.hub is not None:
            return f"{prepare}` fetches and makes it"
        return f"get {self.release} from {self.source}, of which {prepare} FOLDER` makes it"

    def path(self, video: str) -> str:
        """Where a video lies, as the annotations say it: below `data/`."""
        return f"data/{Path(self.annotations).parent.as_posix()}/videos/{video}"


def grouped(questions: Iterable[tuple[str, str, float | None, Question]]) -> list[Video]:
    """Videos in the order in which they come up, from (id, path, duration, question)."""
    found: dict[tuple[str, str], list[Question]] = defaultdict(list)
    durations: dict[tuple[str, str], float | None] = {}
    for id, path, duration, question in questions:
        found[id, path].append(question)
        durations[id, path] = duration
    return [
        Video(index, id, path, durations[id, path], tuple(asked))
        for index, ((id, path), asked) in enumerate(found.items())
    ]


def find_file(release: Path, *names: str) -> Path:
    """The first of these files that is somewhere in the folder; `release` may be the file itself."""
    if release.is_file():
        return release
    for name in names:
        if found := sorted(release.rglob(name)):
            return found[0]
    raise DataError(f"{release} holds no {' or '.join(names)}; name the folder of the original release")


def lettered(row: Row, answer: str, choices: Sequence[str], name: str) -> str:
    """The choice that a letter stands for. Raises `DataError` if there is none."""
    place = ord(answer.strip()[0].upper()) - ord("A")
    if not 0 <= place < len(choices) or len(answer.strip()) > 1:
        raise row.wrong(name, f"is {answer!r}; it must be the letter of one of the {len(choices)} options")
    return choices[place]


def unlettered(options: Sequence[str]) -> list[str]:
    """Options without the "A. " or "(A) " that some releases put before them."""
    stripped = []
    for i, option in enumerate(options):
        letter = chr(ord("A") + i)
        marks = (f"({letter})", f"{letter}.", f"{letter}:", f"{letter})")
        mark = next((mark for mark in marks if option.startswith(mark)), None)
        if mark is None:
            return list(options)
        stripped.append(option.removeprefix(mark).strip() or option)
    return stripped
