"""`rekv models`, and what is said on the command line of a model that cannot be used."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import rekv
from rekv.models import ALIASES
from rekv.store.codecs import codec
from tests.cli.conftest import Run
from tests.models import families


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a Hub cache, both empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def listed(run: Run, *args: object) -> dict[str, Any]:
    done = run("models", "--json", *args)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def by_alias(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["alias"]: row for row in document["models"]}


def test_the_list(run: Run, here: Path) -> None:
    done = run("models")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:7]] == ["tiny", *ALIASES]
    # 18.8 and 4.0 GiB an hour are the published figures of the 7B and 0.5B models.
    assert lines[3].split() == "llava_ov_7b LlavaOnevision 196 18.8 GiB at 0.5 frames per second no".split()
    assert lines[2].split()[3:5] == ["4.04", "GiB"]
    assert "VideoLlava, LongVA, LlavaNextVideo, InternVL, SmolVLM" in done.stdout


def test_the_built_in_model_is_told_as_it_is(run: Run, here: Path) -> None:
    row = by_alias(listed(run))["tiny"]
    model = rekv.load()
    session = model.session()
    assert row["tokens_per_frame"] == model.family.tokens_per_frame
    assert row["sample_fps"] == model.family.encode_config.sample_fps
    assert row["bytes_per_hour"] == session.memory.bytes_per_frame * row["sample_fps"] * 3600
    assert row["architecture"] == type(model.family.hf).__name__


def test_an_hour_at_other_settings(run: Run, here: Path) -> None:
    plain = by_alias(listed(run))["llava_ov_7b"]["bytes_per_hour"]
    assert by_alias(listed(run, "--dtype", "float32"))["llava_ov_7b"]["bytes_per_hour"] == 2 * plain
    assert by_alias(listed(run, "--sample-fps", "2"))["llava_ov_7b"]["bytes_per_hour"] == 4 * plain
    packed = by_alias(listed(run, "--kv", "int4"))["llava_ov_7b"]["bytes_per_hour"]
    assert packed == codec("int4", (4, 196, 128), torch.bfloat16).nbytes * 28 * 1800
    assert 0.25 < packed / plain < 0.35


def test_what_lies_here(run: Run, here: Path) -> None:
    def put(repo: str, build: families.Build) -> None:
        folder = here / "cache" / f"models--{repo.replace('/', '--')}"
        snapshot = folder / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        build(snapshot)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0" * 40)

    put(ALIASES["video_llava_7b"], families.video_llava)
    put("somebody/smol", families.smolvlm)
    put("somebody/text", lambda folder: hf.Qwen2Config(architectures=["Qwen2ForCausalLM"]).save_pretrained(folder))
    (here / "model_zoo" / "LongVA-7B").mkdir(parents=True)
    document = listed(run)
    places = {alias: row["place"] for alias, row in by_alias(document).items()}
    assert places == {
        "tiny": "built in",
        "llava_ov_0.5b": None,
        "llava_ov_7b": None,
        "llava_ov_72b": None,
        "video_llava_7b": "in the Hub's cache",
        "longva_7b": "model_zoo/LongVA-7B",
    }
    assert document["cache"] == {
        "folder": str(here / "cache"),
        "models": [ALIASES["video_llava_7b"], "somebody/smol"],
    }
    assert "besides: somebody/smol." in run("models").stdout


def test_listing_does_not_import_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from rekv.cli import main\n"
        "assert CliRunner().invoke(main, ['models', '--json']).exit_code == 0\n"
        "assert not {'torch', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# -- models that cannot be used ------------------------------------------------------------------------------------


def refused(run: Run, film: Path, model: object) -> str:
    """What `rekv ask` says: one paragraph, no traceback."""
    done = run("ask", film, "What is it?", "--model", model, "--device", "cpu")
    assert done.exit_code == 1
    assert done.stdout == ""
    message = done.stderr[done.stderr.index("Error: ") :].strip()
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def test_an_unknown_alias(run: Run, film: Path, here: Path) -> None:
    message = refused(run, film, "llava_ov_8b")
    assert "there is no model 'llava_ov_8b'; did you mean llava_ov_7b?" in message
    assert "local folder" in message


def test_a_wrong_local_folder(run: Run, film: Path, here: Path) -> None:
    assert "there is no folder ./nowhere" in refused(run, film, "./nowhere")
    (here / "empty").mkdir()
    assert "no config.json that describes a model" in refused(run, film, "./empty")


def test_a_checkpoint_with_missing_weights(run: Run, film: Path, here: Path) -> None:
    folder = here / "llava"
    folder.mkdir()
    families.video_llava(folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 4
    (folder / "config.json").write_text(json.dumps(config))
    assert "9 missing (such as model.language_model.layers.3." in (message := refused(run, film, "./llava"))
    assert "Fetch its files again" in message
    (folder / "model.safetensors").unlink()
    assert "cannot be loaded" in refused(run, film, "./llava")
    shutil.rmtree(folder)


def test_a_model_of_text_alone(run: Run, film: Path, here: Path) -> None:
    hf.Qwen2Config(architectures=["Qwen2ForCausalLM"]).save_pretrained(here / "text")
    assert "a model of text alone" in refused(run, film, "./text")


def test_a_decoder_that_the_method_does_not_apply_to(run: Run, film: Path, here: Path) -> None:
    parts = families.text("qwen3_5_text", num_hidden_layers=4, head_dim=16)
    config = hf.Qwen3_5Config(text_config=parts, architectures=["Qwen3_5ForConditionalGeneration"])
    config.save_pretrained(here / "hybrid")
    assert "3 of the 4 layers of its decoder are linear attention" in refused(run, film, "./hybrid")
