"""What a run tells Dagster of the hours, days or months that it published: the part that they share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import ClassVar, Generic, NoReturn, TypeVar

import dagster as dg

from antenna_assets.defs.checks import evaluation, result
from antenna_assets.defs.event_log import events_together
from antenna_assets.errors import AntennaError
from antenna_assets.verify.claims.verdict import Verdict

Metadata = Mapping[str, int | float | dg.MetadataValue]

_Partition = TypeVar("_Partition", bound=date)


class RunReport(ABC, Generic[_Partition]):
    """What became of the partitions of a run, recorded in Dagster at its end.

    Dagster records those of a step that succeeds, all at once, and none of one that fails: those that were
    published are recorded here then.

    Attributes:
        UNIT: what a check was of.
    """

    UNIT: ClassVar[str]

    def __init__(self, context: dg.AssetExecutionContext, asked: Sequence[_Partition]) -> None:
        self._context = context
        self._asked = asked
        self._metadata: dict[tuple[str, _Partition], Metadata] = {}
        self._verdicts: dict[dg.AssetCheckKey, dict[str, Verdict]] = {}
        self._failures: dict[_Partition, AntennaError] = {}

    @abstractmethod
    def _key(self, partition: _Partition) -> str:
        """The partition's key in Dagster."""

    @abstractmethod
    def _raise(self) -> NoReturn:
        """Raise the one failure, or one of several: its message has the first."""

    def results(self) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        """Record everything.

        Raises:
            AntennaError: what failed.
        """
        # In a run with the tags of a range, even of a single partition, Dagster stores a result under none.
        if not self._context.has_partition_key or self._failures:
            self._record_verdicts()
        if self._failures:
            self._record_published()
            self._raise()
        # Both tables of a day are one publication: it may have more assets than the run.
        chosen = {key.to_user_string() for key in self._context.selected_asset_keys}
        for (asset, partition), metadata in self._metadata.items():
            if asset in chosen:
                self._context.add_asset_metadata(metadata, asset, self._key(partition))
        # Dagster makes its events of a result while this waits. It looks up what a result is based on: each
        # asset is stored before those made of it, and all of them before their checks.
        for asset in dict.fromkeys(asset for asset, _ in self._metadata if asset in chosen):
            with events_together(self._context.instance):
                yield dg.MaterializeResult(asset_key=asset)
        with events_together(self._context.instance):
            for check, of_each in self._verdicts.items():
                yield result(check, of_each, self.UNIT)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record what was published if an error ends the block: nobody asks for that again."""
        try:
            yield
        except (Exception, dg.DagsterExecutionInterruptedError):  # The latter: the run is terminated.
            self._record_verdicts()
            self._record_published()
            raise

    def _record_verdicts(self) -> None:
        with events_together(self._context.instance):
            for check, of_each in self._verdicts.items():
                for key, verdict in of_each.items():
                    # It accepts this kind of event; its annotation does not list it.
                    self._context.op_execution_context.log_event(
                        evaluation(check, verdict, key, self.UNIT)  # type: ignore[arg-type]
                    )

    def _record_published(self) -> None:
        with events_together(self._context.instance):
            for (asset, partition), metadata in self._metadata.items():
                self._context.log_event(
                    dg.AssetMaterialization(asset, partition=self._key(partition), metadata=metadata)
                )
