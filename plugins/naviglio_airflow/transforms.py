"""The step of the data path that Spark does, as an operator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from naviglio_airflow.operators import lineage_facets, raise_all, site_of, told_to_airflow

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from naviglio_airflow.spark import Submitter


class TransformOperator(BaseOperator):
    """Compute a pipeline's transforms from the lake: all in one Spark application, or none.

    Only the days that changes of the inputs touch are computed; where nothing is touched, no Spark
    is started. Airflow's Spark provider submits it. The task's end, whatever ends it, ends the
    application.

    Args:
        pipeline: The path of the pipeline's YAML file.
        spark_conn_id: The Spark connection that says where it runs; `spark_default` means
            `local[*]` where nobody declared it.
        kwargs: What every operator takes.
    """

    template_fields: Sequence[str] = ("pipeline", "spark_conn_id")
    ui_color = "#f5e6d9"

    def __init__(
        self, *, pipeline: str, spark_conn_id: str = "spark_default", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.spark_conn_id = spark_conn_id
        self._submitter: Submitter | None = None

    def execute(self, context: Context) -> dict[str, int]:
        """Land the next batch of every transform whose inputs changed; return counts."""
        from naviglio.flows.transform import transform
        from naviglio.transform.spark import spark_at
        from naviglio_airflow.spark import Submitter

        if context["params"].get("tables"):
            return {}
        with told_to_airflow(), site_of(self.pipeline) as site:
            by = self._submitter = Submitter(self.spark_conn_id)
            done = transform(
                site,
                site.pipeline.transforms,
                lambda *asked: spark_at(by.cluster, site.home.root, os.environ, by.start).submit(
                    *asked
                ),
            )
            raise_all(done.errors)
        rows = sum(part.upserts for batch in done.batches.values() for part in batch.parts)
        return {"batches": len(done.batches), "upserts": rows}

    def on_kill(self) -> None:
        """End the application."""
        if self._submitter is not None:
            self._submitter.end()

    def get_openlineage_facets_on_complete(
        self, task_instance: object
    ) -> OperatorLineage[Any, Any]:
        """Return which lake tables the transforms read, and what they landed, for OpenLineage."""
        del task_instance
        return lineage_facets(self.pipeline, "transform", ())
