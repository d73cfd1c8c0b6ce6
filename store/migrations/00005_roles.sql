-- +goose Up

-- Roles that keep what each part may do apart. The schema's owner migrates and nothing else; who may log in is made a
-- member of those that it needs. Roles belong to the whole server: where this one may not create them, somebody who may
-- does so, and then the owner calls csfproxy.grant_roles().
-- +goose StatementBegin
do $$
declare
    r text;
begin
    foreach r in array array['csfproxy_writer', 'csfproxy_sequencer', 'csfproxy_retention', 'csfproxy_hold', 'csfproxy_reader'] loop
        begin
            if not exists (select from pg_roles where rolname = r) then execute format('create role %I nologin', r); end if;
        exception
            when duplicate_object or unique_violation then null; -- another database's migration was first
            when insufficient_privilege then raise notice 'role % is not there, and this role may not create it', r;
        end;
    end loop;
end $$;
-- +goose StatementEnd

-- grant_roles gives the roles that exist their rights. It is called after every change of the schema.
-- +goose StatementBegin
create function csfproxy.grant_roles() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    t text;
begin
    if to_regrole('csfproxy_writer') is not null then
        grant usage on schema csfproxy to csfproxy_writer;
        grant select on all tables in schema csfproxy to csfproxy_writer;
        revoke insert, update, delete, truncate on csfproxy.events from csfproxy_writer;
        grant insert on csfproxy.events, csfproxy.fingerprints, csfproxy.logs, csfproxy.leaf_runs to csfproxy_writer;
        grant update (last_seq, updated_at) on csfproxy.logs to csfproxy_writer; -- how far each log is stored
        grant execute on function csfproxy.ensure_day(date) to csfproxy_writer;
        -- Sums beside the events, which are made again from them at any time.
        for t in select c.relname from pg_class c where c.relnamespace = 'csfproxy'::regnamespace and c.relkind in ('r', 'p') and c.relname ~ '^rollup' loop
            execute format('grant insert, update, delete on csfproxy.%I to csfproxy_writer', t);
        end loop;
    end if;
    if to_regrole('csfproxy_sequencer') is not null then
        grant usage on schema csfproxy to csfproxy_sequencer;
        grant select on all tables in schema csfproxy to csfproxy_sequencer;
        grant insert on csfproxy.leaf_ranges, csfproxy.checkpoints, csfproxy.cosignatures, csfproxy.log_keys to csfproxy_sequencer;
        grant insert, update on csfproxy.tiles to csfproxy_sequencer; -- the last tile of each level grows
        grant delete on csfproxy.leaf_runs to csfproxy_sequencer;
    end if;
    if to_regrole('csfproxy_reader') is not null then
        grant usage on schema csfproxy to csfproxy_reader;
        grant select on all tables in schema csfproxy to csfproxy_reader;
    end if;
    if to_regrole('csfproxy_retention') is not null then
        grant usage on schema csfproxy to csfproxy_retention;
        grant select on csfproxy.holds, csfproxy.dropped_days to csfproxy_retention;
        grant execute on function csfproxy.drop_day(date), csfproxy.retain(interval), csfproxy.erase(text, text, timestamptz, timestamptz) to csfproxy_retention;
    end if;
    if to_regrole('csfproxy_hold') is not null then
        grant usage on schema csfproxy to csfproxy_hold;
        grant select on csfproxy.holds, csfproxy.dropped_days to csfproxy_hold;
        grant execute on function csfproxy.hold(text, timestamptz, timestamptz, text, text), csfproxy.release(bigint, text, text) to csfproxy_hold;
    end if;
end $$;
-- +goose StatementEnd
revoke all on function csfproxy.grant_roles() from public;

-- +goose Down
drop function csfproxy.grant_roles();
