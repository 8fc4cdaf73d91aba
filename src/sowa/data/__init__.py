"""Data sets: where they lie, what is in them, pixels, shots, batches, and one drawn by code.

Read in this order: `layouts` (the table), `layouts_mvtec` (the layout most others follow), `images`, `shots`,
`dataset`. Nothing is imported here, so that looking for a data set stays light.
"""
