"""python src/eval.py ckpt_path=RUN: the same door as `sowa eval`."""

import sys

from sowa.cli import main

if __name__ == "__main__":
    main(["eval", *sys.argv[1:]])
