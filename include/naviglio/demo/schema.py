"""The operational system's tables, as its own developers would have written them.

`flights` and `weather` are log tables: an event time, and a `modified_at` that the database sets
from its own clock on every insert and update. `planes`, `airports` and `airlines` are registry
tables: a key, and no trace of when a row changed. No foreign keys: the real rows name planes and
airports that the registries lack.
"""

from __future__ import annotations

KEYS: dict[str, tuple[str, ...]] = {
    "flights": ("time_hour", "carrier", "flight"),
    "weather": ("origin", "time_hour"),
    "planes": ("tailnum",),
    "airports": ("faa",),
    "airlines": ("carrier",),
}

CREATE = """
create table airlines (carrier varchar(2) primary key, name text not null);
create table airports (
    faa varchar(3) primary key, name text not null,
    lat double precision not null, lon double precision not null, alt integer not null,
    tz smallint not null, dst char(1) not null, tzone text
);
create table planes (
    tailnum varchar(6) primary key, year smallint,
    type text not null, manufacturer text not null, model text not null,
    engines smallint not null, seats smallint not null, speed smallint, engine text not null
);
create table weather (
    origin varchar(3) not null,
    year smallint not null, month smallint not null, day smallint not null, hour smallint not null,
    temp double precision, dewp double precision, humid double precision,
    wind_dir smallint, wind_speed double precision, wind_gust double precision,
    precip numeric(4, 2), pressure numeric(5, 1), visib numeric(4, 2),
    time_hour timestamptz not null,
    modified_at timestamptz not null,
    primary key (origin, time_hour)
);
create table flights (
    year smallint not null, month smallint not null, day smallint not null,
    dep_time smallint, sched_dep_time smallint not null, dep_delay smallint,
    arr_time smallint, sched_arr_time smallint not null, arr_delay smallint,
    carrier varchar(2) not null, flight integer not null, tailnum varchar(6),
    origin varchar(3) not null, dest varchar(3) not null,
    air_time smallint, distance integer not null,
    hour smallint not null, minute smallint not null,
    time_hour timestamptz not null,
    modified_at timestamptz not null,
    primary key (time_hour, carrier, flight)
);

-- The statement's own moment, not the transaction's: rows of one transaction differ, and a
-- transaction that commits late leaves values older than others already committed.
create function set_modified_at() returns trigger language plpgsql as $$
begin
    new.modified_at := clock_timestamp();
    return new;
end $$;
create trigger set_modified_at before insert or update on weather
    for each row execute function set_modified_at();
create trigger set_modified_at before insert or update on flights
    for each row execute function set_modified_at();

-- The simulated calendar: the last day played in full, and how many steps of the next one are done.
create table demo_clock (
    day date not null, steps smallint not null default 0,
    only_row boolean primary key default true check (only_row)
);
"""

# After the load, so that it is not slowed down. The primary key of flights serves its event time.
INDEX = """
create index on weather (modified_at);
create index on weather (time_hour);
create index on flights (modified_at);
analyze airlines; analyze airports; analyze planes; analyze weather; analyze flights;
"""

DROP = """
drop table airlines, airports, planes, weather, flights, demo_clock;
drop function set_modified_at;
"""
