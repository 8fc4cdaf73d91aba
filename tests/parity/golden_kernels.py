"""Checks a `kernels*` file: upsampling with both corner rules and the smoothing with SciPy's border."""

from sowa.nn.maps import gaussian_smooth, upsample, upsample_nearest
from tests.parity.reader import Golden
from tests.parity.report import Row, compare

TOLERANCE = 2e-6
REFLECT_TOLERANCE = 5e-6  # the recorded float32 kernel is normalised to about 3e-6


def check(golden: Golden) -> list[Row]:
    """Rows for every `out.*` tensor of the file."""
    small, size = golden["in.map"], golden["in.big"].shape[-2:]
    sigma = float(golden.entry("sigma"))
    got = {
        "out.up.align_true": upsample(small, size, align_corners=True),
        "out.up.align_false": upsample(small, size, align_corners=False),
        "out.gauss.symmetric": gaussian_smooth(golden["in.big"], sigma),
        "out.gauss.small": gaussian_smooth(golden["in.small"], sigma),
    }
    rows = [compare(name, value, golden[name], tolerance=TOLERANCE) for name, value in got.items()]
    nearest, reflected = upsample_nearest(small, size), gaussian_smooth(golden["in.big"], sigma, border="reflect")
    rows.append(compare("out.up.nearest", nearest, golden["out.up.nearest"], tolerance=0.0))
    rows.append(compare("out.gauss.reflect", reflected, golden["out.gauss.reflect"], tolerance=REFLECT_TOLERANCE))
    known = {row.name for row in rows}
    return rows + [
        Row(name, float("inf"), 0.0) for name in golden.tensors if name.startswith("out.") and name not in known
    ]
