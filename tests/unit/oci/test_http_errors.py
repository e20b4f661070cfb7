from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.errors import (
    EdgectlError,
    IntegrityError,
    NotFoundError,
    RegistryDeniedError,
    RegistryUnavailableError,
    StorageFullError,
)
from edgectl.oci.http_errors import parse_number, parse_retry_after, status_error


def body(code: str, message: str = "", detail: object = None) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": detail}]}).encode()


# What docker-registry 2.8 answers when its disk is full, at the data and at the session file.
FULL_TEXT = "write /var/lib/registry/data: no space left on device"
FULL_ERRNO = {"DriverName": "filesystem", "Enclosed": {"Op": "write", "Path": "/x", "Err": 28}}
READ_ONLY = {"DriverName": "filesystem", "Enclosed": {"Op": "mkdir", "Path": "/x", "Err": 30}}


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (500, body("UNKNOWN", "unknown error", FULL_TEXT), StorageFullError),
        (500, body("UNKNOWN", "unknown error", FULL_ERRNO), StorageFullError),
        (500, body("UNKNOWN", "unknown error", READ_ONLY), RegistryDeniedError),
        (500, body("UNKNOWN", "unknown error"), RegistryUnavailableError),
        (507, b"", StorageFullError),
        (400, body("DIGEST_INVALID"), IntegrityError),
        (400, body("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"), NotFoundError),
        (400, body("MANIFEST_INVALID", "manifest invalid"), RegistryDeniedError),
        (401, body("UNAUTHORIZED"), RegistryDeniedError),
        (403, b"<html>", RegistryDeniedError),
        (404, b"404 page not found\n", NotFoundError),
        (405, body("UNSUPPORTED"), RegistryDeniedError),
        (429, b"", RegistryUnavailableError),
        (504, b"<html>Gateway timeout</html>", RegistryUnavailableError),
    ],
)
def test_every_refusal_has_its_class(
    status: int, content: bytes, expected: type[EdgectlError]
) -> None:
    error = status_error(status, {}, content, "pushing r at registry example.com")
    assert type(error) is expected
    assert error.message.startswith("pushing r at registry example.com: ")
    assert str(status) in error.message
    assert "<" not in error.message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("Sat, 21 Nov 2026 08:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 07:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("²", None),
        ("9" * 5000, None),
        ("Mon, 01 Jan 9999 00:00:00 -9999", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, datetime(2026, 11, 21, 8, tzinfo=UTC)) == seconds


@given(st.text(max_size=40))
def test_any_number_of_a_header_is_one_or_none(value: str) -> None:
    number = parse_number(value)
    assert number is None or (number >= 0 and value.isdigit())
    assert parse_number(f"{number}") == number


@given(st.integers(300, 599), st.binary(max_size=300) | st.just(b'{"errors": [[]]}'))
def test_any_body_gives_one_clear_error(status: int, content: bytes) -> None:
    error = status_error(status, {"Retry-After": "1"}, content, "reading r")
    assert error.message.isprintable()


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["errors", "code", "message", "detail", "Enclosed", "Err"]), x
            )
        ),
    )
)
def test_any_json_gives_one_clear_error(value: object) -> None:
    error = status_error(500, {}, json.dumps(value).encode(), "reading r")
    assert error.message.startswith("reading r: ")
    assert error.message.isprintable()
