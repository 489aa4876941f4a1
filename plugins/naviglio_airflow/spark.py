"""Spark by Airflow's provider: a connection, checked first, and its own hook that submits to it.

Imported by tasks only: the provider's hook costs a second.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException

from naviglio.errors import ConfigError, RetryableError
from naviglio.transform.cluster import HERE, SPARK, Cluster, cluster_of
from naviglio.transform.spark import DRIVER, Application, end

_OF_FORMS = ("__", "placeholder")  # keys that forms of the UI add to an extra


class SparkHook(SparkSubmitHook):
    """The provider's hook over a connection that was checked, and whose end leaves nothing.

    Args:
        connection: The connection, its keytab taken out: the provider would write it to a file in
            /tmp that others may read and that stays.
        kwargs: What the provider's hook takes.
    """

    def __init__(self, connection: Connection, **kwargs: Any) -> None:
        self._checked = connection
        super().__init__(conn_id=connection.conn_id, **kwargs)

    # The one that was checked, whatever stands there by now; there it is a class method.
    def get_connection(self, conn_id: str) -> Connection:  # type: ignore[override]
        """Return the connection that was checked."""
        del conn_id
        return self._checked

    def on_kill(self) -> None:
        """End the whole application, then what the provider knows to end elsewhere."""
        if self._submit_sp is not None and self._submit_sp.poll() is None:
            end(self._submit_sp)
        super().on_kill()


class Submitter:
    """Starts applications by the provider's hook; the task that holds it ends them by `end`."""

    def __init__(self, conn_id: str) -> None:
        self._connection = connection_of(conn_id)
        self.cluster = checked(self._connection)
        self._hook: SparkHook | None = None

    def start(self, cluster: Cluster, application: Application) -> None:
        """Submit and wait for the end; RetryableError when it ends badly."""
        hook = self._hook = self.hook(cluster, application)
        try:
            hook.submit(
                str(DRIVER), cwd=application.work.parent, env=dict(application.environ),
                start_new_session=True, encoding="utf-8", errors="replace",
            )  # fmt: skip
        except AirflowException as error:
            raise RetryableError(
                "spark-submit ended badly. What it said is in the task's log, above."
            ) from error
        except BaseException:
            hook.on_kill()
            raise

    def hook(self, cluster: Cluster, application: Application) -> SparkHook:
        """Return the provider's hook for an application."""
        return SparkHook(
            _without_keytab(self._connection), conf=dict(application.conf), name=application.name,
            jars=application.jars, application_args=application.arguments,
            keytab=str(application.keytab) if application.keytab else None,
            proxy_user=cluster.proxy_user or None, properties_file=cluster.properties_file or None,
        )  # fmt: skip

    def end(self) -> None:
        """End the application that is running, if any."""
        if self._hook is not None:
            self._hook.on_kill()


def connection_of(conn_id: str) -> Connection:
    """Return a Spark connection; `spark_default` where nobody declared it is `local[*]`.

    ConfigError for another id that Airflow doesn't know: the provider would go to YARN.
    """
    try:
        found: Connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        if conn_id == SPARK:
            return Connection(conn_id=conn_id, conn_type="spark", host=HERE)
        raise ConfigError(
            f"Airflow has no connection {conn_id!r}. Declare it under Admin, Connections: type "
            "Spark, its host a master such as local[*] or spark://master:7077."
        ) from None
    return found


def checked(connection: Connection) -> Cluster:
    """Return where a connection leads; ConfigError for what isn't known, or can't be kept."""
    extra = connection.extra_dejson
    wanted = {key: value for key, value in extra.items() if not key.startswith(_OF_FORMS)}
    cluster = cluster_of(str(connection.conn_id), master_of(connection), wanted)
    if cluster.master.startswith("k8s:") and not _has_kubernetes():
        raise ConfigError(
            f"Spark connection {connection.conn_id!r} leads to Kubernetes, for which the provider "
            "needs another one. Install apache-airflow-providers-cncf-kubernetes."
        )
    return cluster


def master_of(connection: Connection) -> str:
    """Return the master as the provider reads it, from a form or from a URI."""
    host, kind = connection.host or "", connection.conn_type
    whole = kind == "spark" and host and ("://" in host or not connection.port)
    master = host if whole else f"{kind}://{host}"
    return f"{master}:{connection.port}" if connection.port else master


def _has_kubernetes() -> bool:
    try:
        return importlib.util.find_spec("airflow.providers.cncf.kubernetes") is not None
    except ModuleNotFoundError:
        return False


def _without_keytab(connection: Connection) -> Connection:
    extra = {key: v for key, v in connection.extra_dejson.items() if key != "keytab"}
    return Connection(
        conn_id=connection.conn_id, conn_type=connection.conn_type, host=connection.host,
        port=connection.port, extra=json.dumps(extra),
    )  # fmt: skip
