"""Checks a `kernels*` file: upsampling with both corner rules and the smoothing with SciPy's border."""

from sowa.nn.maps import gaussian_smooth, upsample
from tests.parity.reader import Golden
from tests.parity.report import Row, compare

TOLERANCE = 2e-6
NOT_USED = ("out.up.nearest", "out.gauss.reflect")  # rules of other methods that nothing here applies


def check(golden: Golden) -> list[Row]:
    """Rows for the map operations this project has."""
    small, size = golden["in.map"], golden["in.big"].shape[-2:]
    sigma = float(golden.entry("sigma"))
    got = {
        "out.up.align_true": upsample(small, size, align_corners=True),
        "out.up.align_false": upsample(small, size, align_corners=False),
        "out.gauss.symmetric": gaussian_smooth(golden["in.big"], sigma),
        "out.gauss.small": gaussian_smooth(golden["in.small"], sigma),
    }
    return [compare(name, value, golden[name], tolerance=TOLERANCE) for name, value in got.items()]
