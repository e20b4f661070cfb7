from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from edgectl.manifest.yaml import MAX_BYTES, Node, parse_documents, read_documents

PATH = Path("file.yaml")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63) + 1, (1 << 63) - 1)
    | st.floats(allow_nan=False)
)
TEXTS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1).filter(
    lambda text: not re.fullmatch(r"\d+\.?\d*[eE]\d+", text)  # a text to PyYAML, not to us
)
VALUES = st.recursive(
    SCALARS | TEXTS | st.just(""),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=30,
)


def parse_one(text: str) -> Node:
    (document,), problems = parse_documents(text, PATH)
    assert not problems
    return document


@given(st.dictionaries(TEXTS, VALUES, min_size=1), st.booleans())
def test_what_pyyaml_writes_is_read_the_same(value: object, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert parse_one(text).value == value


@given(st.text())
def test_any_text_gives_documents_or_problems(text: str) -> None:
    nodes, problems = parse_documents(text, PATH)
    lines = text.count("\n") + text.count("\r") + text.count("\x85") + 2
    lines += text.count("\u2028") + text.count("\u2029")
    assert all(1 <= problem.line <= lines and problem.column >= 1 for problem in problems)
    assert all(node.value is not None for node in nodes)


@given(st.binary())
@example(b"~")
@example(b"--- null\n---\n&a !!null x\n...\n")
def test_any_bytes_give_documents_or_problems(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes-{os.getpid()}.yaml"
    path.write_bytes(data)
    nodes, problems = read_documents(path)
    # A document that is null is an empty one, however it says so: nothing to read, nothing wrong.
    if not nodes and not problems:
        text = data.decode("utf-8-sig")
        assert all(document is None for document in yaml.load_all(text, yaml.CSafeLoader))


def test_positions_are_those_of_keys_and_values() -> None:
    document = parse_one("a:\n  - b: 1\n    cé: [x, 'y']\n")
    assert document.find(("a", 0, "cé", 1)) == Node(3, 13, "y", "y")
    assert document.find(("a", 0)).keys == {"b": (2, 5), "cé": (3, 5)}
    assert document.find(("a", 0, "missing", "below")).line == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.0", 1.0),
        ("'1.0'", "1.0"),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("1e-3", 1e-3),
        ("2024-01-01", "2024-01-01"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("0x10", 16),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_are_yaml_1_1_with_two_exceptions(text: str, value: object) -> None:
    assert parse_one(f"a: {text}").value == {"a": value}


def test_the_mapping_wins_over_what_it_merges_and_the_earlier_over_the_later() -> None:
    text = "x: &x {a: 1, b: 1, c: 1}\ny: &y {b: 2, d: 2}\nz: {<<: [*y, *x], c: 3}\n"
    document = parse_one(text)
    assert document.value["z"] == {"a": 1, "b": 2, "c": 3, "d": 2}
    assert document.find(("z",)).keys["a"] == (1, 8)


def test_documents_before_a_fault_stay_good() -> None:
    nodes, problems = parse_documents("a: 1\n---\nb: [\n---\nc: 1\n", PATH)
    assert [node.value for node in nodes] == [{"a": 1}]
    assert [problem.line for problem in problems] == [4]


def test_anchors_end_with_their_document() -> None:
    _, problems = parse_documents("a: &a 1\n---\nb: *a\n", PATH)
    assert [str(problem) for problem in problems] == [
        "file.yaml:3:4: no anchor &a comes before this alias"
    ]


def test_a_document_with_endless_problems_is_given_up() -> None:
    _, problems = parse_documents("a: 1\n" * 1000, PATH)
    assert len(problems) == 101
    assert problems[-1].message == "has more than 100 problems"


def test_numbers_that_do_not_fit_are_problems() -> None:
    _, problems = parse_documents(f"a: {'9' * 5000}\nb: 0x{'f' * 5000}\n", PATH)
    assert [problem.line for problem in problems] == [1, 2]


@pytest.mark.parametrize("size", [MAX_BYTES, MAX_BYTES + 1, 10 << 20])
def test_files_have_a_greatest_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(b"a: 1\n#" + b"x" * (size - 6))
    nodes, problems = read_documents(path)
    if size <= MAX_BYTES:
        assert (len(nodes), problems) == (1, [])
    else:
        assert nodes == []
        assert "larger than 1 MiB" in problems[0].message


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    _, (problem,) = read_documents(tmp_path / "pipe.yaml")
    assert problem.message == "is not a regular file"


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    _, (problem,) = read_documents(tmp_path / "nothing.yaml")
    assert problem.message == "cannot be read: No such file or directory"


def test_a_column_after_a_byte_order_mark_counts_characters(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes("\ufeffé: \xe9".encode("utf-8-sig")[3:] + b"\xff")
    _, (problem,) = read_documents(path)
    assert (problem.line, problem.column) == (1, 5)
