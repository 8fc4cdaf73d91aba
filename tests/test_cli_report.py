"""The command `sowa report`."""

import subprocess
import sys

import pytest

from sowa import cli
from tests.report.folders import row, write


def run(words, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    return done.value.code, capsys.readouterr()


def test_a_page_is_written(tmp_path, capsys):
    folder, out = write(tmp_path / "p", [row(0)]), tmp_path / "new" / "page.html"
    code, said = run(["report", str(folder), "-o", str(out), "--title", "Line 3", "--pictures", "0"], capsys)
    assert code == 0 and said.out.startswith(f"wrote {out}") and said.err == ""
    assert "<h1><bdi>Line 3</bdi></h1>" in out.read_text(encoding="utf-8")


def test_an_older_page_stays_until_the_new_one_is_whole(tmp_path, capsys):
    folder, out = write(tmp_path / "p", [row(0)]), tmp_path / "page.html"
    assert run(["report", str(folder), "-o", str(out)], capsys)[0] == 0
    before = out.read_bytes()
    (folder / "results.jsonl").write_text("{\n")
    assert run(["report", str(folder), "-o", str(out)], capsys)[0] == 2
    assert out.read_bytes() == before and sorted(path.name for path in tmp_path.iterdir()) == ["p", "page.html"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none"], "does not exist"),
        ([], "FOLDER"),
        (["none", "--pictures", "99"], "--pictures"),
        (["."], "holds neither"),
    ],
    ids=["missing", "no folder", "too many pictures", "empty folder"],
)
def test_one_line_for_what_cannot_be(tmp_path, capsys, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    code, said = run(["report", *words], capsys)
    assert code == 2 and says in said.err and said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_no_torch_is_loaded(tmp_path):
    folder = write(tmp_path / "p", [row(0), row(1, score=3.0, label=1)])
    code = f"""
import sys
from sowa.report import write_report
write_report({str(folder)!r}, {str(tmp_path / "r.html")!r})
print([name for name in ("torch", "lightning", "timm", "open_clip") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
