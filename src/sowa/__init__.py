"""sowa: find defects in pictures of manufactured parts from 0, 1, 2 or 4 good examples."""

__version__ = "0.1.0"
