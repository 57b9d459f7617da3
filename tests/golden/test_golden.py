"""rekv against the published implementation: hidden states, scores, retrieved frames, logits, greedy tokens."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rekv.core import Answer
from rekv.engine import Session
from tests.golden.cases import Case, Recorder, find_cases, golden_frames, golden_session, load_case, recording

HIDDEN = 1e-4
LOGITS = 2e-4
CASES = find_cases()


@pytest.fixture(scope="module", params=CASES.values(), ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest) -> Case:
    path: Path = request.param
    return load_case(path)


@pytest.mark.parametrize("frames_per_call", [1, 2, 4, 7, 64])
def test_golden(case: Case, frames_per_call: int) -> None:
    """Every way of chunking the encode gives the published results."""
    replay(case, frames_per_call)


@pytest.mark.parametrize("frames_per_call", [1, 7])
def test_golden_through_disk(case: Case, frames_per_call: int, tmp_path: Path) -> None:
    """Closed, and opened anew from disk, after every call: the same results."""
    replay(case, frames_per_call, folder=tmp_path / "session")


def test_golden_from_another_process(tmp_path: Path) -> None:
    """Encoded here and kept on disk; asked in a process that has computed no frame."""
    for name, path in CASES.items():
        case = load_case(path)
        frames = golden_frames(case.spec["inputs"])
        with golden_session(case, 7, folder=tmp_path / name) as session:
            for event in case.spec["events"]:
                if event["op"] == "encode":
                    session.append(frames[slice(*event["frames"])])
    code = "import sys; from tests.golden.test_golden import ask_all; ask_all(sys.argv[1])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    questions = sum(len(load_case(path).spec["questions"]) for path in CASES.values())
    assert done.stdout == f"{questions} questions\n"


@torch.inference_mode()
def ask_all(store: str) -> None:
    """Ask the questions of all cases, each as of the moment when it was asked."""
    torch.set_num_threads(1)
    asked = 0
    for name, path in CASES.items():
        case = load_case(path)
        session = golden_session(case, 7, folder=Path(store) / name)
        with recording(session.model.decoder) as recorder:
            seen = 0
            for event in case.spec["events"]:
                if event["op"] == "encode":
                    seen = event["frames"][1]
                else:
                    check_question(case, event["index"], session, recorder, end=float(seen))
                    asked += 1
    print(f"{asked} questions")


@pytest.mark.gpu
@pytest.mark.parametrize("frames_per_call", [1, 7])
def test_golden_cuda(case: Case, frames_per_call: int) -> None:
    """With exact convolutions: torch rounds a vision tower's patches to TF32 in float32 by default."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        replay(case, frames_per_call, device="cuda")


@torch.inference_mode()
def replay(case: Case, frames_per_call: int, device: str = "cpu", folder: Path | None = None) -> None:
    frames = golden_frames(case.spec["inputs"])
    session = golden_session(case, frames_per_call, device)
    decoder = session.model.decoder
    encoded: list[Tensor] = []
    layers: list[list[Tensor]] = []
    with recording(decoder) as recorder:
        session = golden_session(case, frames_per_call, device, folder)
        close(recorder.take()[0][-1], case.array("init_h"), HIDDEN, "init_h")
        for event in case.spec["events"]:
            if event["op"] == "encode":
                first, last = event["frames"]
                session.append(frames[first:last])
                hidden, outputs = recorder.take()
                encoded += hidden
                layers.append(outputs)
            else:
                check_question(case, event["index"], session, recorder)
            session.memory.check_integrity()
            if folder is not None:
                session.close()
                session = golden_session(case, frames_per_call, device, folder)
                recorder.take()
    close(torch.cat(encoded), case.array("enc_h"), HIDDEN, "enc_h")
    if "enc_layers" in case.arrays:
        ours = torch.stack([torch.cat(parts) for parts in zip(*layers, strict=True)])
        close(ours, case.array("enc_layers"), HIDDEN, "enc_layers")
    if "kv_k" in case.arrays:
        check_blocks(case, session)


def check_question(case: Case, i: int, session: Session, recorder: Recorder, **scope: float) -> None:
    spec, q = case.spec["questions"][i], f"q{i}_"
    answer = session.ask(
        str(i),
        frames=spec["external_indices"],
        retrieve_size=case.spec["topk"],
        chunk_size=case.spec["chunk_size"],
        max_new_tokens=spec["max_new_tokens"],
        **scope,
    )
    hidden, layers = recorder.take()
    question, prefill, *steps = hidden
    check_retrieval(case, q, answer)
    close(question, case.array(q + "question_h"), HIDDEN, "question_h")
    family = session.model.family
    logits = family.hf.lm_head(torch.cat((prefill, *steps)).to(family.device)).cpu()  # type: ignore[operator]
    close(logits[: len(prefill)], case.array(q + "prefill_logits"), LOGITS, "prefill_logits")
    close(logits[len(prefill) - 1 :], case.array(q + "step_logits"), LOGITS, "step_logits")
    assert list(answer.token_ids) == case.array(q + "ids").tolist()
    split = len(question), len(question) + len(prefill)
    ours = torch.stack(layers)
    close(ours[:, : split[0]], case.array(q + "question_layers"), HIDDEN, "question_layers")
    close(ours[:, split[0] : split[1]], case.array(q + "prefill_layers"), HIDDEN, "prefill_layers")


def check_retrieval(case: Case, q: str, answer: Answer) -> None:
    expected = [[int(f) for f in layer if f >= 0] for layer in case.arrays[q + "idx"]]
    assert [list(layer) for layer in answer.retrieval.frames] == expected
    if q + "sim" in case.arrays:
        sim = case.array(q + "sim")
        scored = ~sim.isnan()
        close(answer.retrieval.scores[scored], sim[scored], LOGITS, "sim")


def check_blocks(case: Case, session: Session) -> None:
    """Sink and blocks hold the published un-rotated keys and values."""
    n = session.memory.frames
    for i, layer in session.memory.layers.items():
        pairs = layer.blocks.read(range(n)).cpu()
        for j, (name, sink) in enumerate((("kv_k", layer.sink_keys), ("kv_v", layer.sink_values))):
            ours = torch.cat((sink.cpu(), pairs[:, j].transpose(0, 1).flatten(1, 2)), 1)
            close(ours, case.array(name)[i], HIDDEN, name)


def close(ours: Tensor, published: Tensor, tolerance: float, name: str) -> None:
    assert ours.shape == published.shape, name
    difference: Any = (ours.float() - published.float()).abs().max() if ours.numel() else 0.0
    assert float(difference) <= tolerance, f"{name}: {float(difference):.1e}"
