"""Many runs of one function, side by side, each written down as it ends; a killed job resumes.

A run is a configuration, a mapping of plain values; its result is one line of JSON in a results
file. The parent alone writes, a whole line at a time and under a lock, so that a file holds no run
twice and no half of one, whoever was killed and when. The executor is any of `concurrent.futures`.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from dlutils.processes import fresh_processes
from dlutils.tools.sweep.results import Row, load

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two jobs from one file there
    fcntl = None

Config = Mapping[str, object]
DEATHS = 3  # of its process, after which a run counts as failed


def identity(config: Config) -> str:
    """A short name that depends on the configuration alone."""
    text = json.dumps(config, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def process_pool(workers: int, preload: Sequence[str] = ()) -> Callable[[], Executor]:
    """A maker of executors for `run_all`, with processes of one thread each.

    Args:
        workers: Processes, at least 1.
        preload: Modules to import once for all of them, where the system can fork.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    context = fresh_processes([__name__, *preload])
    return lambda: _OwnProcesses(workers, context)


class _OwnProcesses(ThreadPoolExecutor):
    """Threads with a process each: a run whose process dies takes no other run with it."""

    def __init__(self, workers: int, context: multiprocessing.context.BaseContext) -> None:
        super().__init__(workers)
        self.context, self.own = context, threading.local()

    def submit(self, function: Callable, /, *args: object) -> Future:
        return super().submit(self._in_process, function, *args)

    def _in_process(self, function: Callable, *args: object) -> object:
        for _ in range(DEATHS):
            if not hasattr(self.own, "process"):
                self.own.process = ProcessPoolExecutor(1, self.context, _start_worker)
            with contextlib.suppress(BrokenExecutor):
                return self.own.process.submit(function, *args).result()
            del self.own.process
        raise BrokenExecutor(f"its process died {DEATHS} times: killed, or no memory")


def _start_worker() -> None:
    """Leave Ctrl-C and the screen to the parent, and end when it has ended, however it did."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for as long as the process lives

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def dask_cluster(address: str) -> Iterator[Callable[[], Executor]]:
    """A maker of executors on a Dask cluster.

    Args:
        address: Of the scheduler, such as tcp://host:8786. Its workers must find this project's
            folder under the same path, and have one thread each.

    Raises:
        ValueError: If `distributed` is not installed, the address does not answer, there are no
            workers, or one has several threads.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("--scheduler needs Dask: pip install distributed") from None
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise ValueError(f"no Dask scheduler answers at {address!r}: {error}") from error
    with client:
        if set(client.nthreads().values()) != {1}:
            raise ValueError(
                f"the Dask cluster at {address!r} has no workers, or not one thread each, which "
                "runs need, because those in one process share torch's random numbers: start them "
                "with --nthreads 1 (and --nworkers for more)"
            )
        yield client.get_executor


def run_all(
    function: Callable[[Config], Row],
    configs: Sequence[Config],
    path: str | Path,
    make_executor: Callable[[], Executor],
    *,
    retry_failed: bool = False,
    label: str = "runs",
) -> int:
    """Run a function once for each configuration that the results file does not have yet.

    A run that raises, or whose process dies three times, is written down with its error; the others
    go on. Ctrl-C waits for the runs under way and writes them down too.

    Args:
        function: From a configuration to results, both of plain values; picklable.
        configs: Without duplicates.
        path: The results file, made if it is not there.
        make_executor: Such as `process_pool` returns.
        retry_failed: Whether to run those again that failed before.
        label: Text in front of the progress bar.

    Returns:
        The number of these runs that have failed, now or before.

    Raises:
        ValueError: If configurations repeat, or another job is writing to the file.
        OSError: If a result cannot be written.
    """
    by_name = {identity(config): config for config in configs}
    if len(by_name) < len(configs):
        raise ValueError(f"{len(configs) - len(by_name)} configurations are there twice")
    with _open_alone(Path(path)) as file:
        rows = [row for row in load(path) if row["run"] in by_name]
        if retry_failed:
            rows = [row for row in rows if row["status"] != "failed"]
        known = {row["run"] for row in rows}
        todo = [config for name, config in by_name.items() if name not in known]
        bar = tqdm(total=len(configs), initial=len(rows), desc=label, unit="run", file=sys.stdout)
        with bar, make_executor() as executor:
            waiting = {executor.submit(attempt, function, config): config for config in todo}

            def write_down(futures: Iterable[Future]) -> None:
                for future in as_completed(futures):
                    error = future.exception()
                    row = _failed(waiting[future], error) if error else future.result()
                    file.write(json.dumps(row).encode() + b"\n")
                    del waiting[future]
                    file.flush()
                    os.fsync(file)
                    rows.append(row)
                    if failed := _count_failed(rows):
                        bar.set_postfix_str(f"{failed} failed", refresh=False)
                    bar.update()

            try:
                write_down(waiting)
            except KeyboardInterrupt:
                print("\nstopping: waiting for the runs under way", file=sys.stderr)
                write_down([future for future in waiting if not future.cancel()])
                raise
            finally:
                for future in waiting:
                    future.cancel()
    return _count_failed(rows)


@contextlib.contextmanager
def _open_alone(path: Path) -> Iterator[BinaryIO]:
    """A results file to append to, for one job at a time; a half line at its end is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another job is writing to {path}") from None
        file.truncate(path.read_bytes().rfind(b"\n") + 1)
        yield file


def attempt(function: Callable[[Config], Row], config: Config) -> Row:
    """Run once, where the work is done; return the row, with the error if it failed."""
    try:
        row = {"run": identity(config), "status": "done", **config, **function(config)}
        json.dumps(row, allow_nan=False)
    except Exception as error:
        return _failed(config, error)
    return row


def _failed(config: Config, error: BaseException) -> Row:
    said = f"{type(error).__name__}: {error}"
    return {"run": identity(config), "status": "failed", **config, "error": said}


def _count_failed(rows: Sequence[Row]) -> int:
    return sum(row["status"] == "failed" for row in rows)
