"""A family that another package brings: an installed distribution with an entry point, in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import rekv
from rekv.errors import ModelError
from rekv.models import registry
from tests.models import families
from tests.models.conftest import Edit

FAMILY = '''
"""The whole of a family."""

import torch
from rekv.models import VideoLM
from transformers import LlavaOnevisionForConditionalGeneration


class Toy(VideoLM):
    architectures = ("ToyForConditionalGeneration",)
    init_prompt = "the system"
    tokens_per_frame = 4

    @classmethod
    def load_hf(cls, source, architecture, **options):
        return LlavaOnevisionForConditionalGeneration.from_pretrained(source, **options)

    def prompt(self, question):
        return f"user {question} assistant"

    def frame_features(self, pixels):
        features = self.hf.model.get_video_features(pixels[None]).pooler_output[0]
        return features[: len(pixels) * 4].reshape(len(pixels), 4, -1)
'''
USE = """
import sys
import numpy as np
import rekv
from rekv.models.registry import families

assert families()["ToyForConditionalGeneration"] == "Toy"
assert "toy_family" not in sys.modules, "imported before it is needed"
model = rekv.load(sys.argv[1], device="cpu")
assert type(model.family).__module__ == "toy_family"
session = model.session()
rng = np.random.default_rng(0)
session.append(rekv.Frame(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8), float(i)) for i in range(5))
answer = session.ask("where is the ball", retrieve_size=2, max_new_tokens=3)
assert all(len(frames) == 2 for frames in answer.retrieval.frames)
print(type(model.family).__name__, len(answer.token_ids))
"""


def install(site: Path, entry: str, architecture: str = "ToyForConditionalGeneration", code: str = FAMILY) -> None:
    """What pip leaves of a package with this entry point."""
    module = "toy_family" if code is FAMILY else entry.partition(":")[0]
    (site / f"{module}.py").write_text(code)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rekv.models]\n{architecture} = {entry}\n")


def test_an_installed_package_adds_a_family(checkpoint: Path, edit: Edit, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "toy_family:Toy")
    edit("config.json", architectures=["ToyForConditionalGeneration"])
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{USE}"
    done = subprocess.run(
        [sys.executable, "-c", code, checkpoint], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Toy ")


def test_the_family_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code and its entry point, for a checkpoint that its lines are right for."""
    page = (Path(__file__).parents[2] / "docs" / "adding-a-model.md").read_text()
    page = page.replace("MyModelForConditionalGeneration", "InternVLForConditionalGeneration")
    code = re.search(r"```python\n(.+?)```", page, re.DOTALL)
    point = re.search(r'\[project\.entry-points\."rekv\.models"\]\n(\w+) = "(.+?)"', page)
    assert code
    assert point
    install(tmp_path, point[2], point[1], code[1])
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    families.internvl(checkpoint)
    monkeypatch.syspath_prepend(tmp_path)
    expected = rekv.load(checkpoint, device="cpu")
    monkeypatch.delitem(registry._FAMILIES, point[1])
    found = rekv.load(checkpoint, device="cpu")
    assert type(found.family).__name__ == "MyFamily"
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    ours, theirs = (model.family.frame_inputs([frame], [3.0]) for model in (found, expected))
    assert ours.shape[1] == found.family.tokens_per_frame
    assert torch.equal(ours, theirs)
    assert found.family.prompt("Q") == expected.family.prompt("Q")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("toy_family:Tou", r"toy_family:Tou of toy-family cannot be imported \(AttributeError"),
        ("no_such_module:Toy", r"cannot be imported \(ModuleNotFoundError"),
        ("toy_family:torch", "not a subclass of rekv.models.VideoLM"),
    ],
)
def test_a_package_that_is_broken_is_named(
    entry: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, entry)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_family", raising=False)
    with pytest.raises(ModelError, match=message):
        registry.find_family(["ToyForConditionalGeneration"])
    monkeypatch.delitem(sys.modules, "toy_family", raising=False)


def test_what_is_built_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "toy_family:Toy", "LlavaOnevisionForConditionalGeneration")
    monkeypatch.syspath_prepend(tmp_path)
    found = registry.find_family(["LlavaOnevisionForConditionalGeneration"])
    assert found is not None
    assert found[1].__module__ == "rekv.models.llava_onevision"
