"""A policy that another package brings: the one of the documentation."""

import re
import sys
from pathlib import Path

import pytest
import torch

from rekv.errors import ConfigError
from rekv.memory.policies import find, names
from tests.support import pictures, tiny_model

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test has imported is not the next one's package."""
    for name in ("my_package", "my_package.pairs"):
        monkeypatch.setitem(sys.modules, name, None)  # to be as it was afterwards
        del sys.modules[name]


def install(site: Path, code: str, point: str) -> None:
    """What pip leaves of a package with this entry point."""
    (site / "my_package").mkdir()
    (site / "my_package" / "__init__.py").touch()
    (site / "my_package" / "pairs.py").write_text(code)
    info = site / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rekv.policies]\n{point}\n")


def test_the_policy_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(\"\"\".+?)```", PAGE, re.DOTALL)
    point = re.search(r'\[project\.entry-points\."rekv\.policies"\]\n(\w+) = "(.+?)"', PAGE)
    assert code
    assert point
    assert len(code[1].splitlines()) < 100
    install(tmp_path, code[1], f"{point[1]} = {point[2]}")
    monkeypatch.syspath_prepend(tmp_path)
    assert "pairs" in names()
    model = tiny_model(tokens_per_frame=7)
    session = model.session(policy="pairs", n_local=40, sample_fps=1.0)
    plain = model.session(n_local=40, sample_fps=1.0)
    for one in (session, plain):
        one.append(pictures(12))
    for layer, twin in zip(session.memory.layers.values(), plain.memory.layers.values(), strict=True):
        assert layer.kept is not None
        block = twin.blocks.read([5])[0]
        padded = torch.cat((block, block[:, :, -1:]), 2)
        assert torch.equal(layer.kept.read([5])[0], (padded[:, :, 0::2] + padded[:, :, 1::2]) / 2)
    session.ask("w3 w4", retrieve_size=4)


def test_a_package_that_is_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "Pairs = int", "broken = my_package.pairs:Pairs\nlost = my_package.pairs:Lost")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="'broken' is not a subclass of"):
        find("broken")
    with pytest.raises(ConfigError, match=r"'lost' cannot be imported \(AttributeError"):
        find("lost")
