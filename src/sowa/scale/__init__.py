"""Verdicts on more pictures than one process is for: a work list in blocks, each scored once, by anybody who is there.

`blocks` cuts the list, `files` reads and writes anywhere, `work` scores a block, `local` and `with_ray` hand blocks to
workers, `run` puts it together, `merge` makes one file of the parts.
"""

__all__: list[str] = []
