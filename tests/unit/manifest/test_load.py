from __future__ import annotations

from pathlib import Path

import pytest

from edgectl.manifest.formats import SourceFormats
from edgectl.manifest.load import load_project
from edgectl.manifest.problem import ManifestErrors
from edgectl.manifest.profiles import profile_files
from edgectl.manifest.yaml import MAX_PROBLEMS
from tests.unit.manifest.projects import BASE_MODEL, PROJECT, make_project

FLEET = """\
apiVersion: edgectl.dev/v1alpha1
kind: Fleet
metadata: {name: shopfloor}
spec:
  targets: [intel-nuc]
  models: [{name: base}]
  rings: [{name: stable}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_project(tmp_path / "project"))
    return Path()


FORMATS = SourceFormats(
    frozenset({"onnx", "tensorflow", "openvino"}),
    frozenset({"tensorflow"}),
    {
        "onnx": frozenset({"onnxruntime", "openvino"}),
        "tensorflow": frozenset({"onnxruntime", "openvino"}),
        "openvino": frozenset({"openvino"}),
    },
)


def problems(root: Path, formats: SourceFormats | None = None) -> list[str]:
    with pytest.raises(ManifestErrors) as caught:
        load_project(root, formats)
    assert caught.value.exit_code == 3
    assert caught.value.hint
    said = [str(problem) for problem in caught.value.problems]
    assert all(line in caught.value.message for line in said)
    return said


def test_a_project_has_its_manifests_and_the_shipped_profiles_of_its_fleets(project: Path) -> None:
    shipped = {path.stem for path in profile_files()}
    (project / "fleet.yaml").write_text(FLEET.replace("[intel-nuc]", f"[{', '.join(shipped)}]"))
    manifests = load_project(project)
    assert set(manifests.models) == {("base", "1.0.0")}
    assert set(manifests.targets) == shipped
    (project / "fleet.yaml").write_text(FLEET)
    assert set(load_project(project).targets) == {"intel-nuc"}
    assert manifests.project.registry.base == "registry"
    model = manifests.models["base", "1.0.0"]
    assert str(model.origin) == "base.yaml:1"
    assert model.path(model.spec.golden.path) == Path("data/golden.npz")


def test_a_root_elsewhere_is_kept_in_every_path(project: Path, tmp_path: Path) -> None:
    manifests = load_project(tmp_path / "project")
    assert manifests.project.registry.base == str(tmp_path / "project/registry")
    assert manifests.models["base", "1.0.0"].origin.path == tmp_path / "project/base.yaml"


def test_a_root_may_be_written_in_a_roundabout_way(project: Path) -> None:
    (project / "data/edgectl.yaml").touch()
    assert len(load_project(Path("data/..")).models) == 1
    assert len(load_project(Path("../project")).models) == 1


def test_defaults_are_parsed_like_values(project: Path) -> None:
    expiry = load_project(project).project.spec.trust.expiry
    day = 86400.0
    assert (expiry.root, expiry.targets) == (365 * day, 90 * day)
    assert (expiry.snapshot, expiry.timestamp) == (7 * day, day)


def test_manifests_cannot_be_changed(project: Path) -> None:
    model = load_project(project).models["base", "1.0.0"]
    with pytest.raises(ValueError, match="frozen"):
        model.spec.version = "2.0.0"


def test_a_target_of_the_project_takes_the_place_of_the_shipped_one(project: Path) -> None:
    shipped = next(path for path in profile_files() if path.stem == "intel-nuc")
    (project / "nuc.yaml").write_text(shipped.read_text().replace("16Gi", "32Gi"))
    manifests = load_project(project)
    assert manifests.targets["intel-nuc"].spec.memory == 32 << 30
    assert manifests.targets["intel-nuc"].origin.path == Path("nuc.yaml")


def test_the_newest_version_is_what_a_fleet_without_one_gets(project: Path) -> None:
    for version in ("1.10.0", "1.9.0", "1.10.0-rc.2"):
        text = BASE_MODEL.replace("version: 1.0.0", f"version: {version}")
        (project / f"base-{version}.yaml").write_text(text)
    (project / "fleet.yaml").write_text(FLEET)
    manifests = load_project(project)
    (reference,) = manifests.fleets["shopfloor"].spec.models
    assert manifests.model(reference).version == "1.10.0"


def test_problems_of_all_files_are_told_in_one_run_in_order(project: Path) -> None:
    (project / "edgectl.yaml").write_text(PROJECT.replace("registry:", "registy:"))
    (project / "b.yaml").write_text("a: [\n")
    (project / "a.yaml").write_text(FLEET.replace("intel-nuc", "intel-nux"))
    assert problems(project) == [
        "a.yaml:5:13: spec.targets[0]: there is no Target 'intel-nux' (did you mean 'intel-nuc'?)",
        "b.yaml:1:5: not YAML: while parsing a flow node, did not find expected node content",
        "edgectl.yaml:4:8: spec.registy: unknown field (did you mean 'registry'?)",
    ]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("nuc", "did you mean 'intel-nuc', 'intel-nuc-igpu' or 'intel-nuc-openvino'?"),
        ("raspberry-pi", "did you mean 'raspberry-pi-4' or 'raspberry-pi-5'?"),
        ("intel-nux", "did you mean 'intel-nuc'?"),
    ],
)
def test_a_target_is_found_by_a_part_of_its_name(project: Path, wrong: str, meant: str) -> None:
    (project / "fleet.yaml").write_text(FLEET.replace("intel-nuc", wrong))
    (line,) = problems(project)
    assert line.endswith(f"there is no Target {wrong!r} ({meant})")


def test_a_reference_to_an_invalid_manifest_is_no_second_problem(project: Path) -> None:
    (project / "base.yaml").write_text(BASE_MODEL.replace("FP32", "float32"))
    (project / "fleet.yaml").write_text(
        FLEET.replace("{name: base}", "{name: base, version: 1.0.0}")
    )
    assert {line.partition(":")[0] for line in problems(project)} == {"base.yaml"}


def test_a_reference_to_a_manifest_of_an_unknown_kind_is_no_second_problem(project: Path) -> None:
    (project / "base.yaml").write_text(BASE_MODEL.replace("kind: Model", "kind: Modle"))
    (project / "fleet.yaml").write_text(FLEET)
    (said,) = problems(project)
    assert said.startswith("base.yaml:2:7: kind: 'Modle' is not one")


def test_a_name_that_may_be_in_a_broken_file_is_said_to_be(project: Path) -> None:
    (project / "base.yaml").write_text(BASE_MODEL.replace("  version", "\tversion"))
    (project / "fleet.yaml").write_text(FLEET)
    assert problems(project) == [
        "base.yaml:5:1: YAML does not allow tabs here (indent with spaces)",
        (
            "fleet.yaml:6:19: spec.models[0].name: there is no Model 'base', or it is in a file "
            "that cannot be read"
        ),
    ]


def test_what_does_not_run_on_a_target_is_told_once_for_all_targets(project: Path) -> None:
    (project / "base.yaml").write_text(
        BASE_MODEL.replace("format: onnx", "format: openvino") + "  optimize: {precision: int4}\n"
    )
    (project / "fleet.yaml").write_text(FLEET.replace("[intel-nuc]", "[intel-nuc, raspberry-pi-5]"))
    assert problems(project, FORMATS) == [
        (
            "base.yaml:7:20: spec.source.format: openvino runs on openvino alone and is not "
            "translated; Targets 'intel-nuc', 'raspberry-pi-5' have onnxruntime (put it into a "
            "fleet whose targets have openvino, or give the model in the format that it was "
            "trained in)"
        ),
        (
            "base.yaml:12:25: spec.optimize.precision: Targets 'intel-nuc', 'raspberry-pi-5' have "
            "no precision 'int4' (known: fp32, int8)"
        ),
    ]


def test_a_document_with_very_many_wrong_fields_is_given_up(project: Path) -> None:
    fields = "".join(f"  unknown{number}: 1\n" for number in range(150))
    (project / "base.yaml").write_text(BASE_MODEL.replace("onnx, path", "caffe, path") + fields)
    said = problems(project, FORMATS)
    assert len(said) == MAX_PROBLEMS + 1
    assert said[0] == "base.yaml:1:1: has 50 more problems"


def test_two_manifests_of_one_identity_name_both_places(project: Path) -> None:
    (project / "a.yaml").write_text("\n" + BASE_MODEL)
    (project / "b.yaml").write_text(BASE_MODEL.replace("version: 1.0.0", "version: 2.0.0"))
    assert problems(project) == [
        "base.yaml:3:18: metadata.name: Model 'base' version '1.0.0' is already defined at a.yaml:2"
    ]


def test_only_directories_of_manifests_are_searched(project: Path) -> None:
    for name in (".github", "builders", "templates", "docs/.hidden"):
        (project / name).mkdir(parents=True)
        (project / name / "other.yaml").write_text("not: ours\n")
    (project / "data/builders").mkdir()
    (project / "data/builders/found.yml").write_text("not: ours\n")
    (project / "data/.hidden.yaml").write_text("not: ours\n")
    (project / "registry/models/digits").mkdir(parents=True)
    (project / "registry/models/digits/oci-layout").touch()
    (project / "registry/models/digits/other.yaml").write_text("not: ours\n")
    (project / "data/notes.txt").write_text("not: ours\n")
    (line,) = problems(project)
    assert line.startswith("data/builders/found.yml:1:1: apiVersion: is missing")


def test_named_directories_are_searched_once_and_must_be_there(project: Path) -> None:
    (project / "models").mkdir()
    (project / "base.yaml").rename(project / "models/base.yaml")
    (project / "models/base.yaml").write_text(BASE_MODEL.replace("data/", "../data/"))
    wanted = "  registry: localhost:5000/edge\n  manifests: [models, ./models, modles, ..]"
    head, _, _ = PROJECT.partition("spec:")
    (project / "edgectl.yaml").write_text(f"{head}spec:\n{wanted}\n")
    assert problems(project) == [
        "edgectl.yaml:6:33: spec.manifests[2]: there is no directory modles",
        "edgectl.yaml:6:41: spec.manifests[3]: leads out of the project",
    ]


@pytest.mark.parametrize(
    ("wrong", "suggestion"),
    [("tensorflw", "did you mean 'tensorflow'?"), ("caffe", "known: onnx, openvino, tensorflow")],
)
def test_a_format_that_no_builder_reads(project: Path, wrong: str, suggestion: str) -> None:
    (project / "base.yaml").write_text(BASE_MODEL.replace("format: onnx", f"format: {wrong}"))
    assert problems(project, FORMATS) == [
        f"base.yaml:7:20: spec.source.format: no builder reads the format {wrong!r} ({suggestion})"
    ]
    assert len(load_project(project).models) == 1, "without builders nothing can be said of it"


def test_a_directory_is_refused_for_a_format_that_is_a_file(project: Path) -> None:
    (project / "data/model.onnx").unlink()
    (project / "data/model.onnx").mkdir()
    (line,) = problems(project, FORMATS)
    assert line.startswith("base.yaml:7:32: spec.source.path: data/model.onnx is a directory, and ")
    (project / "base.yaml").write_text(BASE_MODEL.replace("format: onnx", "format: tensorflow"))
    assert len(load_project(project, FORMATS).models) == 1


def test_a_symbolic_link_does_not_lead_out_of_the_project(project: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.npz").touch()
    (project / "data/golden.npz").unlink()
    (project / "data/golden.npz").symlink_to(tmp_path / "secret.npz")
    (line,) = problems(project)
    assert "spec.golden.path: 'data/golden.npz' leads out of the project" in line


def test_a_neighbour_whose_name_begins_alike_is_outside(project: Path, tmp_path: Path) -> None:
    (tmp_path / "project-two").mkdir()
    (tmp_path / "project-two/golden.npz").touch()
    text = BASE_MODEL.replace("data/golden", "../project-two/golden")
    (project / "base.yaml").write_text(text)
    (line,) = problems(project)
    assert "leads out of the project" in line


def test_a_linked_manifest_directory_is_not_followed(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/bad.yaml").write_text("a: [")
    (project / "link").symlink_to(tmp_path / "elsewhere")
    assert len(load_project(project).models) == 1


def test_without_a_project_file_there_is_one_problem(tmp_path: Path) -> None:
    (line,) = problems(tmp_path)
    assert line.startswith(f"{tmp_path}/edgectl.yaml:1:1: there is no such file (run edgectl ")


def test_the_project_file_must_hold_a_project(project: Path) -> None:
    (project / "edgectl.yaml").write_text("# nothing\n")
    assert problems(project) == ["edgectl.yaml:1:1: has no document of kind Project"]


def test_the_wheel_carries_the_profiles_and_a_checkout_has_them_beside(tmp_path: Path) -> None:
    package = tmp_path / "edgectl"
    beside = tmp_path / "manifests/targets"
    assert profile_files(package) == []
    beside.mkdir(parents=True)
    (beside / "b.yaml").touch()
    assert profile_files(package) == [beside / "b.yaml"]
    (package / "_targets").mkdir(parents=True)
    (package / "_targets/a.yaml").touch()
    assert profile_files(package) == [package / "_targets/a.yaml"]


def test_each_profile_is_in_the_file_of_its_name() -> None:
    root = Path(__file__).parents[3] / "manifests"
    targets = load_project(root).targets
    assert len(targets) >= 17
    assert {target.origin.path.stem: name for name, target in targets.items()} == {
        name: name for name in targets
    }
    families = {target.spec.family for target in targets.values()}
    assert families == {
        "jetson", "intel-nuc", "raspberry-pi", "android", "ios", "cortex-m", "esp32", "arduino",
        "server",
    }  # fmt: skip
