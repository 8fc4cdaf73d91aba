import pytest

from sowa.benchmark.plan import plan_of


@pytest.fixture(scope="session")
def drawn_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make_plan(drawn_cache):
    """A plan of seconds: two drawn categories on the tiny backbone."""

    def make(methods=("padim", "patchcore"), shots=(0, 1), seeds=(0,), **more):
        small = ["backbone.image_size=56"]
        target = "data.target.draw"
        content = {
            "backbone": "random_tiny",
            "shots": list(shots),
            "seeds": list(seeds),
            "methods": methods if isinstance(methods, dict) else dict.fromkeys(methods, small),
            "data": {
                "drawn": [
                    "data.target.categories=[cap,leather]",
                    f"{target}.train_good=2",
                    f"{target}.test_good=2",
                    f"{target}.test_bad=2",
                    f"{target}.size=56",
                    "data.auxiliary.categories=[wood]",
                    "data.auxiliary.draw.test_good=1",
                    "data.auxiliary.draw.test_bad=1",
                    "data.auxiliary.draw.size=56",
                ]
            },
        }
        trained = more.pop("trained", {})
        return plan_of(content | more, trained=trained, paths=[f"paths.cache_dir={drawn_cache}"])

    return make
