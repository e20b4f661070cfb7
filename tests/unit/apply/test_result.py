"""Step results: found again if they are whole, of the step, and signed; made anew if not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from edgectl.apply.result import STEP_KEY, STEP_TYPE, load_result, save_artifact, save_files
from edgectl.oci.descriptor import EMPTY_CONFIG, Index, Manifest, parse_manifest
from edgectl.oci.layout import LayoutStore
from edgectl.plan.step import Step, StepKind
from edgectl.trust import signature
from edgectl.trust.attestation import attest
from edgectl.trust.keys import PrivateKey, generate

if TYPE_CHECKING:
    from pathlib import Path

    from edgectl.apply.result import StepResult
    from edgectl.oci.descriptor import Descriptor
    from edgectl.oci.layout import LayoutRepository

IMPORT = Step(StepKind.IMPORT, "a" * 64, "import x", "models/x")
INDEX = Step(StepKind.INDEX, "b" * 64, "index x", "models/x")


@dataclass(frozen=True)
class Cache:
    """A repository, and the key whose signatures it is believed with."""

    repository: LayoutRepository
    key: PrivateKey
    folder: Path

    def load(self, step: Step) -> StepResult | None:
        return load_result(self.repository, step, [self.key.public])

    def files(self, step: Step = IMPORT) -> StepResult:
        path = self.folder / "model.onnx"
        path.write_bytes(b"weights")
        return save_files(self.repository, step, {"model": path}, {"opset": 17})

    def artifact(self) -> Descriptor:
        self.repository.push_blob(EMPTY_CONFIG, b"{}")
        manifest = Manifest(EMPTY_CONFIG, ())
        return self.repository.push_manifest(manifest.to_bytes(), manifest.media_type)

    def sign(self, found: Descriptor, key: PrivateKey | None = None) -> None:
        signature.sign(self.repository, found, key or self.key)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(LayoutStore(tmp_path / "r").repository("models/x"), generate(), tmp_path)


def test_files_and_facts_come_back(cache: Cache) -> None:
    assert cache.load(IMPORT) is None
    saved = cache.files()
    cache.sign(saved.manifest)
    assert cache.load(IMPORT) == saved
    assert saved.metadata == {"opset": 17}
    assert b"".join(cache.repository.read_blob(saved.files["model"])) == b"weights"


def test_an_artifact_comes_back(cache: Cache) -> None:
    artifact = cache.artifact()
    cache.sign(save_artifact(cache.repository, INDEX, artifact))
    found = cache.load(INDEX)
    assert found is not None
    assert found.manifest.digest == artifact.digest


def test_what_nobody_or_somebody_else_signed_or_only_attested_is_not_taken(cache: Cache) -> None:
    saved = cache.files()
    assert cache.load(IMPORT) is None
    cache.sign(saved.manifest, generate())
    assert cache.load(IMPORT) is None
    attest(cache.repository, saved.manifest, "https://example.com/v1", {}, cache.key)
    assert cache.load(IMPORT) is None


def test_the_record_of_another_step_is_not_taken(cache: Cache) -> None:
    saved = cache.files()
    cache.sign(saved.manifest)
    cache.repository.tag(saved.manifest, INDEX.cache_tag)
    assert cache.load(INDEX) is None


def test_a_signed_artifact_is_no_record(cache: Cache) -> None:
    """Every artifact is signed: under a cache tag it would stand for any step."""
    artifact = cache.artifact()
    cache.sign(artifact)
    cache.repository.tag(artifact, INDEX.cache_tag)
    assert cache.load(INDEX) is None


@pytest.mark.parametrize("what", ["layer", "config"])
def test_a_record_of_which_a_file_is_gone_is_not_taken(cache: Cache, what: str) -> None:
    saved = cache.files()
    cache.sign(saved.manifest)
    record = parse_manifest(cache.repository.read_manifest(IMPORT.cache_tag)[1])
    assert isinstance(record, Manifest)
    gone = record.layers[0] if what == "layer" else record.config
    (cache.folder / "r/models/x/blobs/sha256" / gone.digest.hex).unlink()
    assert cache.load(IMPORT) is None


def test_a_record_whose_artifact_is_gone_is_not_taken(cache: Cache) -> None:
    artifact = cache.artifact()
    cache.sign(save_artifact(cache.repository, INDEX, artifact))
    cache.repository.delete(str(artifact.digest))
    assert cache.load(INDEX) is None


@pytest.mark.parametrize("config", [b"", b"[]", b"null", b"[" * 100_000, b'{"a": NaN'])
def test_a_malformed_record_is_not_taken(cache: Cache, config: bytes) -> None:
    described = type(EMPTY_CONFIG).of(config, STEP_TYPE)
    cache.repository.push_blob(described, config)
    record = Manifest(described, (), STEP_TYPE, annotations={STEP_KEY: IMPORT.key})
    cache.sign(
        cache.repository.push_manifest(record.to_bytes(), record.media_type, tag=IMPORT.cache_tag)
    )
    assert cache.load(IMPORT) is None


def test_a_record_over_no_artifact_is_not_taken(cache: Cache) -> None:
    record = Index((), STEP_TYPE, annotations={STEP_KEY: INDEX.key})
    cache.sign(
        cache.repository.push_manifest(record.to_bytes(), record.media_type, tag=INDEX.cache_tag)
    )
    assert cache.load(INDEX) is None
