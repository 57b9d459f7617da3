"""A policy that another package brings: the one of the documentation."""

import re
from pathlib import Path

import pytest
import torch

from rekv.errors import ConfigError
from rekv.memory.policies import find, names
from tests.support import install, pictures, tiny_model

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()


def test_the_policy_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(\"\"\".+?)```", PAGE, re.DOTALL)
    point = re.search(r'\[project\.entry-points\."rekv\.policies"\]\n(\w+) = "(.+?)"', PAGE)
    assert code
    assert point
    assert len(code[1].splitlines()) < 100
    install(tmp_path, "pairs", code[1], "rekv.policies", f"{point[1]} = {point[2]}", monkeypatch)
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
    points = "broken = my_package.pairs:Pairs\nlost = my_package.pairs:Lost"
    install(tmp_path, "pairs", "Pairs = int", "rekv.policies", points, monkeypatch)
    with pytest.raises(ConfigError, match=r"'broken', my_package\.pairs:Pairs, is not a subclass of Policy"):
        find("broken")
    with pytest.raises(ConfigError, match=r"'lost' cannot be imported from my_package\.pairs:Lost \(AttributeError"):
        find("lost")
