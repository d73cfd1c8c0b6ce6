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

-- The functions of retention, without the column facts and with the roll-ups.

-- drop_day drops one day of events and gives how many it had, null when there is no such day.
-- +goose StatementBegin
create or replace function csfproxy.drop_day(day date) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    name text := 'events_' || to_char(day, 'YYYYMMDD');
    n    bigint;
begin
    perform pg_advisory_xact_lock(hashtext('csfproxy'), 1);
    if csfproxy.held(day) is not null then
        raise exception 'day % is under the hold "%"', day, csfproxy.held(day) using errcode = '55006';
    end if;
    if to_regclass('csfproxy.' || name) is null then return null; end if;
    execute format('lock table csfproxy.%I in share row exclusive mode', name);
    execute format('select count(*) from csfproxy.%I', name) into n;
    insert into csfproxy.dropped_days (day, events) values (day, n);
    execute format('drop table csfproxy.%I', name);
    delete from csfproxy.rollup_hours r where r.bucket >= drop_day.day::timestamp at time zone 'UTC' and r.bucket < (drop_day.day + 1)::timestamp at time zone 'UTC';
    delete from csfproxy.rollup_days r where r.bucket >= drop_day.day::timestamp at time zone 'UTC' and r.bucket < (drop_day.day + 1)::timestamp at time zone 'UTC';
    delete from csfproxy.rollup_logs r where r.bucket >= drop_day.day::timestamp at time zone 'UTC' and r.bucket < (drop_day.day + 1)::timestamp at time zone 'UTC';
    delete from csfproxy.rollup_stale r where r.day = drop_day.day;
    return n;
end $$;
-- +goose StatementEnd

-- concerns says whether an event's row speaks of a subject: an identity, an address, a session, or any value of a fact.
-- +goose StatementBegin
create or replace function csfproxy.concerns(e csfproxy.events, what text, subject text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case what
        when 'identity' then e.identity = subject
        when 'address' then e.client = subject::inet or e.peer = subject::inet
        when 'session' then e.session = subject
        else false end
    or what <> 'session' and (csfproxy.facts(e.payload)::text like '%' || replace(replace(replace(subject, '\', '\\'), '%', '\%'), '_', '\_') || '%')
        and jsonb_path_exists(csfproxy.facts(e.payload), case what when 'address' then '$.** ? (@ == $v || @ starts with $p || @ starts with $q)' else '$.** ? (@ == $v)' end::jsonpath,
            jsonb_build_object('v', subject, 'p', subject || ':', 'q', '[' || subject || ']:'))
$$;
-- +goose StatementEnd

-- erase takes the bodies out of the events of from_time <= time < to_time that concern a subject, and out of their columns
-- what was in them. The leaves stay as they are. It gives the erased events by day.
-- +goose StatementBegin
create or replace function csfproxy.erase(what text, subject text, from_time timestamptz, to_time timestamptz) returns table (erased_day date, events bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    held_by text;
begin
    if what not in ('identity', 'address', 'session', 'value') then
        raise exception 'erase by identity, address, session or value, not by %', what using errcode = '22023';
    end if;
    if coalesce(subject, '') = '' then raise exception 'a subject is needed' using errcode = '22023'; end if;
    if what = 'address' then perform subject::inet; end if; -- no address is an error, not a subject without events
    perform pg_advisory_xact_lock(hashtext('csfproxy'), 1);
    select h.name into held_by from csfproxy.holds h where h.released_at is null and h.from_time < erase.to_time and h.to_time > erase.from_time
        and exists (select from csfproxy.events e where e.time >= greatest(h.from_time, erase.from_time) and e.time < least(h.to_time, erase.to_time)
            and get_byte(e.payload, 1) = 0 and csfproxy.concerns(e, what, subject))
        order by h.id limit 1;
    if held_by is not null then
        raise exception 'events of this subject are under the hold "%"', held_by using errcode = '55006';
    end if;
    return query
        with gone as (
            update csfproxy.events e set payload = csfproxy.payload_withheld(e.payload), identity = null, client = null, client_port = null,
                peer = null, peer_port = null, sessions = null
            where e.time >= from_time and e.time < to_time and get_byte(e.payload, 1) = 0 and csfproxy.concerns(e, what, subject)
            returning (e.time at time zone 'UTC')::date as d)
        select d, count(*) from gone group by d order by d;
end $$;
-- +goose StatementEnd

-- +goose Down
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
-- drop_day drops one day of events and gives how many it had, null when there is no such day.
-- +goose StatementBegin
create or replace function csfproxy.drop_day(day date) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
    name text := 'events_' || to_char(day, 'YYYYMMDD');
    n    bigint;
begin
    perform pg_advisory_xact_lock(hashtext('csfproxy'), 1);
    if csfproxy.held(day) is not null then
        raise exception 'day % is under the hold "%"', day, csfproxy.held(day) using errcode = '55006';
    end if;
    if to_regclass('csfproxy.' || name) is null then return null; end if;
    execute format('lock table csfproxy.%I in share row exclusive mode', name);
    execute format('select count(*) from csfproxy.%I', name) into n;
    insert into csfproxy.dropped_days (day, events) values (day, n);
    execute format('drop table csfproxy.%I', name);
    return n;
end $$;
-- +goose StatementEnd

-- concerns says whether an event's row speaks of a subject: an identity, an address, a session, or any value of a fact.
-- +goose StatementBegin
create or replace function csfproxy.concerns(e csfproxy.events, what text, subject text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case what
        when 'identity' then e.identity = subject
        when 'address' then e.client = subject::inet or e.peer = subject::inet
        when 'session' then e.session = subject
        else false end
    or what <> 'session' and (e.facts::text like '%' || replace(replace(replace(subject, '\', '\\'), '%', '\%'), '_', '\_') || '%')
        and jsonb_path_exists(e.facts, case what when 'address' then '$.** ? (@ == $v || @ starts with $p || @ starts with $q)' else '$.** ? (@ == $v)' end::jsonpath,
            jsonb_build_object('v', subject, 'p', subject || ':', 'q', '[' || subject || ']:'))
$$;
-- +goose StatementEnd

-- erase takes the bodies out of the events of from_time <= time < to_time that concern a subject, and out of their columns
-- what was in them. The leaves stay as they are. It gives the erased events by day.
-- +goose StatementBegin
create or replace function csfproxy.erase(what text, subject text, from_time timestamptz, to_time timestamptz) returns table (erased_day date, events bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    held_by text;
begin
    if what not in ('identity', 'address', 'session', 'value') then
        raise exception 'erase by identity, address, session or value, not by %', what using errcode = '22023';
    end if;
    if coalesce(subject, '') = '' then raise exception 'a subject is needed' using errcode = '22023'; end if;
    if what = 'address' then perform subject::inet; end if; -- no address is an error, not a subject without events
    perform pg_advisory_xact_lock(hashtext('csfproxy'), 1);
    select h.name into held_by from csfproxy.holds h where h.released_at is null and h.from_time < erase.to_time and h.to_time > erase.from_time
        and exists (select from csfproxy.events e where e.time >= greatest(h.from_time, erase.from_time) and e.time < least(h.to_time, erase.to_time)
            and get_byte(e.payload, 1) = 0 and csfproxy.concerns(e, what, subject))
        order by h.id limit 1;
    if held_by is not null then
        raise exception 'events of this subject are under the hold "%"', held_by using errcode = '55006';
    end if;
    return query
        with gone as (
            update csfproxy.events e set payload = csfproxy.payload_withheld(e.payload), identity = null, client = null, client_port = null,
                peer = null, peer_port = null, sessions = null, facts = coalesce(csfproxy.payload_header(e.payload) -> 'facts', '{}')
            where e.time >= from_time and e.time < to_time and get_byte(e.payload, 1) = 0 and csfproxy.concerns(e, what, subject)
            returning (e.time at time zone 'UTC')::date as d)
        select d, count(*) from gone group by d order by d;
end $$;
-- +goose StatementEnd
