-- +goose Up

-- What an event says stands in its payload. The facts are read from there when somebody asks for them, which is rare,
-- because counts come from the roll-ups. Text is compared by bytes, which is what its indexes need and costs least.
alter table csfproxy.events drop column facts;

-- +goose StatementBegin
create function csfproxy.facts(payload bytea) returns jsonb
language plpgsql immutable strict parallel restricted set search_path = pg_catalog, pg_temp as $$
declare
    n    integer := get_byte(payload, 2) + (get_byte(payload, 3) << 8) + (get_byte(payload, 4) << 16);
    m    integer;
    head jsonb   := convert_from(substring(payload from 7 for n), 'UTF8')::jsonb;
begin
    if get_byte(payload, 1) = 1 then
        -- Of a body that is withheld the names of its fields are known.
        return coalesce((select jsonb_object_agg(name, '[withheld]') from jsonb_array_elements_text(head -> 'has') name), '{}')
            || coalesce(head -> 'facts', '{}');
    end if;
    m := 7 + n + 16;
    return coalesce(head -> 'facts', '{}') || coalesce(convert_from(substring(payload from m + 4 for
        get_byte(payload, m - 1) + (get_byte(payload, m) << 8) + (get_byte(payload, m + 1) << 16)), 'UTF8')::jsonb -> 'facts', '{}');
exception when data_exception or program_limit_exceeded then -- a payload that this program did not write
    return jsonb_build_object('facts_error', sqlerrm);
end $$;
-- +goose StatementEnd

drop index csfproxy.events_kind_time;
drop index csfproxy.events_session;
drop index csfproxy.events_identity;
drop index csfproxy.events_sessions;
drop index csfproxy.events_time;

create function csfproxy.session_keys(sessions text[]) returns bigint[] language sql immutable strict as
    $$ select array_agg(('x' || right(replace(s, '-', ''), 16))::bit(64)::bigint) from unnest(sessions) s $$;
alter table csfproxy.events
    alter column node type text collate "C", alter column kind type text collate "C", alter column reason type text collate "C",
    alter column session type text collate "C", alter column identity type text collate "C", alter column source type text collate "C",
    alter column cluster type text collate "C", alter column upstream type text collate "C",
    -- The sessions of a statement block: the last 64 bits of each one's UUID.
    alter column sessions type bigint[] using csfproxy.session_keys(sessions);
drop function csfproxy.session_keys(text[]);
-- Blocks are compressed already, and other payloads are short.
alter table csfproxy.events alter column payload set storage external;

create index events_time on csfproxy.events (time);
-- Hashes make short keys. A query names the hash and the value.
create index events_kind on csfproxy.events (hashtext(kind), time);
create index events_identity on csfproxy.events (hashtext(identity), time) where identity is not null;
create index events_session on csfproxy.events (session) where session is not null;
create index events_sessions on csfproxy.events using gin (sessions) where sessions is not null;

-- Counts of events by hour and by day, added up in the transaction that stores the events. classes says of each field
-- that a control asks for whether it is absent, a value that a control names, or another one; vocabulary says which
-- fields and values those are. The kinds that begin with "use:" count in how many bound sessions a registered name stands.
create table csfproxy.rollup_hours (
    kind       text collate "C" not null,
    bucket     timestamptz      not null,
    node       text collate "C" not null,
    reason     text collate "C" not null,
    selftest   boolean          not null,
    vocabulary text collate "C" not null,
    classes    text collate "C" not null,
    n          bigint           not null,
    last       timestamptz      not null,
    primary key (kind, bucket, node, reason, selftest, vocabulary, classes)
) with (fillfactor = 70);
create table csfproxy.rollup_days (like csfproxy.rollup_hours including all) with (fillfactor = 70);

-- The numbers that each hour has of each log, and what log.sequence events counted.
create table csfproxy.rollup_logs (
    node      text collate "C" not null,
    epoch     integer          not null,
    bucket    timestamptz      not null,
    first_seq bigint           not null,
    last_seq  bigint           not null,
    n         bigint           not null,
    counts    bigint           not null,
    listener  bigint           not null,
    recorded  bigint           not null,
    unequal   bigint           not null,
    primary key (node, epoch, bucket)
) with (fillfactor = 70);

-- Days whose roll-ups are not made yet; they are counted from the events until they are.
create table csfproxy.rollup_stale (day date not null primary key);
insert into csfproxy.rollup_stale select distinct (time at time zone 'UTC')::date from csfproxy.events;

-- forget_rollups removes what is counted of a day of UTC.
-- +goose StatementBegin
create function csfproxy.forget_rollups(day date) returns void language sql set search_path = pg_catalog, pg_temp as $$
    delete from csfproxy.rollup_hours r where r.bucket >= day::timestamp at time zone 'UTC' and r.bucket < (day + 1)::timestamp at time zone 'UTC';
    delete from csfproxy.rollup_days r where r.bucket >= day::timestamp at time zone 'UTC' and r.bucket < (day + 1)::timestamp at time zone 'UTC';
    delete from csfproxy.rollup_logs r where r.bucket >= day::timestamp at time zone 'UTC' and r.bucket < (day + 1)::timestamp at time zone 'UTC';
    delete from csfproxy.rollup_stale r where r.day = forget_rollups.day;
$$;
-- +goose StatementEnd

-- +goose Down
drop function csfproxy.forget_rollups(date);
drop table csfproxy.rollup_stale;
drop table csfproxy.rollup_logs;
drop table csfproxy.rollup_days;
drop table csfproxy.rollup_hours;
drop index csfproxy.events_time;
drop index csfproxy.events_kind;
drop index csfproxy.events_identity;
drop index csfproxy.events_session;
drop index csfproxy.events_sessions;
alter table csfproxy.events add column facts jsonb not null default '{}';
update csfproxy.events set facts = csfproxy.facts(payload);
drop function csfproxy.facts(bytea);
alter table csfproxy.events drop column sessions, add column sessions text[];
create index events_kind_time on csfproxy.events (kind, time);
create index events_session on csfproxy.events (session, time) where session is not null;
create index events_identity on csfproxy.events (identity, time) where identity is not null;
create index events_sessions on csfproxy.events using gin (sessions) where sessions is not null;
create index events_time on csfproxy.events using brin (time);
