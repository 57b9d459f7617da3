"""Everything that decides a run. The same settings and seed give the same model on the same machine."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of training. A process's batch is its share of `clips`."""

    steps: int
    rate: float  # highest learning rate; warmed up, then a cosine down to 3 % of it
    warmup: float = 0.03  # share of the steps
    decay: float = 0.05  # weight decay of matrices


@dataclass(frozen=True, slots=True)
class Course:
    """What a batch of stage 2 looks like from a share of its steps on: longer clips as the model learns."""

    start: float  # share of the steps
    clips: int
    frames: int
    questions: int  # per clip
    contexts: tuple[int, ...]  # frames that a question may be given
    hard: float  # share of questions, at least, of the types that are learned last


@dataclass(frozen=True, slots=True)
class Lesson:
    """One stretch of stage 2."""

    name: str
    stage: Stage
    courses: tuple[Course, ...]
    frozen: float  # share of the steps in which the vision tower rests
    own_choice: float  # share of batches that read the frames the model itself retrieves
    own_from: float = 0.0  # share of the steps after which they do


@dataclass(frozen=True, slots=True)
class Settings:
    """A run. Shapes are chosen so that the Video-LLM is below 10 MB in bfloat16 and the dual encoder below 5 MB."""

    seed: int = 0
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

    vision: Stage = Stage(steps=2400, rate=2e-3, warmup=0.02)
    vision_pictures: int = 128  # per step
    lessons: tuple[Lesson, ...] = (
        Lesson(
            "language",
            Stage(steps=3400, rate=1.5e-3),
            courses=(
                Course(0.0, 60, 3, 4, (1, 2, 3), 0.7),
                Course(0.2, 30, 8, 8, (2, 4, 6, 8), 0.5),
                Course(0.4, 20, 16, 12, (6, 8, 12, 16), 0.5),
            ),
            frozen=0.05,
            own_choice=0.3,
            own_from=0.5,
        ),
        # Among the frames that are retrieved from a long stream are many that look like the right ones.
        Lesson(
            "polish",
            Stage(steps=400, rate=6e-4, warmup=0.05),
            courses=(Course(0.0, 10, 32, 24, (6, 8, 8, 12), 0.4),),
            frozen=0.0,
            own_choice=0.6,
        ),
    )
    contrast: float = 0.1  # weight of the retrieval loss; 0 trains without it
    vision_pace: float = 0.5  # learning rate of the vision tower in stage 2, as a share
    dual: Stage = Stage(steps=700, rate=1.5e-3)
    dual_pairs: int = 256  # per step
    save_seconds: float = 60.0  # how often an interrupted run could be taken up again


def quick(settings: Settings) -> Settings:
    """Return a run of less than five minutes: everything is done, little is learned."""

    def shorter(stage: Stage, steps: int) -> Stage:
        return replace(stage, steps=steps)

    def smaller(course: Course) -> Course:
        return replace(course, clips=course.clips // 3)

    return replace(
        settings,
        vision=shorter(settings.vision, 160),
        vision_pictures=64,
        lessons=tuple(
            replace(lesson, stage=shorter(lesson.stage, steps), courses=tuple(map(smaller, lesson.courses)))
            for lesson, steps in zip(settings.lessons, (80, 5), strict=True)
        ),
        dual=shorter(settings.dual, 60),
        dual_pairs=128,
    )
