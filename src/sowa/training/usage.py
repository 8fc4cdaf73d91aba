"""What `sowa train --help` and `sowa eval --help` say."""

from collections.abc import Iterator, Mapping
from typing import Any

from sowa.training.compose import default_settings, list_groups

__all__ = ["help_text"]

COMMON = (
    "  --cfg job        print the composed settings and stop",
    "  -m, --multirun   run every combination of comma lists, e.g. data=sowa_visa,sowa_mvt seed=0,1",
    "  --debug          show the whole traceback of an error",
)
USAGE = {
    "train": (
        "usage: sowa train [GROUP=OPTION ...] [KEY=VALUE ...]      (or: python src/train.py ...)",
        "",
        "Train on the auxiliary data set, then score the target data set.",
        "  sowa train trainer=cpu data=sowa_visa model=sowa_hfwa paths.data_dir=DATA",
        "  sowa train experiment=demo",
        "",
        *COMMON,
    ),
    "eval": (
        "usage: sowa eval ckpt_path=RUN [GROUP=OPTION ...] [KEY=VALUE ...]      (or: python src/eval.py ...)",
        "",
        "Score a target data set with trained weights.",
        "  sowa eval ckpt_path=runs/train/.../trained.safetensors paths.data_dir=DATA shots=[0,1,2,4]",
        "",
        *COMMON,
    ),
}


def help_text(job: str) -> str:
    """Groups with their options (the default marked), every setting with its default."""
    choices, settings = default_settings(job)
    lines = [*USAGE[job], "", "groups, chosen as GROUP=OPTION (* is the default)"]
    for group, options in list_groups().items():
        if group in choices:
            marked = [f"{option}*" if option == choices[group] else option for option in options]
            lines.append(f"  {group:<12} {', '.join(marked)}")
    lines += ["", "settings, given as KEY=VALUE, with their defaults"]
    lines += [f"  {key}={_shown(value)}" for key, value in _leaves("", settings)]
    return "\n".join(lines)


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), item)
    else:
        yield prefix, value


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{','.join(_shown(item) for item in value)}]"
    return str(value)
