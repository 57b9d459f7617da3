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
    language: Stage = Stage(steps=3400, rate=1.5e-3)
    courses: tuple[Course, ...] = (
        Course(0.0, 60, 3, 4, (1, 2, 3), 0.7),
        Course(0.2, 30, 8, 8, (2, 4, 6, 8), 0.5),
        Course(0.4, 20, 16, 12, (6, 8, 12, 16), 0.5),
    )
    contrast: float = 0.1  # weight of the retrieval loss; 0 trains without it
    frozen: float = 0.05  # share of stage 2 in which the vision tower rests
    vision_pace: float = 0.5  # its learning rate after that, as a share
    own_choice: float = 0.3  # share of batches, in the last half, that read the frames the model itself retrieves
    dual: Stage = Stage(steps=700, rate=1.5e-3)
    dual_pairs: int = 256  # per step
    save_seconds: float = 60.0  # how often an interrupted run could be taken up again


def quick(settings: Settings) -> Settings:
    """Return a run of less than five minutes: everything is done, little is learned."""

    def shorter(stage: Stage, steps: int) -> Stage:
        return replace(stage, steps=steps)

    return replace(
        settings,
        vision=shorter(settings.vision, 200),
        vision_pictures=64,
        language=shorter(settings.language, 100),
        courses=tuple(replace(course, clips=course.clips // 3) for course in settings.courses),
        dual=shorter(settings.dual, 60),
        dual_pairs=128,
    )
