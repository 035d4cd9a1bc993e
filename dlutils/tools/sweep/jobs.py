"""Many runs of one function, side by side, each written down as it ends; a killed job resumes.

A run is a configuration, a mapping of plain values; its result is one line of JSON in a results
file. The parent alone writes, a whole line at a time, so that a file holds no run twice and no half
of one, whoever was killed and when. The executor is any of `concurrent.futures`.
"""

import contextlib
import datetime
import errno
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, ProcessPoolExecutor, wait
from io import StringIO
from multiprocessing import connection
from pathlib import Path

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
    """A maker of process pools, for `run_all`.

    Args:
        workers: Processes, at least 1.
        preload: Modules to import once for all of them, where the system can fork.
    """
    context = fresh_processes([__name__, *preload])
    return lambda: ProcessPoolExecutor(workers, context, initializer=_start_worker)


@contextlib.contextmanager
def dask_cluster(address: str) -> Iterator[tuple[Callable[[], Executor], int]]:
    """A maker of executors on a Dask cluster, and how many runs to hand it at a time.

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
    except (OSError, TimeoutError, ValueError) as error:
        raise ValueError(f"no Dask scheduler answers at {address!r}: {error}") from error
    with client:
        threads = client.nthreads()
        if not threads:
            raise ValueError(f"the Dask cluster at {address!r} has no workers")
        if max(threads.values()) > 1:
            raise ValueError(
                "the Dask workers must have one thread each, because runs in one process share "
                "torch's random numbers: start them with --nthreads 1 (and --nworkers for more)"
            )
        yield client.get_executor, 2 * len(threads)


def run_all(
    function: Callable[[Config], Row],
    configs: Sequence[Config],
    path: str | Path,
    make_executor: Callable[[], Executor],
    width: int,
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
        make_executor: Returns a fresh executor, after a process has died too.
        width: Runs to hand to the executor at a time.
        retry_failed: Whether to run those again that failed before.
        label: Text in front of the progress bar.

    Returns:
        The number of these runs that have failed, now or before.

    Raises:
        ValueError: If configurations repeat, or another job is writing to the file.
        OSError: If a result cannot be written; the file then ends with the result before it.
    """
    by_name = {identity(config): config for config in configs}
    if len(by_name) < len(configs):
        raise ValueError(f"{len(configs) - len(by_name)} configurations are there twice")
    with _append_to(Path(path)) as append:
        known = {row["run"]: row["status"] for row in load(path) if row["run"] in by_name}
        if retry_failed:
            known = {name: status for name, status in known.items() if status != "failed"}
        failed = sum(status == "failed" for status in known.values())
        todo = [by_name[name] for name in by_name if name not in known]
        with tqdm(
            total=len(configs),
            initial=len(known),
            desc=label,
            unit="run",
            smoothing=0.1,
            file=sys.stdout,
        ) as bar:
            for line in _results(function, todo, make_executor, width):
                append(line)
                failed += json.loads(line)["status"] == "failed"
                bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
                bar.update()
    return failed


def attempt(function: Callable[[Config], Row], config: Config) -> str:
    """Run once, where the work is done; return the row as JSON, with the error if it failed."""
    row = {"run": identity(config), "status": "done", **config}
    try:
        with contextlib.redirect_stdout(StringIO()):  # the screen is the progress bar's
            return _line(row | function(config))
    except Exception as error:
        return _failure(config, f"{type(error).__name__}: {error}")


def _failure(config: Config, error: str) -> str:
    return _line({"run": identity(config), "status": "failed", **config, "error": error})


def _line(row: Row) -> str:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return json.dumps(row | {"finished": now}, allow_nan=False) + "\n"


def _results(
    function: Callable[[Config], Row],
    configs: Sequence[Config],
    make_executor: Callable[[], Executor],
    width: int,
) -> Iterator[str]:
    """Lines as the runs end. After a death the runs that were under way run again, one by one."""
    todo, suspects, deaths = deque(configs), deque(), Counter()
    while todo or suspects:
        executor, under_way = make_executor(), {}
        try:
            while True:
                room = 1 if suspects else width
                with contextlib.suppress(BrokenExecutor):  # the runs under way will say so
                    while (queue := suspects or todo) and len(under_way) < room:
                        future = executor.submit(attempt, function, queue[0])
                        under_way[future] = queue.popleft()
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                broken = any(isinstance(future.exception(), BrokenExecutor) for future in done)
                if broken or not done:
                    break
                for future in done:
                    yield _outcome(future, under_way.pop(future))
        except KeyboardInterrupt:
            print("\nstopping: waiting for the runs under way", file=sys.stderr)
            for future in [future for future in under_way if future.cancel()]:
                del under_way[future]
            for future, config in under_way.items():
                yield _outcome(future, config)
            raise
        finally:
            for future in under_way:
                future.cancel()
            executor.shutdown()
        for future, config in under_way.items():  # left over by a death, and all ended by now
            if future.cancelled():
                todo.append(config)
            elif not isinstance(future.exception(), BrokenExecutor):
                yield _outcome(future, config)
            elif deaths[identity(config)] + 1 < DEATHS:
                deaths[identity(config)] += 1
                suspects.append(config)
            else:
                yield _failure(config, f"its process died {DEATHS} times: killed, or no memory")


def _outcome(future, config: Config) -> str:
    """A run's line; an executor's own error (Dask: a worker died too often) is the run's."""
    if error := future.exception():
        return _failure(config, f"{type(error).__name__}: {error}")
    return future.result()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent has ended, however it did."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _append_to(path: Path) -> Iterator[Callable[[str], None]]:
    """Open for whole lines alone; a half line at the end is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        if fcntl:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another job is writing to {path}") from None
        content = path.read_bytes()
        os.ftruncate(descriptor, content.rfind(b"\n") + 1)

        def append(line: str) -> None:
            data, size = line.encode(), os.fstat(descriptor).st_size
            if os.write(descriptor, data) != len(data):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(descriptor)

        yield append
    finally:
        os.close(descriptor)
