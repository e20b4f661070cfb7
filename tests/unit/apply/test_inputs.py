"""Inputs: fetched once, verified, bounded, with no credential for a host it is not for."""

from __future__ import annotations

import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from edgectl.apply.inputs import MAX_SOURCE_BYTES, Inputs
from edgectl.build.process import CancelledError
from edgectl.desired import PinnedFile
from edgectl.digest import Digest
from edgectl.errors import EdgectlError, RegistryUnavailableError, SourceError
from edgectl.oci.access import Access, open_store
from edgectl.oci.descriptor import EMPTY_CONFIG, Descriptor, Manifest
from edgectl.oci.layout import LayoutStore
from edgectl.oci.reference import RegistryLocation
from tests.support.tls import make_certificates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.registry import Registry

DATA = b"a model" * 1000
HERE = RegistryLocation("/nowhere", is_layout=True)


@dataclass
class Web:
    """A web server: path to how it answers, and the headers of the requests it got."""

    url: str = ""
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    requests: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(context: ssl.SSLContext | None) -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.requests.append({"path": self.path, **dict(self.headers)})
            web.answers[self.path.partition("?")[0]](self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Tests read what was asked for, not logs."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    web.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """An HTTPS server whose CA is trusted as an administrator has it trusted."""
    certificates = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.ca))
    with serving(context) as running:
        yield running


def answer(data: bytes, status: int = 200, **headers: str) -> Callable[..., None]:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return send


def remote(url: str, data: bytes = DATA) -> PinnedFile:
    return PinnedFile(Digest.of(data), remote=url)


def make(
    work: Path,
    access: Access | None = None,
    *,
    registry: RegistryLocation = HERE,
    cancel: threading.Event | None = None,
    limit: int = MAX_SOURCE_BYTES,
) -> Inputs:
    folder = work / "work"
    folder.mkdir(exist_ok=True)
    return Inputs(
        folder, registry, access or Access(), cancel=cancel or threading.Event(), limit=limit
    )


def test_a_url_is_fetched_once_however_many_ask(web: Web, tmp_path: Path) -> None:
    web.answers["/m.onnx"] = answer(DATA)
    inputs = make(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(inputs.pinned, [remote(f"{web.url}/m.onnx")] * 8))
    assert [path.read_bytes() for path in paths] == [DATA]
    assert len(web.requests) == 1


def test_a_redirect_within_tls_is_followed_and_one_out_of_it_is_not(
    web: Web, tmp_path: Path
) -> None:
    web.answers["/m.onnx"] = answer(DATA)
    web.answers["/moved"] = answer(b"", 302, Location="/m.onnx")
    assert make(tmp_path).pinned(remote(f"{web.url}/moved")).read_bytes() == DATA
    with serving(None) as plain:
        plain.answers["/m.onnx"] = answer(DATA)
        web.answers["/down"] = answer(b"", 302, Location=f"{plain.url}/m.onnx")
        with pytest.raises(EdgectlError, match="redirected from TLS to http"):
            make(tmp_path).pinned(remote(f"{web.url}/down", b"other"))
        assert not plain.requests


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (404, SourceError, "404"),
        (403, SourceError, "403"),
        (503, RegistryUnavailableError, "503"),
    ],
)
def test_what_is_not_to_be_had_is_a_clear_error(
    web: Web, tmp_path: Path, status: int, error: type[EdgectlError], words: str
) -> None:
    web.answers["/m.onnx"] = answer(b"no", status)
    with pytest.raises(error, match=words) as caught:
        make(tmp_path).pinned(remote(f"{web.url}/m.onnx?signature=secret"))
    assert caught.value.hint
    assert "secret" not in caught.value.message
    assert not list((tmp_path / "work").glob("source-*"))


def test_another_sha256_is_refused_and_nothing_of_it_used(web: Web, tmp_path: Path) -> None:
    web.answers["/m.onnx"] = answer(b"something else")
    with pytest.raises(SourceError, match=r"has sha256 .* declares"):
        make(tmp_path).pinned(remote(f"{web.url}/m.onnx?signature=secret"))
    assert not (tmp_path / "work" / f"source-{Digest.of(DATA).hex}").exists()


def test_more_than_a_model_can_have_is_refused_while_it_comes(web: Web, tmp_path: Path) -> None:
    web.answers["/m.onnx"] = answer(DATA)
    with pytest.raises(SourceError, match="larger than 6999 bytes"):
        make(tmp_path, limit=len(DATA) - 1).pinned(remote(f"{web.url}/m.onnx"))


def test_a_server_that_stops_in_the_middle_is_said(web: Web, tmp_path: Path) -> None:
    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:10])
        handler.close_connection = True

    web.answers["/m.onnx"] = half
    with pytest.raises(EdgectlError) as caught:
        make(tmp_path).pinned(remote(f"{web.url}/m.onnx"))
    assert isinstance(caught.value, SourceError | RegistryUnavailableError)


def test_a_certificate_that_nobody_trusts_is_refused(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(RegistryUnavailableError, match="certificate is not trusted"):
        make(tmp_path).pinned(remote(f"{web.url}/m.onnx"))


def test_cancelling_ends_a_download(web: Web, tmp_path: Path) -> None:
    cancel = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not cancel.is_set():
                handler.wfile.write(DATA)
                cancel.set()
            while True:
                handler.wfile.write(DATA)
        except OSError:
            handler.close_connection = True

    web.answers["/m.onnx"] = endless
    with pytest.raises(CancelledError):
        make(tmp_path, cancel=cancel).pinned(remote(f"{web.url}/m.onnx"))


def test_a_registrys_credentials_go_to_no_other_host(web: Web, tmp_path: Path) -> None:
    challenge = answer(b"", 401, WWW_Authenticate='Basic realm="elsewhere"')
    web.answers["/m.onnx"] = challenge
    host = web.url.removeprefix("https://")
    artifact = f"{host}/models/digits@{Digest.of(DATA)}"
    web.answers[f"/v2/models/digits/manifests/{Digest.of(DATA)}"] = challenge
    empty = tmp_path / "docker.json"
    empty.write_text("{}")
    access = Access(username="me", password="secret", docker_config=empty)
    inputs = make(tmp_path, access, registry=RegistryLocation("registry.invalid"))
    for place in (f"{web.url}/m.onnx", artifact):
        with pytest.raises(EdgectlError):
            inputs.pinned(remote(place))
    assert len(web.requests) == 2
    assert not any("Authorization" in request for request in web.requests)


def _artifact(directory: Path, *files: bytes, titles: tuple[str, ...] = ()) -> str:
    """Push an artifact; returns a reference with its digest."""
    repository = LayoutStore(directory).repository("models/raw")
    repository.push_blob(EMPTY_CONFIG, b"{}")
    layers = tuple(
        Descriptor.of(
            data,
            "application/octet-stream",
            annotations={"org.opencontainers.image.title": title} if title else {},
        )
        for data, title in zip(files, titles or ("",) * len(files), strict=True)
    )
    for layer, data in zip(layers, files, strict=True):
        repository.push_blob(layer, data)
    manifest = Manifest(EMPTY_CONFIG, layers).to_bytes()
    pushed = repository.push_manifest(manifest, Manifest(EMPTY_CONFIG, ()).media_type)
    return f"oci-layout:{directory}/models/raw@{pushed.digest}"


def _pinned(reference: str) -> PinnedFile:
    return PinnedFile(Digest.parse(reference.rpartition("@")[2]), remote=reference)


def test_an_artifact_of_one_file_is_fetched_once_by_many(tmp_path: Path) -> None:
    """Its layer may be an input of its own meanwhile: neither takes the other's file away."""
    reference = _artifact(tmp_path / "registry", DATA)
    inputs = make(tmp_path)
    repository = LayoutStore(tmp_path / "registry").repository("models/raw")
    layer = Descriptor.of(DATA, "application/octet-stream")

    def fetch(number: int) -> bytes:
        wanted = inputs.pinned(_pinned(reference)) if number % 2 else inputs.blob(repository, layer)
        return wanted.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(fetch, range(32))) == {DATA}


def test_an_artifact_of_a_registry_that_needs_no_tls(tmp_path: Path, registry: Registry) -> None:
    location = RegistryLocation.parse(f"{registry.host}/edge")
    access = Access(insecure=True)
    repository = open_store(location, access).repository("raw")
    layer = Descriptor.of(DATA, "application/octet-stream")
    repository.push_blob(EMPTY_CONFIG, b"{}")
    repository.push_blob(layer, DATA)
    manifest = Manifest(EMPTY_CONFIG, (layer,))
    pushed = repository.push_manifest(manifest.to_bytes(), manifest.media_type)
    reference = f"{registry.host}/edge/raw@{pushed.digest}"
    inputs = make(tmp_path, access, registry=location)
    assert inputs.pinned(_pinned(reference)).read_bytes() == DATA
    (tmp_path / "work" / f"source-{pushed.digest.hex}").unlink()
    elsewhere = make(tmp_path, access, registry=RegistryLocation("registry.invalid"))
    with pytest.raises(RegistryUnavailableError, match="TLS"):
        elsewhere.pinned(_pinned(reference))


def test_an_artifact_without_files_is_refused(tmp_path: Path) -> None:
    reference = _artifact(tmp_path / "registry")
    with pytest.raises(SourceError, match="not an artifact of files"):
        make(tmp_path).pinned(_pinned(reference))


def test_an_artifact_of_several_files_is_a_directory(tmp_path: Path) -> None:
    files = {"model.xml": DATA, "weights/model.bin": b"another"}
    reference = _artifact(tmp_path / "registry", *files.values(), titles=tuple(files))
    directory = make(tmp_path).pinned(_pinned(reference))
    assert {name: (directory / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("title", ["", "../out", "/etc/out", "a/../../out", "a\\b"])
def test_a_layer_that_would_leave_the_directory_is_refused(tmp_path: Path, title: str) -> None:
    reference = _artifact(tmp_path / "registry", DATA, b"another", titles=(title, "fine"))
    with pytest.raises(SourceError, match="title is no file name"):
        make(tmp_path).pinned(_pinned(reference))


def test_a_directory_is_what_it_was_when_the_plan_was_made(tmp_path: Path) -> None:
    model = tmp_path / "saved"
    (model / "variables").mkdir(parents=True)
    (model / "graph.pb").write_bytes(DATA)
    (model / "variables" / "data").write_bytes(b"1")
    file = PinnedFile(Digest.of_tree(model), model)
    assert make(tmp_path).pinned(file) == model
    (model / "variables" / "data").rename(model / "variables" / "other")
    with pytest.raises(SourceError, match="changed while edgectl was running"):
        make(tmp_path).pinned(file)


def test_an_artifact_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    reference = f"oci-layout:{tmp_path}/registry/models/raw@{Digest.of(b'absent')}"
    with pytest.raises(SourceError, match="no manifest") as caught:
        make(tmp_path).pinned(_pinned(reference))
    assert caught.value.hint


def test_a_local_file_is_what_it_was_when_the_plan_was_made(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(DATA)
    file = PinnedFile(Digest.of(DATA), path)
    inputs = make(tmp_path)
    assert inputs.pinned(file) == path
    path.write_bytes(b"other")
    with pytest.raises(SourceError, match="changed while edgectl was running"):
        inputs.pinned(file)
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read any more"):
        inputs.pinned(file)
