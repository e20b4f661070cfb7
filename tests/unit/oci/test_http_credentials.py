from __future__ import annotations

import base64
import json
import logging
import os
from typing import TYPE_CHECKING

import pytest

from edgectl.errors import ConfigError, RegistryDeniedError
from edgectl.oci.access import Access
from edgectl.oci.auth import parse_challenge
from tests.support.faults import Hang, Redirect, Status
from tests.support.registry import Registry
from tests.unit.oci.conformance import BLOB, describe, push_artifact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def keeping(directory: Path, auths: dict[str, object]) -> Access:
    """How a registry is reached with a config.json that keeps this."""
    file = directory / "config.json"
    file.write_text(json.dumps({"auths": auths}))
    return Access(insecure=True, docker_config=file)


def encoded(user: str, password: str) -> str:
    """Credentials as a config.json has them."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("credentials", [(None, None), ("ann", "wrong"), ("bob", "secret")])
def test_wrong_credentials_are_denied(credentials: tuple[str | None, str | None]) -> None:
    username, password = credentials
    with Registry(credentials=("ann", "secret")) as registry:
        access = Access(insecure=True, username=username, password=password)
        repository = registry.store("", access).repository("r")
        with pytest.raises(RegistryDeniedError) as caught:
            repository.resolve("1")
        assert caught.value.hint is not None
        assert "docker login" in caught.value.hint
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("form", ["auth", "scheme"])
def test_docker_config(tmp_path: Path, form: str) -> None:
    with Registry(credentials=("ann", "secret")) as registry:
        key = registry.host if form == "auth" else f"https://{registry.host}"
        access = keeping(tmp_path, {key: {"auth": encoded("ann", "secret")}})
        push_artifact(registry.store("", access).repository("r"), b"model", tag="1")


def test_docker_config_in_the_usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with Registry(credentials=("ann", "secret")) as registry:
        keeping(tmp_path, {registry.host: {"auth": encoded("ann", "secret")}})
        push_artifact(registry.store().repository("r"), b"model", tag="1")


@pytest.fixture
def helped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Registry, str], Access]:
    """How a registry is reached with a credential helper that is these lines of shell."""
    helper = tmp_path / "docker-credential-vault"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def access(registry: Registry, answer: str) -> Access:
        helper.write_text(f"#!/bin/sh\n{answer}\n")
        helper.chmod(0o755)
        file = tmp_path / "config.json"
        file.write_text(json.dumps({"credHelpers": {registry.host: "vault"}}))
        return Access(insecure=True, docker_config=file)

    return access


def test_a_credential_helper(helped: Callable[[Registry, str], Access]) -> None:
    with Registry(credentials=("ann", "secret")) as registry:
        access = helped(registry, 'echo \'{"Username": "ann", "Secret": "secret"}\'')
        push_artifact(registry.store("", access).repository("r"), b"model", tag="1")


@pytest.mark.parametrize("secret", ["identity", "identity & more=1"])
def test_an_identity_token(tmp_path: Path, secret: str) -> None:
    """What `docker login` keeps for registries that give one, Azure's among them."""
    with Registry(credentials=("ann", "secret"), identity_token=secret) as registry:
        nobody = encoded("00000000-0000-0000-0000-000000000000", "")
        access = keeping(tmp_path, {registry.host: {"auth": nobody, "identitytoken": secret}})
        repository = registry.store("", access).repository("r")
        push_artifact(repository, b"model", tag="1")
        registry.expire_tokens()
        assert repository.resolve("1") is not None
        assert all("Basic" not in r.headers.get("Authorization", "") for r in registry.requests)


def test_an_identity_token_of_a_credential_helper(
    helped: Callable[[Registry, str], Access], caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        Registry(credentials=("ann", "secret"), identity_token="identity") as registry,
    ):
        access = helped(registry, 'echo \'{"Username": "<token>", "Secret": "identity"}\'')
        push_artifact(registry.store("", access).repository("r"), b"model", tag="1")
    assert "identity" not in caplog.text


def test_what_a_helper_says_replaces_an_older_identity_token(
    helped: Callable[[Registry, str], Access], tmp_path: Path
) -> None:
    with Registry(credentials=("ann", "secret"), identity_token="identity") as registry:
        access = helped(registry, 'echo \'{"Username": "ann", "Secret": "secret"}\'')
        file = tmp_path / "config.json"
        config = json.loads(file.read_text())
        config["auths"] = {registry.host: {"identitytoken": "from long ago"}}
        file.write_text(json.dumps(config))
        push_artifact(registry.store("", access).repository("r"), b"model", tag="1")


def test_an_entry_of_nothing_is_nothing(tmp_path: Path) -> None:
    with Registry() as registry:
        registry.credentials = ("ann", "secret")
        access = keeping(tmp_path, {registry.host: None})
        with pytest.raises(RegistryDeniedError):
            registry.store("", access).repository("r").resolve("1")


def test_an_identity_token_is_sent_again_where_the_connection_was_cut(tmp_path: Path) -> None:
    with Registry(credentials=("ann", "secret"), identity_token="it") as registry:
        registry.inject(Hang(), path="/token", times=1)
        access = keeping(tmp_path, {registry.host: {"identitytoken": "it"}})
        push_artifact(registry.store("", access).repository("r"), b"model", tag="1")


@pytest.mark.parametrize("status", [404, 405])
def test_a_token_service_without_identity_tokens_is_named(tmp_path: Path, status: int) -> None:
    """And is not taken for a registry that lacks what was asked for."""
    with Registry(credentials=("ann", "secret"), identity_token="it") as registry:
        registry.inject(Status(status), method="POST", path="/token")
        access = keeping(tmp_path, {registry.host: {"identitytoken": "it"}})
        with pytest.raises(RegistryDeniedError, match="takes no identity tokens") as caught:
            registry.store("", access).repository("r").resolve("1")
        assert "password" in (caught.value.hint or "")


@pytest.mark.parametrize("kept", ["another-token", 7, ["another-token"]])
def test_a_wrong_identity_token_is_a_clear_error(tmp_path: Path, kept: object) -> None:
    with Registry(credentials=("ann", "secret"), identity_token="identity") as registry:
        access = keeping(tmp_path, {registry.host: {"identitytoken": kept}})
        with pytest.raises((ConfigError, RegistryDeniedError)) as caught:
            registry.store("", access).repository("r").resolve("1")
        assert "docker login" in (caught.value.hint or "")
        assert "another-token" not in str(caught.value)


def test_an_identity_token_goes_to_nobody_but_the_token_service(tmp_path: Path) -> None:
    with Registry() as thief, Registry(credentials=("ann", ""), identity_token="it") as registry:
        registry.inject(Redirect(f"http://{thief.host}", status=307), path="/token")
        access = keeping(tmp_path, {registry.host: {"identitytoken": "it"}})
        with pytest.raises(RegistryDeniedError, match="takes no identity tokens"):
            registry.store("", access).repository("r").resolve("1")
        assert not thief.requests


def test_a_credential_helper_that_hangs_is_ended(
    helped: Callable[[Registry, str], Access], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edgectl.oci.credentials.HELPER_SECONDS", 0.2)
    pid = tmp_path / "pid"
    with Registry(credentials=("ann", "secret")) as registry:
        access = helped(registry, f"echo $$ >> {pid}; exec sleep 600")
        repository = registry.store("", access).repository("r")
        for _ in range(2):
            with pytest.raises(ConfigError, match="vault did not answer") as caught:
                repository.resolve("1")
            assert "docker-credential-vault get" in (caught.value.hint or "")
    (helper,) = pid.read_text().split()  # who waits for the same answer is told what came of it
    with pytest.raises(ProcessLookupError):
        os.kill(int(helper), 0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("echo the vault is sealed >&2; exit 1", "vault' failed: the vault is sealed"),
        ("echo credentials not found in native keychain; exit 1", None),
    ],
)
def test_a_failing_helper_is_named_and_one_that_has_nothing_is_not(
    helped: Callable[[Registry, str], Access],
    caplog: pytest.LogCaptureFixture,
    answer: str,
    said: str | None,
) -> None:
    with Registry(credentials=("ann", "secret")) as registry:
        access = helped(registry, answer)
        with pytest.raises(RegistryDeniedError):
            registry.store("", access).repository("r").resolve("1")
    assert "vault" not in caplog.text if said is None else said in caplog.text


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_credentials_that_change_are_looked_up_again(tmp_path: Path, scheme: str) -> None:
    """A device runs for months, and what a cloud's login gives lasts for hours."""

    def keep(password: str) -> Access:
        return keeping(tmp_path, {registry.host: {"auth": encoded("ann", password)}})

    with Registry(credentials=("ann", "first"), basic=scheme == "Basic") as registry:
        repository = registry.store("", keep("first")).repository("r")
        push_artifact(repository, b"model", tag="1")
        registry.credentials = ("ann", "second")
        registry.expire_tokens()
        with pytest.raises(RegistryDeniedError):
            repository.resolve("1")
        keep("second")
        assert repository.resolve("1") is not None


@pytest.mark.parametrize(
    "answer",
    ["echo not json", "echo '{}'", "echo '[1]'", "exit 1", "kill -9 $$"],
)
def test_a_broken_credential_helper_is_a_clear_error_or_none(
    helped: Callable[[Registry, str], Access], answer: str
) -> None:
    with Registry(credentials=("ann", "secret")) as registry:
        access = helped(registry, answer)
        with pytest.raises((ConfigError, RegistryDeniedError)) as caught:
            registry.store("", access).repository("r").resolve("1")
        assert caught.value.hint


@pytest.mark.parametrize("kept", ["c2VjcmV0", "not base64: secret", "YW5uOnNlY3JldA==\nX: y", 7])
def test_what_docker_keeps_and_is_no_credential_is_named_and_not_shown(
    tmp_path: Path, kept: object
) -> None:
    with Registry(credentials=("ann", "secret")) as registry:
        access = keeping(tmp_path, {registry.host: {"auth": kept}})
        with pytest.raises(ConfigError, match="credentials") as caught:
            registry.store("", access).repository("r").resolve("1")
        assert registry.host in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "scheme", "parameters"),
    [
        ('Bearer realm="https://t/x",service="s",scope="repository:r:pull,push"', "bearer",
         {"realm": "https://t/x", "service": "s", "scope": "repository:r:pull,push"}),
        ('bearer REALM = "https://t" , service=plain', "bearer",
         {"realm": "https://t", "service": "plain"}),
        ('Negotiate, Basic realm="a \\"quoted\\" name, Bearer x"', "basic",
         {"realm": 'a "quoted" name, Bearer x'}),
        ("Basic", "basic", {}),
        ("Basic,Bearer", "basic", {}),
        ("Digest realm=x", "", {}),
        ("", "", {}),
        ("Bearer " + "a" * 9000, "", {}),
        ('Bearer realm="' + "a=" * 3000, "bearer", None),
    ],
)  # fmt: skip
def test_challenges(header: str, scheme: str, parameters: dict[str, str] | None) -> None:
    found = parse_challenge(header)
    assert found[0] == scheme
    assert parameters is None or found[1] == parameters


@pytest.mark.parametrize("content", ["", "[]", '{"auths": 3}'])
def test_a_broken_docker_config_is_a_clear_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with Registry(credentials=("ann", "secret")) as registry:
        access = Access(insecure=True, docker_config=file)
        with pytest.raises(ConfigError, match=r"config\.json"):
            registry.store("", access).repository("r").resolve("1")


def test_expired_tokens_are_replaced() -> None:
    with Registry(credentials=("ann", "secret")) as registry:
        access = Access(insecure=True, username="ann", password="secret")
        repository = registry.store("", access).repository("r")
        push_artifact(repository, b"model", tag="1")
        registry.expire_tokens()
        assert repository.resolve("1") is not None
        registry.expire_tokens()
        push_artifact(repository, b"other", tag="2")


def test_tokens_are_not_asked_for_over_plain_http_unless_insecure(tmp_path: Path) -> None:
    from edgectl.oci.auth import Authenticator

    def no_request(*_: object) -> bytes:
        raise AssertionError("credentials would leave")

    access = Access(username="ann", password="secret")
    authenticator = Authenticator("registry.example.com", access, no_request)
    challenge = 'Bearer realm="http://tokens.example.com/",service="s",scope="repository:r:pull"'
    with pytest.raises(RegistryDeniedError, match="not TLS"):
        authenticator.answer("r", challenge, None, write=False)


def test_redirects_to_another_host_carry_no_credentials() -> None:
    with Registry() as storage, Registry(credentials=("ann", "secret")) as registry:
        push_artifact(storage.store().repository("r"), BLOB)
        access = Access(insecure=True, username="ann", password="secret")
        repository = registry.store("", access).repository("r")
        push_artifact(repository, BLOB, tag="1")
        storage.requests.clear()
        registry.inject(Redirect(f"http://{storage.host}"), method="GET", path="/blobs/")
        assert b"".join(repository.read_blob(describe(BLOB))) == BLOB
        assert b"".join(repository.read_blob(describe(BLOB), offset=5)) == BLOB[5:]
        assert len(storage.requests) == 2
        assert all("Authorization" not in request.headers for request in storage.requests)


def test_uploads_to_another_host_carry_no_credentials() -> None:
    with Registry() as storage, Registry(credentials=("ann", "secret")) as registry:
        started = storage.answer("POST", "/v2/r/blobs/uploads/", {}, b"")
        location = f"http://{storage.host}{started.headers['Location']}"
        registry.inject(Redirect(location, status=202, whole=True), method="POST", path="uploads")
        access = Access(insecure=True, username="ann", password="secret")
        registry.store("", access).repository("r").push_blob(describe(BLOB), BLOB)
        assert [request.method for request in storage.requests] == ["PUT"]
        assert "Authorization" not in storage.requests[0].headers


def test_a_netrc_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with Registry() as registry:
        registry.store().repository("r").resolve("1")
        assert "Authorization" not in registry.requests[0].headers


def test_credentials_are_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    encoded = base64.b64encode(b"ann:secret-password").decode()
    with (
        caplog.at_level(logging.DEBUG),
        Registry(credentials=("ann", "secret-password")) as registry,
    ):
        access = Access(insecure=True, username="ann", password="secret-password")
        push_artifact(registry.store("", access).repository("r"), b"model", tag="1")
        tokens = set(registry.tokens())
    assert caplog.records
    for secret in {"secret-password", encoded, *tokens}:
        assert secret not in caplog.text
