"""Every file that fuzzing begins with, and every one that once showed a fault, through its reader."""

from __future__ import annotations

import subprocess

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("pyarrow")
pytest.importorskip("grpc")
pytest.importorskip("jinja2")
from fuzzing import CORPUS, FAMILIES, FaultError, Reader, check, family

from s2mlp_deploy.errors import InputError

READERS = [item for name in FAMILIES for item in family(name)]


@pytest.mark.parametrize("item", READERS, ids=lambda item: item.name)
def test_readers_keep_their_word_on_every_file_of_the_corpus(item, tmp_path):
    assert item.seeds
    outcomes = [check(item, path.read_bytes(), tmp_path) for path in item.seeds if not path.name.startswith("fault-")]
    for path in item.seeds:
        check(item, path.read_bytes(), tmp_path)
    assert outcomes


def test_the_corpus_is_small_and_has_no_file_without_a_reader():
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    assert {path.parent.relative_to(CORPUS).as_posix() for path in files} <= {item.name for item in READERS}


def test_git_keeps_every_file_of_the_corpus():
    """One that an ignored name hides is there for whoever made it, and missing in every clone."""
    root = CORPUS.parents[2]
    if not (root / ".git").exists():
        pytest.skip("this is no checkout")
    hidden = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", str(CORPUS)]
    assert subprocess.run(hidden, cwd=root, check=True, capture_output=True, text=True).stdout == ""


def outside(data, folder):
    (folder.parent / "elsewhere").write_bytes(data)


def renamed(data, folder):
    (folder / "x").write_bytes(data)
    (folder / "x").rename(folder.parent / "elsewhere")


def unhandled(data, folder):
    return {}[data]


def unhelpful(data, folder):
    raise InputError("it is wrong")


def half_written(data, folder):
    (folder / ".x.tmp").write_bytes(data)


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (outside, "elsewhere"),
        (renamed, "elsewhere"),
        (unhandled, "KeyError"),
        (unhelpful, "no way to mend it"),
        (half_written, ".x.tmp"),
    ],
)
def test_the_check_sees_what_must_not_happen(read, told, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    with pytest.raises(FaultError, match=told):
        check(Reader("x", read, leaves=frozenset()), b"data", folder)
    assert not list(folder.iterdir())
