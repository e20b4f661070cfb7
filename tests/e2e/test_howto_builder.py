"""The how-to page for a builder is typed as it stands; then its builder goes through the suite."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.support import conformance
from tests.support.builders import REPOSITORY
from tests.support.conformance import Chain
from tests.support.page import type_page
from tests.support.project import EDGECTL

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def told(home: Path) -> str:
    """What the page's commands print."""
    return type_page("how-to/builder.md", home).stdout


@pytest.fixture(scope="module")
def chain(told: str, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    assert told
    return Chain.of(home / "wine", "wine", "intel-nuc", tmp_path_factory.mktemp("chain"))


def test_it_works_as_it_is_written(told: str) -> None:
    for line in (
        "ready       lightgbm     imports lightgbm\n",
        "edgectl.yaml: valid (models: 1, ",
        "  + model wine:1.0.0             create  (not in the registry)\n",
        "Released cellar generation 1:\n",
        "No changes: the registry says what the manifests say.\n",
    ):
        assert line in told


def test_what_the_page_shows_is_what_is_printed(told: str) -> None:
    text = (REPOSITORY / "docs/how-to/builder.md").read_text(encoding="utf-8")
    shown = text.partition("```text\n  + model")[2].partition("```")[0]
    assert shown
    assert f"  + model{shown}" in told


def test_a_misspelt_format_is_told_as_the_page_says(told: str, home: Path, tmp_path: Path) -> None:
    assert told
    root = shutil.copytree(home / "wine", tmp_path / "wine")
    manifest = root / "wine.yaml"
    manifest.write_text(manifest.read_text().replace("format: lightgbm", "format: lightgmb"))
    done = subprocess.run(
        [EDGECTL, "validate"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    page = " ".join((REPOSITORY / "docs/how-to/builder.md").read_text(encoding="utf-8").split())
    said = next(line.strip() for line in done.stderr.splitlines() if "wine.yaml:" in line)
    assert said in page


def test_the_builder_conforms(chain: Chain, tmp_path: Path) -> None:
    step = chain.steps[0]
    builder = chain.builder(step)
    assert (builder.name, step.kind) == ("lightgbm", "import")
    result = chain.result(step)
    assert result.metadata["agreement"]["data"] == "evaluation"
    assert result.metadata["agreement"]["maxDifference"] < 1e-5
    conformance.check_progress(chain.progress[step.key])
    conformance.check_same_elsewhere(builder, chain.request(step), result, tmp_path)


def test_a_cancelled_import_ends(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = chain.steps[0]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    conformance.check_cancelled(chain.builder(step), chain.request(step, "cancelled"), tmp_path)


def test_the_builder_refuses_what_is_no_whole_model(chain: Chain, tmp_path: Path) -> None:
    step = chain.steps[0]
    request = chain.request(step, "bad")
    source = request.inputs["source"]
    pickled = tmp_path / "wine.pkl"
    pickled.write_bytes(pickle.dumps(["a booster"]))
    damaged = tmp_path / "damaged.txt"
    damaged.write_bytes(source.read_bytes().replace(b"num_leaves=", b"num_leaves=x"))
    (tmp_path / "half").mkdir()
    half = conformance.truncated(source, tmp_path / "half")
    for number, bad in enumerate((pickled, damaged, half)):
        conformance.refusal(
            chain.builder(step), chain.request(step, f"bad-{number}"), inputs={"source": bad}
        )


@pytest.mark.parametrize("part", ["inputs", "outputs"])
def test_the_builder_refuses_columns_that_the_model_has_not(chain: Chain, part: str) -> None:
    step = chain.steps[0]
    (declared,) = step.params[part]
    error = conformance.refusal(
        chain.builder(step),
        chain.request(step, f"columns-{part}"),
        params={part: [declared | {"shape": [-1, 7]}]},
    )
    assert declared["name"] in error.message
