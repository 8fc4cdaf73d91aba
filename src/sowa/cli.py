"""The command `sowa`. What a user can mend is answered with one line; heavy libraries load only when needed."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sowa import __version__
from sowa.cli_about import doctor, licenses, list_names
from sowa.cli_data import data
from sowa.cli_export import export
from sowa.cli_fit import add, calibrate, fit, info
from sowa.cli_int8 import measure_int8
from sowa.cli_predict import predict
from sowa.cli_report import report
from sowa.errors import SowaError

__all__ = ["app", "main"]

app = typer.Typer(
    name="sowa",
    help="Find defects in pictures of manufactured parts from 0, 1, 2 or 4 good examples.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (fit, predict, calibrate, add, info):
    app.command()(command)
app.add_typer(data, name="data")
app.command()(report)
app.command()(doctor)
app.command("list")(list_names)
app.command()(licenses)
app.command()(export)
app.command()(measure_int8)

THROUGH = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
"""For commands whose words are settings: all of them, `--help` too, reach the command's own door."""


INTERRUPTED = 130
"""What shells report of a process ended by an interrupt from the keyboard."""


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
) -> None:
    if version:
        typer.echo(f"sowa {__version__}")
        raise typer.Exit


@app.command(context_settings=THROUGH)
def train(context: typer.Context) -> None:
    """Train, then score the target data set; settings as KEY=VALUE."""
    from sowa.training.run import train_main

    raise typer.Exit(train_main(context.args))


@app.command("eval", context_settings=THROUGH)
def evaluate(context: typer.Context) -> None:
    """Score a data set with trained weights (KEY=VALUE), or a labelled folder with a fitted FILE.sowa."""
    from sowa.cli_score import dispatch, is_ours

    if is_ours(context.args):
        raise typer.Exit(dispatch(context.args))
    from sowa.training.run import eval_main

    raise typer.Exit(eval_main(context.args))


@app.command(context_settings=THROUGH)
def benchmark(context: typer.Context) -> None:
    """Compare methods over data sets and shots: tables, speed, figures."""
    from sowa.cli_benchmark import dispatch

    raise typer.Exit(dispatch(context.args))


@app.command(context_settings=THROUGH)
def scale(context: typer.Context) -> None:
    """Verdicts on very many pictures, by several processes and machines."""
    from sowa.cli_scale import dispatch

    raise typer.Exit(dispatch(context.args))


@app.command("import")
def import_published(
    path: Annotated[Path, typer.Argument(help="Checkpoint of the paper's code.")],
    out: Annotated[Path, typer.Argument(help="Where to write the trained tensors.")] = Path("trained.safetensors"),
) -> None:
    """Convert a published checkpoint; nothing in it is executed."""
    from sowa.artifact import import_published as convert

    convert(path, out)
    typer.echo(f"wrote {out}: use it as ckpt_path={out}")


@app.command(context_settings=THROUGH)
def demo(context: typer.Context) -> None:
    """Train, adapt to four good pictures, and show what is found."""
    from sowa.demo import main as run

    raise typer.Exit(run(context.args))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0; 2 for what a user can mend (one line); 130 if interrupted; 1 for a closed pipe."""
    sys.exit(_run(list(sys.argv[1:] if argv is None else argv)))


def _run(words: list[str]) -> int:
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        code = app(words, standalone_mode=False, prog_name="sowa")
        sys.stdout.flush()
        if code == INTERRUPTED:  # newer versions of the command line library turn the exception into a code
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except SowaError as error:
        return _fail(str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        more = "; a training continues with resume=true" if words[:1] in (["train"], ["demo"]) else ""
        return _fail(f"interrupted{more}", INTERRUPTED, debug)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if hasattr(error, "format_message"):  # a wrong command or option, as the command line library says it
            return _fail(f"{error.format_message()}; see sowa --help", 2, debug)
        raise


def _fail(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"sowa: error: {' '.join(line.split())}", file=sys.stderr)
    return code
