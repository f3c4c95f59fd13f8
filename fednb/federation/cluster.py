"""A party's own Dask cluster, for the heavy work on its rows where one machine is outgrown (`fednb[dask]`).

Dask sends code and data as pickles, so whoever reaches the scheduler can run code on the workers and read what passes.
Hence a cluster on another machine is spoken to by TLS only, with the certificates of Dask's own configuration
(`distributed.comm.tls`). It sees the party's features and encrypted numbers, never a secret key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fednb.errors import ClusterError, ConfigError
from fednb.protocols import executor
from fednb.version import __version__

CONNECT_SECONDS = 20
ROUND_SECONDS = 5.0  # between two looks at whether there is anybody who works
NO_WORKER_ROUNDS = 6  # a worker that restarts may take so many


class Cluster:
    """Connected to the scheduler at `address`. `executor` hands it a role's work; `close` leaves it running.

    Raises ConfigError when Dask is not installed, nobody answers, there is no worker, or a worker has another fednb.
    """

    def __init__(self, member: str, address: str) -> None:
        self._member, self._address = member, address
        try:
            from distributed import Client
        except ImportError:
            raise ConfigError(
                f"{member} works on the Dask cluster at {address}, and Dask is not installed: pip install 'fednb[dask]'"
            ) from None
        try:
            self._client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:  # TypeError: tls:// without a certificate
            raise ConfigError(
                f"{member} cannot reach the Dask scheduler at {address}: {type(error).__name__}: {error}"
            ) from None
        try:
            self._check()
        except BaseException:
            self.close()
            raise
        self.executor = executor.Workers(self._map, self._threads)

    def __repr__(self) -> str:
        return f"<Dask cluster of {self._member} at {self._address}>"

    def close(self) -> None:
        self._client.close()

    def _check(self) -> None:
        try:
            found = self._client.run(executor.about)
        except Exception as error:  # on a worker without fednb, the way back differs by Dask's version
            raise ConfigError(
                f"a worker of the Dask cluster at {self._address} cannot run fednb ({type(error).__name__}: {error}). "
                f"Install fednb {__version__} on every worker."
            ) from None
        if not found:
            raise ConfigError(
                f"the Dask cluster at {self._address} has no worker. Start one: dask worker {self._address}"
            )
        others = {version for version, _ in found.values()} - {__version__}
        if others:
            raise ConfigError(
                f"workers of the Dask cluster at {self._address} have fednb {', '.join(sorted(others))}, and "
                f"{self._member} has {__version__}. Install the same version on all of them."
            )

    def _wait(self, futures: Sequence[Any]) -> None:
        """Until they are done: Dask itself would wait for a worker for ever."""
        from distributed import wait

        patience = NO_WORKER_ROUNDS
        while True:
            try:
                with self._client.as_current():
                    wait(futures, timeout=ROUND_SECONDS)
                return
            except TimeoutError:
                patience = NO_WORKER_ROUNDS if self._threads() else patience - 1
                if not patience:
                    self._client.cancel(futures)
                    raise ClusterError(
                        f"the Dask cluster of {self._member} has no worker any more. The run can be resumed when it "
                        "has one."
                    ) from None

    def _threads(self) -> int:
        return sum(self._client.nthreads().values())

    def _map(self, task: executor.Task, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Dask repeats what a worker that dies leaves undone; ClusterError when it gives up, or is gone itself."""
        try:
            # pure=True would answer a repeated encryption with the first one's ciphertexts, randomness and all
            futures = self._client.map(task, *zip(*calls, strict=True), pure=False)
            self._wait(futures)
            return list(self._client.gather(futures))
        except ClusterError:
            raise
        except Exception as error:  # Dask's own, and whatever a worker raised: its text might quote data
            raise ClusterError(
                f"the Dask cluster of {self._member} failed ({type(error).__name__}). Look at its scheduler's and "
                "workers' logs; the run can be resumed when it works again."
            ) from error
