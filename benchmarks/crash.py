"""Kill -9 while a session is written, and see what is left: every committed frame, and the same end after resuming.

    python benchmarks/crash.py --rounds 200 --json crash.json

One process per round, forked from a warmed parent, reads random pictures with the built-in model until it is killed:
in one half of the rounds at any instant, in the other inside a file operation (a write that got only so far, a sync, a
rename, a commit of SQLite). Another process then opens the session, compares every frame with a run that was never
interrupted, resumes, and compares where that ends. Commits and segments are small, so that many are hit.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a process with threads cannot be forked safely

import argparse
import hashlib
import json
import random
import signal
import struct
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dying import KINDS, SLOTS, Death, DyingFiles, prepare

import rekv
import rekv.store.writer
from rekv.core import Frame, StorageConfig
from rekv.engine import Model, Session
from rekv.store.codecs import codec
from rekv.store.files import Files
from rekv.store.keeper import Keeper

CALLS, PER_CALL = 18, 4  # encode calls, pictures in each
TAIL = (
    5  # calls that only the resumed run makes, each made durable at once: both runs end with the same packed segments
)
ENCODE: dict[str, Any] = {"n_local": 100, "frames_per_call": PER_CALL, "sample_fps": 1.0}
MODES: dict[str, dict[str, Any]] = {
    "raw": {},
    "int8": {"kv": "int8"},
    "int8, max_age": {"kv": "int8", "max_age": 20.0},
    "thin_after": {"thin_after": 20.0, "thin_keep": 3},
    "skip_duplicates": {"skip_duplicates": 8.0},
    "small ram": {"ram": 4_700_000},
}
QUESTIONS = ("What happened?", "What colour was the circle?")
REPEATED = (5, 6, 13, 30, 31, 32, 33, 34, 50)  # pictures that are the one before them again
APPENDED, DURABLE = 0, 1
NEWS = struct.Struct("<qqd")  # what, frames, when


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = rekv.load()
    warm = model.session(**ENCODE)
    warm.append(calls()[0])
    warm.ask(QUESTIONS[0], max_new_tokens=2)
    with tempfile.TemporaryDirectory() as folder:
        report = Rounds(model, Path(folder), random.Random(args.seed)).run(args.rounds)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    for key, value in report.items():
        print(f"{key:24s} {value}")


def calls() -> list[list[Frame]]:
    """The stream: one picture a second."""
    images = np.random.default_rng(0).integers(0, 256, (CALLS * PER_CALL, 48, 48, 3), np.uint8)
    for i in REPEATED:
        images[i] = images[i - 1]
    frames = [Frame(image, float(i)) for i, image in enumerate(images)]
    return [frames[i : i + PER_CALL] for i in range(0, len(frames), PER_CALL)]


# -- in a forked process -----------------------------------------------------------------------------------------------


def open_session(model: Model, path: Path, mode: str, files: Files | None = None) -> Session:
    """As `Model.session` does, with other file operations."""
    settings = dict(MODES[mode])
    encode = {**ENCODE, "skip_duplicates": settings.pop("skip_duplicates", None)}
    storage = StorageConfig(**settings)
    keeper = Keeper(path, model.fingerprint, storage, files)
    return Session(model, model.family.encode_config.but(**encode), storage, keeper)


def append_rest(session: Session, tell: Callable[[int, int], None], until: int = CALLS) -> None:
    """The calls that are not in the session yet, up to call `until`; those of the tail are made durable one by one."""
    table = session.memory.table
    seen = max([*session.memory.times, *table.until.values()], default=-1.0)
    for number, call in enumerate(calls()[:until]):
        if call[0].time > seen:
            session.append(call)
            tell(APPENDED, session.memory.frames)
            if number >= CALLS - TAIL:
                session.flush()


def ingest(model: Model, path: Path, mode: str, death: Death, commit_seconds: float, send: int) -> None:
    """What is going to be killed."""

    def tell(what: int, frames: int) -> None:
        os.write(send, NEWS.pack(what, frames, time.monotonic()))

    prepare(death, partial(tell, DURABLE), commit_seconds)
    session = open_session(model, path, mode, DyingFiles(death))
    append_rest(session, tell, CALLS - TAIL)
    session.flush()
    if death.kind is None:
        time.sleep(60)  # the parent is about to kill


def truth(model: Model, path: Path, mode: str, send: int) -> None:
    """An uninterrupted run: what each frame is, where it ends, which operations it takes and how long."""
    death = Death()
    prepare(death, lambda durable: None, 0.02)
    begun = time.monotonic()
    session = open_session(model, path, mode, DyingFiles(death))
    append_rest(session, lambda what, frames: None, CALLS - TAIL)
    session.flush()
    seconds, counts = time.monotonic() - begun, dict(death.counts)
    append_rest(session, lambda what, frames: None)
    end = final(model, path, mode, session)
    memory = model.session(**ENCODE, skip_duplicates=session.config.skip_duplicates)
    for call in calls():
        memory.append(call)
    names = ("raw", session.storage.kv)
    reply(send, {"frames": {name: kept(memory, name) for name in names}, "end": end, "ops": counts, "s": seconds})


def kept(session: Session, codec_name: str) -> list[str]:
    """A digest of each frame of a session in RAM, as it is read back after it was stored with a codec."""
    frames = range(session.memory.frames)
    digests = [hashlib.sha256() for _ in frames]
    for i, layer in session.memory.layers.items():
        _, heads, tokens, dim = layer.blocks.shape
        packer = codec(codec_name, (heads, tokens, dim), layer.blocks.dtype)
        blocks = layer.blocks.read(frames)
        read = blocks if codec_name == "raw" else packer.unpack(packer.pack(blocks))
        index = session.memory.representatives_of(i, frames)
        for digest, block, row in zip(digests, read, index, strict=True):
            digest.update(block.contiguous().numpy().tobytes() + row.numpy().tobytes())
    return [digest.hexdigest() for digest in digests]


def stored(session: Session) -> dict[int, tuple[str, str, float, float]]:
    """What a reader finds of each frame: codec, digest, time, until."""
    folder = session.keeper.folder  # type: ignore[union-attr]
    codecs = {row.id: row.codec for row in folder.catalog.segments()}
    found: dict[int, tuple[str, str, float, float]] = {}
    for row in folder.catalog.frames():
        digest = hashlib.sha256()
        for i, layer in session.memory.layers.items():
            block = torch.empty(layer.blocks.shape, dtype=layer.blocks.dtype)
            folder.read(i, [row.id], [block])
            digest.update(block.numpy().tobytes() + folder.index(i, [row.id], check=True).tobytes())
        found[row.id] = (codecs[row.segment], digest.hexdigest(), row.time, row.until)
    return found


def final(model: Model, path: Path, mode: str, session: Session) -> dict[str, Any]:
    """Where a run ends: its window and answers from it, what is on disk, answers of who opens that."""
    digest = hashlib.sha256()
    for layer in session.memory.layers.values():
        digest.update(f"{layer.window.first} {layer.window.capacity}".encode())
        for part in layer.window.slots(0, session.memory.tokens - layer.window.first):
            digest.update(part.contiguous().numpy().tobytes())
    window = {"start": CALLS * PER_CALL - 9.0}  # what is older may be packed or gone, or be about to
    answers = [told(session, question, **window) for question in QUESTIONS]
    session.close()
    reader = open_session(model, path, mode)
    answers += [told(reader, question) for question in QUESTIONS]
    rows = [[frame, *values] for frame, values in stored(reader).items()]
    return {"window": digest.hexdigest(), "stored": rows, "answers": answers}


def told(session: Session, question: str, **settings: Any) -> list[Any]:
    """All of an answer that is not a time."""
    answer = session.ask(question, retrieve_size=4, max_new_tokens=8, **settings)
    scores = hashlib.sha256(answer.retrieval.scores.numpy().tobytes()).hexdigest()
    spans = [[span.start, span.end, span.score] for span in answer.evidence]
    return [answer.text, list(answer.token_ids), list(map(list, answer.retrieval.frames)), scores, spans]


def check(model: Model, path: Path, mode: str, expected: dict[str, Any], durable: int, send: int) -> None:
    """Open what a killed process left; count committed frames that are not there, or not as they were."""
    if not path.exists() and not durable:
        reply(send, {"frames": 0, "lost": 0, "why": []})
        return
    session = open_session(model, path, mode)
    frames = session.memory.frames
    rows = stored(session)
    stream = [frame.time for call in calls() for frame in call]
    storage, newest = session.storage, max((row[2] for row in rows.values()), default=0.0)
    bad = dict.fromkeys(range(max(frames, durable)), "gone")
    for frame in list(bad):
        # Times of frames follow from the stream where no near-duplicates are left out.
        age = newest - stream[frame]
        if frame not in rows:
            aged = storage.max_age is not None and age > storage.max_age
            thinned = storage.thin_after is not None and age > storage.thin_after and frame % storage.thin_keep
            if frame < frames and (aged or thinned):
                del bad[frame]
            continue
        name, digest, *times = rows[frame]
        if digest != expected["frames"][name][frame]:
            bad[frame] = f"other bytes ({name})"
        elif session.config.skip_duplicates is None and times != [stream[frame]] * 2:
            bad[frame] = "other times"
        else:
            del bad[frame]
    told(session, QUESTIONS[0])
    reply(send, {"frames": frames, "lost": len(bad), "why": sorted({f"frame {f}: {why}" for f, why in bad.items()})})


def resume(model: Model, path: Path, mode: str, send: int) -> None:
    """Go on to the end."""
    rekv.store.writer.SEGMENT_SLOTS = (SLOTS, SLOTS)
    session = open_session(model, path, mode)
    append_rest(session, lambda what, frames: None)
    reply(send, final(model, path, mode, session))


def reply(send: int, value: Any) -> None:
    with os.fdopen(os.dup(send), "w") as pipe:
        json.dump(value, pipe)


# -- in the parent -----------------------------------------------------------------------------------------------------


class Child:
    """A forked process that runs a function, given what it sends to its parent."""

    def __init__(self, work: Callable[[int], None]) -> None:
        self._receive, send = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                os.close(self._receive)
                work(send)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(send)

    def end(self) -> tuple[bytes, int]:
        """Wait for its end; return what it sent, and its exit code, negative if a signal ended it."""
        with os.fdopen(self._receive, "rb") as pipe:
            data = pipe.read()
        return data, os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def answer(self) -> Any:
        """What it replied; None if it failed."""
        data, code = self.end()
        return json.loads(data) if code == 0 else None


class Rounds:
    """Kills, checks, resumes, counts."""

    def __init__(self, model: Model, folder: Path, rng: random.Random) -> None:
        self._model, self._folder, self._rng = model, folder, rng
        self._truth: dict[str, Any] = {}
        self._total: Counter[str] = Counter()
        self._deaths: Counter[str] = Counter()
        self._tails: list[float] = []
        self._problems: list[str] = []

    def run(self, rounds: int) -> dict[str, Any]:
        begun = time.monotonic()
        for number in range(rounds):
            self._round(number, list(MODES)[number % len(MODES)])
        total = self._total
        return {
            "rounds": rounds,
            "opened": total["opened"],
            "committed_frames_lost": total["lost"],
            "answers_differ": total["answers differ"],
            "ends_differ": total["ends differ"],
            "processes": sum(self._deaths.values()),
            "killed": dict(sorted(self._deaths.items())),
            "committed_frames": total["committed"],
            "frames_encoded_again": total["again"],
            "longest_tail_seconds": round(max(self._tails, default=0.0), 3),
            "problems": self._problems[:20],
            "seconds": round(time.monotonic() - begun, 1),
        }

    def _round(self, number: int, mode: str) -> None:
        path = self._folder / f"round-{number}"
        if mode not in self._truth:
            self._truth[mode] = Child(partial(truth, self._model, self._folder / f"truth-{mode}", mode)).answer()
        opened = self._kill(path, mode, inside=number % 2 == 1)
        if self._rng.random() < 0.3:
            opened &= self._kill(path, mode, inside=self._rng.random() < 0.5)
        end = Child(partial(resume, self._model, path, mode)).answer()
        opened &= end is not None
        self._total["opened"] += opened
        expected = self._truth[mode]["end"]
        different = [key for key in expected if end is None or end[key] != expected[key]]
        self._total["answers differ"] += "answers" in different
        self._total["ends differ"] += bool(different)
        if different or not opened:
            self._problems.append(f"round {number} ({mode}): {different} differ")

    def _kill(self, path: Path, mode: str, *, inside: bool) -> bool:
        """Ingest until death; say whether the session opens afterwards."""
        rng, expected = self._rng, self._truth[mode]
        death = Death()
        if inside:
            kind = rng.choice([kind for kind in KINDS if expected["ops"].get(kind)])
            death = Death(kind, rng.randint(1, expected["ops"][kind]), rng.random())
        child = Child(partial(ingest, self._model, path, mode, death, rng.choice((0.0, 0.02, 0.1))))
        if not inside:
            time.sleep(rng.uniform(0, 1.1 * expected["s"]))
            os.kill(child.pid, signal.SIGKILL)
        data, code = child.end()
        killed_at = time.monotonic()
        self._deaths[(f"in {death.kind}" if inside else "anywhere") if code < 0 else "after the last call"] += 1
        if code > 0:
            self._problems.append(f"{path.name} ({mode}, {death}): ended with an error")
        news = list(NEWS.iter_unpack(data[: len(data) // NEWS.size * NEWS.size]))
        durable = max((frames for what, frames, _ in news if what == DURABLE), default=0)
        found = Child(partial(check, self._model, path, mode, expected, durable)).answer()
        if found is None:
            self._problems.append(f"{path.name} ({mode}, {death}): does not open")
            return False
        again = [when for what, frames, when in news if what == APPENDED and frames > found["frames"]]
        self._tails.append(killed_at - min(again, default=killed_at))
        self._total["again"] += PER_CALL * len(again)
        self._total["committed"] += found["frames"]
        self._total["lost"] += found["lost"]
        self._problems += [f"{path.name} ({mode}, {death}): {why}" for why in found["why"]]
        return True


if __name__ == "__main__":
    main()
