"""Trials in a database, in Optuna's tables: one transaction for each thing that happens to a trial.

Optuna's own calls write a trial parameter by parameter, two statements each, and a trial's end in as many transactions as it has attributes; over a network
that is most of the time between two evaluations. They also repeat a creation whose answer was lost, which makes a trial twice. The tables and their
meaning are Optuna's (schema version 12), so `optuna-dashboard` and `optuna` read them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from nas.errors import ArtifactError
from nas.searching.backend import CONSTRAINT, Backend, Record, constraints
from nas.searching.retry import Retry, reason_of
from nas.spaces.architecture import Gene

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import TrialState
    from sqlalchemy import Connection, Engine

T = TypeVar("T")

OPENINGS = 8
"""How often opening a database is tried while another worker creates its tables. Set by hand."""

OPEN = ("RUNNING", "WAITING")
"""States in which a trial may change."""

CHUNK = 500
"""How many trials one statement asks for. Set by hand."""

IDLE_S = 15
"""How long a transaction may stand open without a statement: a process that was paused in the middle of one must not hold the others up.
Set by hand."""

FRESH_S = 2.0
"""For how long what was read of an open trial is believed: nothing but its lease changes, once in many seconds. Set by hand."""

CLOCK_S = 20.0
"""For how long a reading of the database's clock is good. Set by hand."""


class Database(Backend):
    """Trials in an SQL database.

    Args:
        url: An SQLAlchemy URL.
        label: Name of it in messages.
        timeout_s: How long it may be away.

    Raises:
        ArtifactError: It cannot be opened; the message says why.
    """

    def __init__(self, url: str, *, label: str, timeout_s: float) -> None:
        self.label = label
        self._retry = Retry(label, timeout_s)
        self._rdb = _connect(url, label, self._retry, timeout_s)
        self._params: dict[int, tuple[dict[str, Gene], dict[str, float]]] = {}
        self._open: dict[int, tuple[Record, float]] = {}
        self._texts: tuple[Mapping[str, BaseDistribution], dict[str, str]] = {}, {}
        self._offset_s, self._read_s = 0.0, -CLOCK_S

    @property
    def outages(self) -> int:
        """How often the storage was away so far."""
        return self._retry.outages

    @property
    def optuna_storage(self) -> optuna.storages.BaseStorage:
        """Optuna's object for the same storage."""
        return self._rdb

    def studies(self) -> dict[str, int]:
        """Return the studies by name."""
        return {study.study_name: study._study_id for study in self._retry(lambda _: self._rdb.get_all_studies())}

    def open_study(self, name: str, directions: Sequence[str], titles: Sequence[str]) -> int:
        """Return a study by its name, made where it is absent."""
        known = self.studies()
        return known[name] if name in known else self._retry(lambda _: open_optuna_study(self._rdb, name, directions, titles))

    def directions(self, study_id: int) -> list[str]:
        """Return the directions of a study's objectives."""
        return self._retry(lambda _: [direction.name.lower() for direction in self._rdb.get_study_directions(study_id)])

    def study_attributes(self, study_id: int) -> Mapping[str, object]:
        """Return the facts stored with a study."""
        return self._retry(lambda _: self._rdb.get_study_user_attrs(study_id))

    def set_study_attribute(self, study_id: int, key: str, value: str) -> None:
        """Store a fact of a study."""
        self._retry(lambda _: self._rdb.set_study_user_attr(study_id, key, value))

    def records(self, study_id: int, first: int, known: set[int]) -> list[Record]:
        """Return the trials from number `first` on, but for the numbers in `known`, in order."""
        return self._retry(lambda _: self._records(study_id, first, known))

    def create(self, study_id: int, record: Record, distributions: Mapping[str, BaseDistribution], token: str) -> Record:
        """Append a trial."""
        done = self._in_one(lambda connection, again: self._create(connection, again, study_id, record, distributions, token))
        if record.state in OPEN:
            self._params[done.trial_id] = dict(record.params), dict(record.violations)  # need not be read
            self._open[done.trial_id] = done, time.monotonic()
        return done

    def claim(self, trial_id: int, attributes: Mapping[str, Any]) -> bool:
        """Set a waiting trial running with its owner."""
        return self._in_one(lambda connection, again: self._claim(connection, again, trial_id, attributes))

    def close(self, trial_id: int, state: str, values: Sequence[float] | None, attributes: Mapping[str, Any]) -> bool:
        """End a trial."""
        done = self._in_one(lambda connection, _: self._close(connection, trial_id, state, values, attributes))
        if done:
            self._params.pop(trial_id, None)
            self._open.pop(trial_id, None)
        return done

    def set_attributes(self, trial_id: int, attributes: Mapping[str, Any]) -> bool:
        """Store attributes of a trial that is not closed."""

        def write(connection: Connection, again: bool) -> bool:  # noqa: ARG001 - a value that replaces another may be written twice
            if _locked(connection, trial_id).is_finished():
                return False
            _write_attributes(connection, trial_id, attributes)
            return True

        self._open.pop(trial_id, None)
        return self._in_one(write)

    def clock_s(self) -> float | None:
        """Return the server's time in seconds since 1970; None for a database without a server."""
        statement = {"postgresql": "SELECT extract(epoch FROM clock_timestamp())", "mysql": "SELECT unix_timestamp(now(6))"}
        if self._rdb.engine.dialect.name not in statement:
            return None
        if time.monotonic() - self._read_s >= CLOCK_S:
            from sqlalchemy import text

            def read(again: bool) -> float:  # noqa: ARG001
                with self._reading() as connection:
                    return float(connection.execute(text(statement[self._rdb.engine.dialect.name])).scalar_one())

            self._offset_s = self._retry(read) - time.monotonic()
            self._read_s = time.monotonic()
        return time.monotonic() + self._offset_s

    def _in_one(self, work: Callable[[Connection, bool], T]) -> T:
        """Run `work` in one transaction, repeated while the database is away; it is told whether it was tried before."""

        def attempt(again: bool) -> T:
            with self._rdb.engine.begin() as connection:
                return work(connection, again)

        return self._retry(attempt)

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """A connection on which each statement is for itself: what is read grows in one direction only."""
        with self._rdb.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def _create(
        self, connection: Connection, again: bool, study_id: int, record: Record, distributions: Mapping[str, BaseDistribution], token: str
    ) -> Record:
        from optuna.trial import TrialState
        from sqlalchemy import func, select

        models = _tables()
        studies, trials, attribute = (m.__table__ for m in (models.StudyModel, models.TrialModel, models.TrialUserAttributeModel))
        # numbers are given one at a time: whoever holds the study's row counts, and any first try has ended by then
        connection.execute(select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update())
        if again:
            same = select(trials.c.trial_id, trials.c.number).join(attribute, attribute.c.trial_id == trials.c.trial_id)
            same = same.where(trials.c.study_id == study_id, attribute.c.key == "token", attribute.c.value_json == json.dumps(token))
            if (done := connection.execute(same).first()) is not None:
                return replace(record, trial_id=done[0], number=done[1])
        number = connection.scalar(select(func.count()).select_from(trials).where(trials.c.study_id == study_id)) or 0
        state = TrialState[record.state]
        begun, ended = None if state == TrialState.WAITING else _now(), _now() if state.is_finished() else None
        row = {"study_id": study_id, "number": number, "state": state, "datetime_start": begun, "datetime_complete": ended}
        made: Any = connection.execute(trials.insert(), row)
        key = made.inserted_primary_key[0]
        texts = self._distribution_texts(distributions)
        params = [
            {
                "trial_id": key,
                "param_name": name,
                "param_value": float(distributions[name].to_internal_repr(gene)),
                "distribution_json": texts[name],
            }
            for name, gene in record.params.items()
        ]
        own = {**record.attributes, "token": token}
        attributes = [{"trial_id": key, "key": name, "value_json": json.dumps(value)} for name, value in own.items()]
        broken = [{"trial_id": key, "key": name, "value_json": json.dumps(v)} for name, v in constraints(record.violations).items()]
        _insert(
            connection,
            (models.TrialParamModel.__table__, params),
            (attribute, attributes),
            (models.TrialSystemAttributeModel.__table__, broken),
        )
        return replace(record, trial_id=key, number=number)

    def _distribution_texts(self, distributions: Mapping[str, BaseDistribution]) -> dict[str, str]:
        from optuna.distributions import distribution_to_json

        if self._texts[0] is not distributions:
            self._texts = distributions, {name: distribution_to_json(distribution) for name, distribution in distributions.items()}
        return self._texts[1]

    def _claim(self, connection: Connection, again: bool, trial_id: int, attributes: Mapping[str, Any]) -> bool:
        from optuna.trial import TrialState

        state = _locked(connection, trial_id)
        if state != TrialState.WAITING:
            return again and state == TrialState.RUNNING and _has_attributes(connection, trial_id, {"owner": attributes["owner"]})
        _update_trial(connection, trial_id, state=TrialState.RUNNING, datetime_start=_now())
        _write_attributes(connection, trial_id, attributes)
        return True

    def _close(
        self, connection: Connection, trial_id: int, state: str, values: Sequence[float] | None, attributes: Mapping[str, Any]
    ) -> bool:
        from optuna.trial import TrialState

        trials = _tables().TrialModel.__table__
        is_open = trials.c.state.in_([TrialState[name] for name in OPEN])
        ended = {"state": TrialState[state], "datetime_complete": _now()}
        if not connection.execute(trials.update().where(trials.c.trial_id == trial_id, is_open), ended).rowcount:
            # by another process, or by a first try whose answer was lost
            return bool(_locked(connection, trial_id) == TrialState[state]) and _has_attributes(connection, trial_id, attributes)
        model = _tables().TrialValueModel
        stored = [model.value_to_stored_repr(value) for value in values or ()]
        rows = [{"trial_id": trial_id, "objective": i, "value": value, "value_type": kind} for i, (value, kind) in enumerate(stored)]
        _insert(connection, (model.__table__, rows))
        _write_attributes(connection, trial_id, attributes)
        return True

    def _records(self, study_id: int, first: int, known: set[int]) -> list[Record]:
        from sqlalchemy import select

        trials = _tables().TrialModel.__table__.c
        with self._reading() as connection:
            wanted = select(trials.trial_id, trials.number, trials.state).where(trials.study_id == study_id, trials.number >= first)
            rows = [row for row in connection.execute(wanted.order_by(trials.number)).all() if row.number not in known]
            fresh = {row.trial_id: record for row in rows if (record := self._believed(row)) is not None}
            missing = [row for row in rows if row.trial_id not in fresh]
            for start in range(0, len(missing), CHUNK):
                fresh |= {record.trial_id: record for record in self._details(connection, missing[start : start + CHUNK])}
        return [fresh[row.trial_id] for row in rows]

    def _believed(self, row: Any) -> Record | None:
        """Return an open trial as it was read a moment ago."""
        record, at_s = self._open.get(row.trial_id, (None, 0.0))
        return record if record is not None and record.state == row.state.name and time.monotonic() - at_s < FRESH_S else None

    def _details(self, connection: Any, rows: Sequence[Any]) -> list[Record]:
        ids = [row.trial_id for row in rows]
        new: dict[int, tuple[dict[str, Gene], dict[str, float]]] = {trial_id: ({}, {}) for trial_id in ids if trial_id not in self._params}
        attributes: dict[int, dict[str, object]] = {trial_id: {} for trial_id in ids}
        values: dict[int, dict[int, float]] = {row.trial_id: {} for row in rows if row.state.name == "COMPLETE"}
        model = _tables().TrialValueModel
        for kind, trial_id, key, text, number in connection.execute(
            _everything_of(), {"ids": ids, "new": list(new), "complete": list(values)}
        ).all():
            if kind == "attribute":
                attributes[trial_id][key] = json.loads(text)
            elif kind == "value":
                values[trial_id][int(key)] = model.stored_repr_to_value(number, model.TrialValueType[text])
            elif kind == "param":
                new[trial_id][0][key] = _distribution(text).to_external_repr(number)
            elif key.startswith(CONSTRAINT):
                new[trial_id][1][key.removeprefix(CONSTRAINT)] = json.loads(text)
        self._params |= new  # what never changes of a trial; only now, since the database may have been away meanwhile
        records = []
        for row in rows:
            of_trial, done = self._params[row.trial_id], values.get(row.trial_id)
            in_order = [done[i] for i in sorted(done)] if done is not None else None
            record = Record(row.trial_id, row.number, row.state.name, of_trial[0], attributes[row.trial_id], of_trial[1], in_order)
            if row.state.is_finished():
                self._params.pop(row.trial_id, None)
                self._open.pop(row.trial_id, None)
            else:
                self._open[row.trial_id] = record, time.monotonic()
            records.append(record)
        return records


METRIC_NAMES = "study:metric_names"
"""Where Optuna keeps what `Study.set_metric_names` sets."""


def open_optuna_study(storage: optuna.storages.BaseStorage, name: str, directions: Sequence[str], titles: Sequence[str]) -> int:
    """Return a study by its name, made where it is absent, with its objectives named."""
    import optuna
    from optuna.study import StudyDirection

    previous = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it says on stderr what it creates
    try:
        study_id = storage.create_new_study([StudyDirection[direction.upper()] for direction in directions], name)
        storage.set_study_system_attr(study_id, METRIC_NAMES, list(titles))
        return study_id
    except optuna.exceptions.DuplicatedStudyError:  # by another process, or by a first try whose answer was lost
        return storage.get_study_id_from_name(name)
    finally:
        optuna.logging.set_verbosity(previous)


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    from optuna.distributions import json_to_distribution

    return json_to_distribution(text)


@lru_cache
def _everything_of() -> Any:
    """Return one question for all that is stored with some trials: rows of (what, trial, key, text, number).

    Its lists: ``ids`` for the attributes, ``new`` for the parameters and violations, ``complete`` for the values.
    """
    from sqlalchemy import Float, String, bindparam, cast, literal_column, null, select, union_all

    models = _tables()
    attribute, system = models.TrialUserAttributeModel.__table__.c, models.TrialSystemAttributeModel.__table__.c
    param, value = models.TrialParamModel.__table__.c, models.TrialValueModel.__table__.c
    nothing = cast(null(), Float)
    columns = {
        ("attribute", "ids"): (attribute.trial_id, attribute.key, attribute.value_json, nothing),
        ("constraint", "new"): (system.trial_id, system.key, system.value_json, nothing),
        ("param", "new"): (param.trial_id, param.param_name, param.distribution_json, param.param_value),
        ("value", "complete"): (value.trial_id, cast(value.objective, String(11)), cast(value.value_type, String(16)), value.value),
    }
    return union_all(
        *(
            select(literal_column(f"'{kind}'"), *wanted).where(wanted[0].in_(bindparam(of, expanding=True)))
            for (kind, of), wanted in columns.items()
        )
    )


def _insert(connection: Connection, *added: tuple[Any, Sequence[Mapping[str, Any]]]) -> None:
    """Add rows to tables, all rows of a table with the same columns; PostgreSQL takes all by one statement, the rows of a table as one JSON text."""
    filled = [(table, rows) for table, rows in added if rows]
    if connection.dialect.name != "postgresql":
        for table, rows in filled:
            connection.execute(table.insert(), rows)
    elif filled:
        *first, last = [_insertion(connection, table, tuple(rows[0])) for table, rows in filled]
        before = f"WITH {', '.join(f'added{i} AS ({text})' for i, text in enumerate(first))} " if first else ""
        connection.exec_driver_sql(f"{before}{last}", tuple(json.dumps(rows, default=lambda member: member.name) for _, rows in filled))


def _insertion(connection: Connection, table: Any, names: Sequence[str]) -> str:
    quote = connection.dialect.identifier_preparer.quote
    columns = ", ".join(map(quote, names))
    types = ", ".join(f"{quote(name)} {table.c[name].type.compile(connection.dialect)}" for name in names)
    return f"INSERT INTO {quote(table.name)} ({columns}) SELECT {columns} FROM json_to_recordset(CAST(%s AS json)) AS given({types})"


def _tables() -> Any:
    """Return Optuna's tables."""
    from optuna.storages._rdb import models

    return models


def _now() -> datetime:
    """Return the time as Optuna's tables hold it."""
    return datetime.now(UTC).replace(tzinfo=None)


def _locked(connection: Connection, trial_id: int) -> TrialState:
    """Return the state of a trial, which nobody else changes until the transaction ends."""
    from sqlalchemy import select

    trials = _tables().TrialModel.__table__
    state = connection.scalar(select(trials.c.state).where(trials.c.trial_id == trial_id).with_for_update())
    if state is None:
        raise ArtifactError(f"storage: trial {trial_id} is gone. Expected that a study is not deleted while a search works on it.")
    return cast("TrialState", state)


def _update_trial(connection: Connection, trial_id: int, **columns: Any) -> None:
    trials = _tables().TrialModel.__table__
    connection.execute(trials.update().where(trials.c.trial_id == trial_id), columns)


def _attributes(connection: Connection, trial_id: int) -> dict[str, str]:
    from sqlalchemy import select

    table = _tables().TrialUserAttributeModel.__table__
    rows = connection.execute(select(table.c.key, table.c.value_json).where(table.c.trial_id == trial_id))
    return {row.key: row.value_json for row in rows}


def _write_attributes(connection: Connection, trial_id: int, attributes: Mapping[str, Any]) -> None:
    if not attributes:
        return
    table, known = _tables().TrialUserAttributeModel.__table__, _attributes(connection, trial_id)
    for key, value in attributes.items():
        text = json.dumps(value)
        if key in known:
            connection.execute(table.update().where(table.c.trial_id == trial_id, table.c.key == key), {"value_json": text})
        else:
            connection.execute(table.insert(), {"trial_id": trial_id, "key": key, "value_json": text})


def _has_attributes(connection: Connection, trial_id: int, attributes: Mapping[str, Any]) -> bool:
    stored = {key: json.loads(text) for key, text in _attributes(connection, trial_id).items()}
    return all(key in stored and stored[key] == json.loads(json.dumps(value)) for key, value in attributes.items())


def _connect(url: str, label: str, retry: Retry, timeout_s: float) -> optuna.storages.RDBStorage:
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

    if url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)

    def attempt(again: bool) -> RDBStorage:  # noqa: ARG001 - tables that exist are not made again
        for opening in range(1, OPENINGS + 1):
            try:
                return RDBStorage(url, engine_kwargs=_engine_options(url, timeout_s))
            except (IntegrityError, ProgrammingError):  # another worker is creating the tables
                if opening == OPENINGS:
                    raise
                time.sleep(0.2 * opening)
        raise AssertionError("unreachable")

    try:
        storage = retry(attempt)
    except ImportError as error:
        raise ArtifactError(
            f"storage {label}: its driver is missing ({error}). Do this: pip install 'hardware-aware-nas[postgresql]'."
        ) from None
    except (SQLAlchemyError, StorageInternalError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"storage {label}: cannot be opened ({reason_of(error)}).") from None
    if storage.engine.dialect.name == "postgresql":
        _let_go_when_idle(storage.engine)
    return storage


def _engine_options(url: str, timeout_s: float) -> dict[str, object]:
    """Return SQLAlchemy's options: a link that is cut without a word is noticed within half a minute."""
    from sqlalchemy import make_url

    driver = make_url(url).drivername
    if driver in ("postgresql+psycopg", "postgresql+psycopg2"):
        alive = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
        return {"connect_args": {"connect_timeout": 10, **alive}, "pool_recycle": 1800}
    if driver.startswith("sqlite"):
        return {"connect_args": {"timeout": max(1.0, timeout_s)}}
    return {"pool_pre_ping": True, "pool_recycle": 1800}


def _let_go_when_idle(engine: Engine) -> None:
    """Have the server end transactions in which nothing happens, on every connection from now on."""
    from sqlalchemy import event

    def bound(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_S}s'")
        connection.commit()

    event.listen(engine, "connect", bound)
    engine.dispose()
