"""How tests and notebooks are spread over the cores: what belongs together stays in one process."""

import pytest

from dlutils.processes import cores

# Files whose tests share a result that takes long; by nbval the cells of a notebook share a kernel.
TOGETHER = ("test_publish.py", "test_sweep.py", ".ipynb")
FIRST = ["test_whole_runs.py", "test_configurations.py", "test_sweep.py", "test_publish.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest runs first, so that none is left over at the end."""
    place = {name: k for k, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many as there are processors for this process, each with a few hundred MB."""
    return min(cores(), 8)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """In the order above, test by test, but for the files of which all goes to one process."""
    config.option.loadscopereorder = False  # else the files with most tests come first
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, _ = nodeid.partition("::")
            return file if file.endswith(TOGETHER) else nodeid

    return Scheduler(config, log)
