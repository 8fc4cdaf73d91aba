"""Where a data set lies: below one data directory under any name its archives unpack to; ELPV out of its wheel."""

import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from sowa.data.layouts_tree import plain, some_of
from sowa.errors import DataError, UnknownNameError
from sowa.wheels import cache_root, fetch_wheel

__all__ = ["DATASETS", "ELPV_NOTICE", "elpv_root", "find_root"]

DATASETS: dict[str, tuple[str, ...]] = {
    "mvtec": ("mvtec", "mvtec_anomaly_detection", "MVTec-AD", "mvtech_anomaly_detection"),
    "visa": ("visa", "VisA_20220922", "VisA_pytorch", "VisA_pytorch/1cls"),
    "btad": ("btad", "BTech_Dataset_transformed", "BTech"),
    "dagm": ("dagm", "DAGM_KaggleUpload", "DAGM2007", "DAGM_anomaly_detection"),
    "dtd": ("dtd", "DTD-Synthetic"),
    "mpdd": ("mpdd",),
    "ksdd": ("ksdd", "KolektorSDD", "kolektor"),
    "ksdd2": ("ksdd2", "KolektorSDD2"),
    "loco": ("loco", "mvtec_loco_anomaly_detection", "MVTec-LOCO", "mvtec_loco_ad"),
    "mvtec_ad2": ("mvtec_ad2", "mvtec_ad_2"),
    "realiad": ("realiad", "Real-IAD"),
    "elpv": ("elpv", "elpv_dataset"),
    "drawn": ("drawn",),
}
"""Data set -> directory names it goes by, preferred first; letters and digits count, upper and lower case alike."""

ENVIRONMENT = "SOWA_DATA"
_ELPV_WHEEL = ("elpv-dataset", "1.0.0.post1", "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c")
_ELPV_MEMBER = re.compile(r"elpv_dataset/data/(labels\.csv|images/cell\d{4}\.png)")
_ELPV_LICENCE = re.compile(r"elpv_dataset-[^/]+\.dist-info/licenses/(LICENSE[^/]*)")
_ELPV_FILES = 2625
_ELPV_MAX_FILE = 1_000_000

ELPV_NOTICE = """\
ELPV: electroluminescence images of functional and defective solar cells (2,624 cells of 44 modules).
Licence: CC BY-NC-SA 4.0, non-commercial use only; the full text lies beside this file.
Source: https://github.com/zae-bayern/elpv-dataset (package elpv-dataset 1.0.0.post1).
Cite: Buerhop-Lutz et al., EU PVSEC 2018; Deitsch et al., Solar Energy 185, 2019; Deitsch et al., Machine Vision and
Applications 32, 2021.
"""


def find_root(dataset: str, data_dir: Path | None = None) -> Path:
    """The directory of a data set below `data_dir`, by default the environment variable `SOWA_DATA`.

    An empty directory does not count. `DataError`, one line, names what was tried and what to set.
    """
    if dataset not in DATASETS:
        raise UnknownNameError("data set", got=dataset, known=DATASETS)
    home = data_dir or os.environ.get(ENVIRONMENT)
    names = DATASETS[dataset]
    if not home:
        raise DataError(f"{dataset}: where is the data? Set {ENVIRONMENT} or paths.data_dir to the directory above it")
    home = Path(home)
    if not home.is_dir():
        raise DataError(
            f"{home}: no such directory; set {ENVIRONMENT} or paths.data_dir to the directory above {dataset}"
        )
    found = next((root for name in names if (root := _below(home, name))), None)
    if found is None:
        tried = some_of(names, most=len(names))
        raise DataError(f"{home}: no directory for {dataset} (tried {tried}); set {ENVIRONMENT} or paths.data_dir")
    return found


def _below(home: Path, name: str) -> Path | None:
    """The directory with that name, spelt in whatever way, that is not empty."""
    for part in name.split("/"):
        fitting = (path for path in sorted(home.iterdir()) if plain(path.name) == plain(part) and path.is_dir())
        found = next((path for path in fitting if any(path.iterdir())), None)
        if found is None:
            return None
        home = found
    return home


def elpv_root(cache_dir: Path | None = None) -> Path:
    """The directory with ELPV's `labels.csv` and `images/`, unpacked from its wheel into the cache at the first call.

    The licence lies beside them: CC BY-NC-SA 4.0. About 90 MB.
    """
    root = cache_root(cache_dir) / "datasets" / "elpv"
    if not root.is_dir():
        advice = f"a directory elpv below {ENVIRONMENT}"
        _unpack_elpv(fetch_wheel(*_ELPV_WHEEL, cache_dir, option=advice, error=DataError), root)
    return root


def _unpack_elpv(wheel: Path, root: Path) -> None:
    """Only the files wanted, under names made here; the whole directory appears at once."""
    root.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".elpv-", dir=root.parent))
    try:
        (part / "images").mkdir()
        with zipfile.ZipFile(wheel) as archive:
            copied = sum(_unpack_member(archive, member, part) for member in archive.infolist())
        if copied != _ELPV_FILES:
            raise DataError(f"{wheel}: {copied} files of ELPV found, {_ELPV_FILES} expected; delete it and try again")
        (part / "NOTICE.txt").write_text(ELPV_NOTICE, encoding="utf-8")
        _settle(part, root)
    except zipfile.BadZipFile as error:
        raise DataError(f"{wheel}: damaged archive ({error}); delete it and try again") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, part: Path) -> bool:
    """Whether the member is an image or the table; the licence is copied too."""
    data = _ELPV_MEMBER.fullmatch(member.filename)
    wanted = data or _ELPV_LICENCE.fullmatch(member.filename)
    if not wanted:
        return False
    if member.file_size > _ELPV_MAX_FILE:
        raise DataError(f"{archive.filename}: {member.filename} declares {member.file_size} bytes; not unpacked")
    with archive.open(member) as source:
        (part / wanted[1]).write_bytes(source.read(_ELPV_MAX_FILE + 1))
    return data is not None


def _settle(part: Path, root: Path) -> None:
    """Somebody else may have unpacked the same files meanwhile: theirs are as good."""
    part.chmod(0o755)  # mkdtemp makes it private
    try:
        os.replace(part, root)
    except OSError:
        if not (root / "labels.csv").is_file():
            raise
