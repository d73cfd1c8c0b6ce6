-- +goose Up

-- A hold keeps every event of from_time <= time < to_time, with its body, until it is released.
create table csfproxy.holds (
    id             bigint      not null generated always as identity primary key,
    name           text        not null,
    from_time      timestamptz not null,
    to_time        timestamptz not null,
    reason         text        not null,
    applied_by     text        not null,
    applied_at     timestamptz not null default now(),
    applied_role   text        not null default session_user,
    released_by    text,
    released_at    timestamptz,
    release_reason text,
    released_role  text,
    check (from_time < to_time)
);

-- The days that retention dropped, and how many events each had: what a verifier holds missing events against.
create table csfproxy.dropped_days (
    day        date        not null,
    events     bigint      not null,
    dropped_at timestamptz not null default now(),
    dropped_by text        not null default session_user,
    primary key (day, dropped_at)
);

-- The functions act with the rights of the schema's owner, so that the roles that may call them need no right on the
-- tables. SQLSTATE 55006 (object in use) says that a hold is in the way.

-- +goose StatementBegin
create function csfproxy.ensure_day(day date) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    name text := 'events_' || to_char(day, 'YYYYMMDD');
begin
    if to_regclass('csfproxy.' || name) is not null then return; end if;
    perform pg_advisory_xact_lock(hashtext('csfproxy'), 1);
    if to_regclass('csfproxy.' || name) is not null then return; end if;
    -- Made apart and attached, which does not wait for those who read the table.
    execute format('create table csfproxy.%I (like csfproxy.events including all)', name);
    execute format('alter table csfproxy.events attach partition csfproxy.%I for values from (%L) to (%L)',
        name, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
end $$;
-- +goose StatementEnd

-- +goose StatementBegin
create function csfproxy.held(day date) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select h.name from csfproxy.holds h where h.released_at is null
        and h.from_time < (day + 1)::timestamp at time zone 'UTC' and h.to_time > day::timestamp at time zone 'UTC' order by h.id limit 1
$$;
-- +goose StatementEnd

-- drop_day drops one day of events and gives how many it had, null when there is no such day.
-- +goose StatementBegin
create function csfproxy.drop_day(day date) returns bigint
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
    perform csfproxy.forget_rollups(day);
    return n;
end $$;
-- +goose StatementEnd

-- event_days lists the days that have a partition.
-- +goose StatementBegin
create function csfproxy.event_days() returns setof date
language sql stable set search_path = pg_catalog, pg_temp as $$
    select to_date(substr(c.relname, 8), 'YYYYMMDD') from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'csfproxy.events'::regclass and c.relname ~ '^events_[0-9]{8}$' order by 1
$$;
-- +goose StatementEnd

-- retain drops the days that are wholly older than keep and under no hold, for a job outside csfproxy.
-- +goose StatementBegin
create function csfproxy.retain(keep interval) returns table (dropped date, events bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if keep < interval '1 day' then raise exception 'keep at least 1 day' using errcode = '22023'; end if;
    for dropped in select d from csfproxy.event_days() d
        where d < ((now() - keep) at time zone 'UTC')::date and csfproxy.held(d) is null loop
        events := csfproxy.drop_day(dropped);
        if events is not null then return next; end if;
    end loop;
end $$;
-- +goose StatementEnd

-- +goose StatementBegin
create function csfproxy.hold(name text, from_time timestamptz, to_time timestamptz, reason text, by_whom text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    new_id bigint;
begin
    -- Retention and erasure hold the same lock: a hold that was applied is one that they have seen.
    perform pg_advisory_xact_lock(hashtext('csfproxy'), 1);
    insert into csfproxy.holds (name, from_time, to_time, reason, applied_by) values (name, from_time, to_time, reason, by_whom) returning id into new_id;
    return new_id;
end $$;
-- +goose StatementEnd

-- release ends a hold and says whether it was in force.
-- +goose StatementBegin
create function csfproxy.release(hold bigint, by_whom text, reason text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update csfproxy.holds set released_by = by_whom, released_at = now(), release_reason = release.reason, released_role = session_user
        where id = hold and released_at is null;
    return found;
end $$;
-- +goose StatementEnd

-- A payload is: version, form (0 full, 1 without its body), u32 little-endian length of the header, header, rest.
-- +goose StatementBegin
create function csfproxy.payload_header_end(payload bytea) returns integer
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select 6 + get_byte(payload, 2) + (get_byte(payload, 3) << 8) + (get_byte(payload, 4) << 16)
$$;
-- +goose StatementEnd

-- payload_withheld gives the payload without its body: the header, and the hash that stands for the rest.
-- +goose StatementBegin
create function csfproxy.payload_withheld(payload bytea) returns bytea
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select case when get_byte(payload, 1) = 1 then payload else
        set_byte(substring(payload from 1 for csfproxy.payload_header_end(payload)), 1, 1)
            || sha256(substring(payload from csfproxy.payload_header_end(payload) + 1)) end
$$;
-- +goose StatementEnd

-- concerns says whether an event's row speaks of a subject: an identity, an address, a session, or any value of a fact.
-- +goose StatementBegin
create function csfproxy.concerns(e csfproxy.events, what text, subject text) returns boolean
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
-- what was in them. The leaves stay as they are. The counts of their days, which name who was used, are to be made again. It
-- gives the erased events by day.
-- +goose StatementBegin
create function csfproxy.erase(what text, subject text, from_time timestamptz, to_time timestamptz) returns table (erased_day date, events bigint)
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
    -- No batch adds to the counts meanwhile.
    perform pg_advisory_xact_lock(hashtext('csfproxy'), 2);
    for erased_day, events in
        with gone as (
            update csfproxy.events e set payload = csfproxy.payload_withheld(e.payload), identity = null, client = null, client_port = null,
                peer = null, peer_port = null, sessions = null
            where e.time >= from_time and e.time < to_time and get_byte(e.payload, 1) = 0 and csfproxy.concerns(e, what, subject)
            returning (e.time at time zone 'UTC')::date as d)
        select d, count(*) from gone group by d order by d
    loop
        perform csfproxy.forget_rollups(erased_day);
        insert into csfproxy.rollup_stale (day) values (erased_day);
        return next;
    end loop;
end $$;
-- +goose StatementEnd

revoke all on function csfproxy.ensure_day(date), csfproxy.drop_day(date), csfproxy.retain(interval), csfproxy.hold(text, timestamptz, timestamptz, text, text),
    csfproxy.release(bigint, text, text), csfproxy.erase(text, text, timestamptz, timestamptz) from public;

-- +goose Down
drop function csfproxy.erase(text, text, timestamptz, timestamptz);
drop function csfproxy.concerns(csfproxy.events, text, text);
drop function csfproxy.payload_withheld(bytea);
drop function csfproxy.payload_header_end(bytea);
drop function csfproxy.release(bigint, text, text);
drop function csfproxy.hold(text, timestamptz, timestamptz, text, text);
drop function csfproxy.retain(interval);
drop function csfproxy.event_days();
drop function csfproxy.drop_day(date);
drop function csfproxy.held(date);
drop function csfproxy.ensure_day(date);
drop table csfproxy.dropped_days;
drop table csfproxy.holds;
