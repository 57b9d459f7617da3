"""Everything that decides a run. The same settings and seed give the same model on the same machine."""

from dataclasses import dataclass, replace

from rekv.world import QuestionType


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of training. A process's batch is its share of `clips`."""

    steps: int
    rate: float  # highest learning rate; warmed up, then a cosine down to 3 % of it
    warmup: float = 0.03  # share of the steps
    decay: float = 0.05  # weight decay of matrices


# What is learned last, asked more often than it would be by chance, the slowest most of all. The answers are said by
# other tokens than those that show what is asked for: to bind the two is learned suddenly, from many such questions.
_SLOW: tuple[QuestionType, ...] = (
    "where", "where", "order", "motion", "motion", "when", "when", "before", "before", "times", "times"
)  # fmt: skip
_STORY: tuple[QuestionType, ...] = (
    "where", "order", "order", "motion", "when", "before", "before", "before", "before", "times", "times",
    "count", "caption", "caption", "caption"
)  # fmt: skip
# What a few frames out of many can tell, most of all where others than those asked for look alike.
_FAR: tuple[QuestionType, ...] = (
    "exist", "exist", "exist", "exist", "order", "order", "order", "order", "motion", "motion", "when", "when",
    "where", "where", "absent", "color", "shape", "digit", "size", "now"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Course:
    """What a batch of stage 2 may look like, from one share of its steps to another."""

    start: float  # shares of the steps
    stop: float
    clips: int
    frames: int
    questions: int  # per clip
    contexts: tuple[int, ...]  # frames that a question may be given
    often: float  # share of questions, besides those drawn anyway, of `types`
    types: tuple[QuestionType, ...] = _SLOW
    own_choice: float = 0.0  # share of batches that read the frames which the model itself retrieves
    weight: float = 1.0  # how often it is taken where courses overlap


@dataclass(frozen=True, slots=True)
class Settings:
    """A run. Shapes are chosen so that the Video-LLM is below 10 MB in bfloat16 and the dual encoder below 5 MB."""

    seed: int = 0
    start: str = ""  # folder of a checkpoint to be taught more, by stage 2 alone, instead of a new model by all stages
    # Video-LLM: SigLIP into Qwen2
    vision_width: int = 128
    vision_inner: int = 384
    vision_layers: int = 3
    vision_heads: int = 4
    width: int = 256
    inner: int = 640
    layers: int = 4
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    # dual encoder: SigLIP
    dual_width: int = 128
    dual_inner: int = 384
    dual_layers: int = 3

    vision: Stage = Stage(steps=1600, rate=1.5e-3, warmup=0.02)
    vision_pictures: int = 128  # per step
    language: Stage = Stage(steps=4800, rate=1.2e-3)
    courses: tuple[Course, ...] = (
        Course(0.0, 0.12, 60, 3, 4, (1, 2, 3), 0.7),
        Course(0.12, 0.3, 24, 8, 10, (2, 4, 6, 8), 0.5),
        Course(0.3, 1.0, 16, 16, 15, (6, 8, 12, 16), 0.5, _STORY, own_choice=0.2),
        Course(0.5, 1.0, 5, 64, 48, (8,), 1.0, _FAR, own_choice=1.0, weight=0.4),
    )
    language_pictures: int = 64  # per step, as in stage 1, beside the questions
    contrast: float = 0.1  # weight of the retrieval loss; 0 trains without it
    seeing: float = 0.1  # weight of what tokens show, as in stage 1
    frozen: float = 0.05  # share of stage 2 in which the vision tower rests
    vision_pace: float = 0.5  # its learning rate after that, as a share
    dual: Stage = Stage(steps=600, rate=1.5e-3)
    dual_pairs: int = 256  # per step
    save_seconds: float = 60.0  # how often an interrupted run could be taken up again


def quick(settings: Settings) -> Settings:
    """Return a run of some minutes: everything is done, little is learned."""

    def shorter(stage: Stage, steps: int) -> Stage:
        return replace(stage, steps=steps)

    return replace(
        settings,
        vision=shorter(settings.vision, 150),
        vision_pictures=64,
        language=shorter(settings.language, 80),
        language_pictures=16,
        courses=tuple(replace(course, clips=max(course.clips // 3, 2)) for course in settings.courses),
        dual=shorter(settings.dual, 50),
        dual_pairs=128,
    )


def further(settings: Settings, start: str, steps: int, rate: float) -> Settings:
    """Return a run that goes on from a checkpoint with what stage 2 ends with."""
    last = tuple(replace(course, start=0.0) for course in settings.courses if course.stop == 1.0)
    return replace(settings, start=start, language=replace(settings.language, steps=steps, rate=rate), courses=last)
