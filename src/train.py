"""python src/train.py trainer=cpu data=sowa_visa model=sowa_hfwa: the same door as `sowa train`."""

import sys

from sowa.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
