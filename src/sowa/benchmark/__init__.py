"""Grids over methods, data sets, categories, shots and seeds; their tables, speed and figures.

Read in this order: `plan` (what is asked for), `store` (a cell, a file), `jobs` (settings become detectors), `runner`.
"""
