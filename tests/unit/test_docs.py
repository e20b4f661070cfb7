"""The documentation is tested: commands exist, manifests are valid, tables are whole."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

from edgectl.agent.config import load
from edgectl.cli.root import root
from edgectl.manifest.fleet import Fleet
from edgectl.manifest.model import Model
from edgectl.manifest.project import Project
from edgectl.manifest.target import Target

if TYPE_CHECKING:
    from edgectl.manifest.base import Manifest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {*(ROOT / "docs/reference").rglob("*")}
)
KINDS: dict[str, type[Manifest]] = {
    "Project": Project,
    "Model": Model,
    "Target": Target,
    "Fleet": Fleet,
}
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
SCHEMAS = {
    **dict.fromkeys(WORKFLOWS, "vendor.github-workflows"),
    **dict.fromkeys(sorted(GITHUB.glob("ISSUE_TEMPLATE/*.yml")), "vendor.github-issue-forms"),
    GITHUB / "dependabot.yml": "vendor.dependabot",
}


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 2
            found.append(Block(page, line, match[1], match[2]))
    return [block for block in found if block.language in languages]


def commands() -> list[tuple[str, list[str]]]:
    """Every line of the `bash` blocks, with where it is; its comment removed."""
    lines = [
        (f"{block.page.relative_to(ROOT)}:{block.line + number}", line)
        for block in blocks("bash")
        for number, line in enumerate(block.text.splitlines())
    ]
    return [(where, words) for where, line in lines if (words := shlex.split(line, comments=True))]


def manifests() -> list[Block]:
    return [block for block in blocks("yaml") if block.text.startswith("apiVersion: edgectl.dev/")]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("where", "words"), [pytest.param(*c, id=c[0]) for c in commands()])
def test_a_command_in_the_documentation_exists(
    where: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *arguments = words
    if program == "make":
        assert {word for word in arguments if "=" not in word} <= make_targets()
        return
    assert program == "edgectl", f"{where}: a `bash` block holds only edgectl and make"
    here = tmp_path / "repo"  # what is beside it is this test's own too
    here.mkdir()
    monkeypatch.chdir(here)
    for file in (Path(word) for word in arguments):
        if file.suffix in {".json", ".key", ".pem", ".pub", ".txt", ".yaml"}:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    parse(root, "edgectl", arguments)


def parse(command: click.Command, name: str, arguments: list[str]) -> None:
    """Parse a command line down to its leaf, as running it would; UsageError if it is wrong."""
    if "--help" in arguments:
        arguments = [word for word in arguments if word != "--help"]
        for word in arguments:
            assert isinstance(command, click.Group), f"{name} has no sub-command {word}"
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"{name} has no sub-command {word}"
            command, name = found, word
        return
    context = command.make_context(name, list(arguments), resilient_parsing=False)
    if isinstance(command, click.Group):
        sub, found, rest = command.resolve_command(context, context._protected_args + context.args)
        assert found is not None
        assert sub is not None
        parse(found, sub, rest)


@pytest.mark.parametrize("block", manifests(), ids=str)
def test_a_manifest_in_the_documentation_is_valid(block: Block) -> None:
    for document in yaml.safe_load_all(block.text):
        KINDS[document["kind"]].model_validate(document)


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_in_the_documentation_parses(block: Block) -> None:
    assert list(yaml.safe_load_all(block.text))
    whole = block.text.startswith(("apiVersion: ", "# /etc/edgectl/device.yaml"))
    assert whole or block.text.startswith("# part of "), "say which file it is a part of"


def test_the_device_configuration_in_the_documentation_is_valid(tmp_path: Path) -> None:
    (block,) = (b for b in blocks("yaml") if b.text.startswith("# /etc/edgectl/device.yaml"))
    (tmp_path / "device.yaml").write_text(block.text)
    (tmp_path / "root.json").touch()
    (tmp_path / "cosign.pub").touch()
    (tmp_path / "samples/digits").mkdir(parents=True)
    config = load(tmp_path / "device.yaml")
    assert (config.device, config.fleet) == ("nuc-01", "shopfloor")


def test_every_page_says_what_it_is() -> None:
    headless = [page for page in PAGES if not page.read_text(encoding="utf-8").startswith("# ")]
    assert not headless


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_outside_the_site_lead_somewhere(page: Path) -> None:
    """mkdocs checks the links below docs/; these are those of the repository's front pages."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert not [link for link in local if not (page.parent / link).exists()]


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_what_github_reads_follows_its_schema(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[path], path]
    result = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_take_only_what_is_pinned_and_little_power(path: Path) -> None:
    workflow: dict[str, Any] = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            assert re.search(r"@[0-9a-f]{40}$", step.get("uses", "@" + "0" * 40))
            for word in re.findall(r"^make ([a-z-]+)", step.get("run", ""), re.MULTILINE):
                assert word in make_targets()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", built]
    result = subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # as in the Makefile: strict means warnings
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return built


def test_the_site_needs_nothing_from_elsewhere(site: Path) -> None:
    """A page that loads a script, a style or a font from another host fails behind an air gap."""
    foreign = re.compile(r"<(?:script|img|iframe)[^>]+src=\"?https?:|<link[^>]+href=\"?https?:")
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs/adr").glob("0*.md")))
    assert not [page for page in pages if foreign.search(page.read_text(encoding="utf-8"))]
