"""Where each data set is published: archives with their hashes, the licence, and what to cite.

Hashes and sizes are those of the archives as their authors distribute them. Where none is recorded, none was published.
"""

from dataclasses import dataclass

__all__ = ["SOURCES", "Archive", "Source"]

_NC = "CC BY-NC-SA 4.0 (non-commercial use only)"
_MYDRIVE = "https://www.mydrive.ch/shares"
_VICOS = "https://data.vicos.si/datasets/KSDD"
_ZENODO = "https://zenodo.org/records/8086136/files"


@dataclass(frozen=True, slots=True)
class Archive:
    """One file to fetch."""

    file: str
    urls: tuple[str, ...]
    """Tried in this order."""
    sha256: str | None = None
    size: int | None = None
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Source:
    """One data set, under the name it has in `roots.DATASETS`."""

    title: str
    page: str
    """Where a person finds it."""
    licence: str
    cite: tuple[str, ...]
    archives: tuple[Archive, ...] = ()
    """All of them make the data set; empty where it must be fetched by hand."""
    wheel: tuple[str, str, str] | None = None
    """Name, version and sha256 where the package index carries the data."""


def _mvtec_page(name: str) -> str:
    return f"https://www.mvtec.com/company/research/datasets/{name}"


SOURCES: dict[str, Source] = {
    "mvtec": Source(
        title="MVTec AD",
        page=_mvtec_page("mvtec-ad"),
        licence=_NC,
        cite=(
            "Bergmann et al.: MVTec AD - A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection."
            " CVPR 2019",
            "Bergmann et al.: The MVTec Anomaly Detection Dataset. IJCV 129(4), 1038-1059, 2021",
        ),
        archives=(
            Archive(
                "mvtec_anomaly_detection.tar.xz",
                (
                    f"{_MYDRIVE}/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298"
                    "/mvtec_anomaly_detection.tar.xz",
                    f"{_MYDRIVE}/38536/3830184030e49fe74747669442f0f282/download/420938113-1629952094"
                    "/mvtec_anomaly_detection.tar.xz",
                ),
                sha256="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
            ),
        ),
    ),
    "visa": Source(
        title="VisA",
        page="https://github.com/amazon-science/spot-diff",
        licence="CC BY 4.0",
        cite=(
            "Zou et al.: SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and Segmentation."
            " ECCV 2022",
        ),
        archives=(
            Archive(
                "VisA_20220922.tar",
                ("https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",),
                sha256="2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
                size=1_929_840_640,
            ),
        ),
    ),
    "btad": Source(
        title="BTAD (beanTech)",
        page="https://github.com/pankajmishra000/VT-ADL",
        licence="CC BY-SA 4.0",
        cite=(
            "Mishra et al.: VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization."
            " ISIE 2021",
        ),
        archives=(
            Archive(
                "btad.zip",
                ("https://avires.dimi.uniud.it/papers/btad/btad.zip",),
                sha256="461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
            ),
        ),
    ),
    "dagm": Source(
        title="DAGM 2007",
        page="https://zenodo.org/records/8086136",
        licence="CC BY 4.0",
        cite=("Wieler, Hahn, Hamprecht: Weakly supervised learning for industrial optical inspection. DAGM 2007",),
        archives=tuple(Archive(f"Class{n}.zip", (f"{_ZENODO}/Class{n}.zip?download=1",)) for n in range(1, 11)),
    ),
    "dtd": Source(
        title="DTD-Synthetic",
        page="https://drive.google.com/drive/folders/10OyPzvI3H6llCZBxKxFlKWt1Pw1tkMK1",
        licence="none stated by its authors; the textures (DTD) are for research",
        cite=(
            "Aota, Tong, Okatani: Zero-shot versus Many-shot: Unsupervised Texture Anomaly Detection. WACV 2023,"
            " 5553-5561",
        ),
    ),
    "mpdd": Source(
        title="MPDD",
        page="https://github.com/stepanje/MPDD",
        licence=_NC,
        cite=(
            "Jezek et al.: Deep learning-based defect detection of metal parts. ICUMT 2021, 66-71,"
            " doi 10.1109/ICUMT54235.2021.9631567",
        ),
    ),
    "ksdd": Source(
        title="KolektorSDD",
        page="https://go.vicos.si/kolektorsdd",
        licence=_NC,
        cite=(
            "Tabernik et al.: Segmentation-based deep-learning approach for surface-defect detection."
            " Journal of Intelligent Manufacturing, 2020",
        ),
        archives=(
            Archive(
                "KolektorSDD.zip",
                (f"{_VICOS}/KolektorSDD.zip", "https://go.vicos.si/kolektorsdd"),
                sha256="65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc",
            ),
        ),
    ),
    "ksdd2": Source(
        title="KolektorSDD2",
        page="https://go.vicos.si/kolektorsdd2",
        licence=_NC,
        cite=("Bozic, Tabernik, Skocaj: Mixed supervision for surface-defect detection. Computers in Industry, 2021",),
        archives=(
            Archive(
                "KolektorSDD2.zip",
                (f"{_VICOS}/KolektorSDD2.zip", "https://go.vicos.si/kolektorsdd2"),
                sha256="edcdb486809b24f1d17b785e30c52fafc5999554dd5fe18ddf77b61ceb6f36a8",
                size=853_126_555,
            ),
        ),
    ),
    "loco": Source(
        title="MVTec LOCO AD",
        page=_mvtec_page("mvtec-loco"),
        licence=_NC,
        cite=(
            "Bergmann et al.: Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and"
            " Localization. IJCV, 2022",
        ),
        archives=(
            Archive(
                "mvtec_loco_anomaly_detection.tar.xz",
                (
                    f"{_MYDRIVE}/48237/1b9106ccdfbb09a0c414bd49fe44a14a/download/430647091-1646842701"
                    "/mvtec_loco_anomaly_detection.tar.xz",
                ),
                sha256="9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687",
            ),
        ),
    ),
    "mvtec_ad2": Source(
        title="MVTec AD 2",
        page=_mvtec_page("mvtec-ad-2"),
        licence=_NC,
        cite=(
            "Heckler-Kram et al.: The MVTec AD 2 Dataset: Advanced Scenarios for Unsupervised Anomaly Detection."
            " arXiv 2503.21622",
        ),
        archives=(
            Archive(
                "mvtec_ad_2.tar.gz",
                (
                    f"{_MYDRIVE}/150997/701c90d3aea6588f404936e32a674602/download/466712769-1743429042"
                    "/mvtec_ad_2.tar.gz",
                ),
                sha256="c0ded99ef32bfc8e352d52beb44515e5b292b8598cb963aadfa91ca0763505e4",
            ),
        ),
    ),
    "realiad": Source(
        title="Real-IAD",
        page="https://huggingface.co/datasets/Real-IAD/Real-IAD",
        licence=_NC + "; access is granted by its authors on request",
        cite=(
            "Wang et al.: Real-IAD: A Real-World Multi-View Dataset for Benchmarking Versatile Industrial Anomaly"
            " Detection. CVPR 2024",
        ),
    ),
    "elpv": Source(
        title="ELPV: electroluminescence images of solar cells",
        page="https://github.com/zae-bayern/elpv-dataset",
        licence=_NC,
        cite=(
            "Buerhop-Lutz et al.: A Benchmark for Visual Identification of Defective Solar Cells in"
            " Electroluminescence Imagery. EU PVSEC 2018",
            "Deitsch et al.: Automatic classification of defective photovoltaic module cells in electroluminescence"
            " images. Solar Energy 185, 2019",
            "Deitsch et al.: Segmentation of photovoltaic module cells in uncalibrated electroluminescence images."
            " Machine Vision and Applications 32, 2021",
        ),
        wheel=("elpv-dataset", "1.0.0.post1", "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c"),
    ),
}
"""Data set -> its source; the names are those of `roots.DATASETS`, without the one that is drawn."""
