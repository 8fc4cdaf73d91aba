"""The command `sowa`: light at the start, one line for what a user can mend."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from sowa import __version__, cli
from sowa.errors import ConfigError

RUN = "import sys; from sowa.cli import main; main(sys.argv[1:])"


def sowa(*words):
    return subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, timeout=120)


def test_help_is_light():
    """Under a second because nothing heavy is imported; time itself depends on the machine."""
    heavy = ("torch", "lightning", "hydra", "omegaconf", "timm", "open_clip", "numpy", "matplotlib", "onnx")
    code = f"""
import sys
from sowa.cli import main
try:
    main(["--help"])
finally:
    print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert all(command in done.stdout for command in ("train", "eval", "import", "demo"))


def test_a_reader_who_leaves_is_told_nothing():
    with subprocess.Popen(
        [sys.executable, "-c", RUN, "train", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def run(words, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    return done.value.code, capsys.readouterr()


def test_version(capsys):
    assert run(["--version"], capsys)[1].out == f"sowa {__version__}\n"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["trian"], "train"),
        (["--colour"], "--colour"),
        (["import"], "path"),
        (["train", "data=sowa_vsia"], "did you mean 'sowa_visa'"),
        (["train", "trainer.max_epoch=2"], "trainer.max_epochs"),
        (["eval", "ckpt_path=/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_are_one_line(words, answer, capsys):
    code, written = run(words, capsys)
    assert code == 2
    assert written.out == ""
    assert written.err.startswith("sowa: error: ")
    assert written.err.count("\n") == 1
    assert answer in written.err


def demo_that(raises):
    def main(argv):
        raise raises

    return SimpleNamespace(main=main)


def test_errors_of_commands(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sowa.demo", demo_that(ConfigError("give\nless")))
    code, written = run(["demo"], capsys)
    assert (code, written.err) == (2, "sowa: error: give less\n")
    code, written = run(["demo", "--debug"], capsys)
    assert code == 2
    assert "Traceback" in written.err
    assert written.err.endswith("sowa: error: give less\n")


def test_interrupt(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sowa.demo", demo_that(KeyboardInterrupt()))
    code, written = run(["demo"], capsys)
    assert code == 130
    assert written.err.count("\n") == 1


def test_mistakes_of_the_program_keep_their_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "sowa.demo", demo_that(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["demo"])


def test_words_of_the_demo_reach_it(capsys, monkeypatch):
    seen = []
    monkeypatch.setitem(sys.modules, "sowa.demo", SimpleNamespace(main=lambda argv: seen.append(list(argv)) or 0))
    assert run(["demo", "--help", "--out", "x"], capsys)[0] == 0
    assert seen == [["--help", "--out", "x"]]


def test_import_hands_over_its_paths(tmp_path, capsys, monkeypatch):
    calls = []
    stand_in = SimpleNamespace(import_published=lambda path, out: calls.append((path.name, out.name)))
    monkeypatch.setitem(sys.modules, "sowa.artifact", stand_in)
    code, written = run(["import", str(tmp_path / "paper.ckpt"), str(tmp_path / "mine.safetensors")], capsys)
    assert code == 0
    assert calls == [("paper.ckpt", "mine.safetensors")]
    assert "ckpt_path=" in written.out
