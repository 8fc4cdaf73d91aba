"""Words of PromptAD: how it calls a category, and the defects its code names for each.

The published defect lists were written by people who had seen the defects of the test images; spelling and repetitions
are theirs, since token ids depend on them.
"""

from sowa.errors import UnknownNameError

__all__ = ["GENERIC_TEMPLATES", "category_name", "published_templates"]

GENERIC_TEMPLATES = (
    "damaged {}",
    "flawed {}",
    "abnormal {}",
    "imperfect {}",
    "blemished {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
)

NAMES = {
    "macaroni1": "macaroni",
    "macaroni2": "macaroni",
    "pcb1": "printed circuit board",
    "pcb2": "printed circuit board",
    "pcb3": "printed circuit board",
    "pcb4": "printed circuit board",
    "chewinggum": "chewing gum",
}

MACARONI = ("color spot", "small chip around edge", "small scratches", "breakage", "cracks")
BOARD = ("bent", "scratch", "missing", "melt")

PUBLISHED: dict[str, tuple[str, ...]] = {
    # MVTec AD
    "bottle": ("large breakage", "small breakage", "contamination"),
    "toothbrush": ("defect", "anomaly"),
    "carpet": ("hole", "color stain", "metal contamination", "thread residue", "thread", "cut"),
    "hazelnut": ("crack", "cut", "hole", "print"),
    "leather": ("color stain", "cut", "fold", "glue", "poke"),
    "cable": ("bent wire", "missing part", "missing wire", "cut", "poke"),
    "capsule": ("crack", "faulty imprint", "poke", "scratch", "{} squeezed with compression"),
    "grid": ("breakage", "thread residue", "thread", "metal contamination", "glue", "a bent shape"),
    "pill": ("color stain", "contamination", "crack", "faulty imprint", "scratch", "abnormal type"),
    "transistor": ("bent lead", "cut lead", "damage", "misplaced transistor"),
    "metal_nut": ("a bent shape ", "color stain", "a flipped orientation", "scratch"),
    "screw": ("manipulated front", "scratch neck", "scratch head"),
    "zipper": ("broken teeth", "fabric border", "defect fabric", "broken fabric", "split teeth", "squeezed teeth"),
    "tile": ("crack", "glue strip", "gray stroke", "oil", "rough surface"),
    "wood": ("color stain", "hole", "scratch", "liquid"),
    # VisA
    "candle": (
        "melded wax",
        "foreign particals",
        "extra wax",
        "chunk of wax missing",
        "weird candle wick",
        "damaged corner of packaging",
        "different colour spot",
    ),
    "capsules": ("scratch", "discolor", "misshape", "leak", "bubble"),
    "cashew": ("breakage", "small scratches", "burnt", "stuck together", "spot"),
    "chewinggum": ("corner missing", "scratches", "chunk of gum missing", "colour spot", "cracks"),
    "fryum": ("breakage", "scratches", "burnt", "colour spot", "fryum stuck together", "colour spot"),
    "macaroni1": MACARONI,
    "macaroni2": MACARONI,
    "pcb1": BOARD,
    "pcb2": BOARD,
    "pcb3": BOARD,
    "pcb4": ("scratch", "extra", "missing", "wrong place", "damage", "burnt", "dirt"),
    "pipe_fryum": ("breakage", "small scratches", "burnt", "stuck together", "colour spot", "cracks"),
}
"""Category -> what it is said to be `with`; an entry with `{}` is a template of its own."""


def category_name(category: str) -> str:
    """The words that stand for a category: pcb1 -> printed circuit board, metal_nut -> metal nut."""
    return NAMES.get(category, category.replace("_", " "))


def published_templates(category: str) -> tuple[str, ...]:
    """Templates of the category's published defects; `UnknownNameError` for a category outside MVTec AD and VisA."""
    if category not in PUBLISHED:
        raise UnknownNameError("category with published defect words", got=category, known=PUBLISHED)
    return tuple(words if "{}" in words else f"{{}} with {words}" for words in PUBLISHED[category])
