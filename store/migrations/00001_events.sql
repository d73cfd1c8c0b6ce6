-- +goose Up

-- One row for each spool directory that ever sent events: how far its log is stored. epoch counts the logs of a node.
create table csfproxy.logs (
    node       text        not null,
    log        text        not null,
    epoch      integer     not null,
    last_seq   bigint      not null default 0,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (node, log),
    unique (node, epoch)
);

-- payload holds the spooled bytes, statement block included; the other columns are made from it, to search by.
create table csfproxy.events (
    time        timestamptz not null,
    node        text        not null,
    epoch       integer     not null,
    seq         bigint      not null,
    kind        text        not null,
    reason      text,
    session     text,
    identity    text,
    source      text,
    client      inet,
    client_port integer,
    peer        inet,
    peer_port   integer,
    cluster     text,
    upstream    text,
    selftest    boolean     not null,
    facts       jsonb       not null,
    sessions    text[],     -- of a statement block
    payload     bytea       not null,
    primary key (node, epoch, seq, time)
) partition by range (time);

create index events_kind_time on csfproxy.events (kind, time);
create index events_session on csfproxy.events (session, time) where session is not null;
create index events_identity on csfproxy.events (identity, time) where identity is not null;
create index events_sessions on csfproxy.events using gin (sessions) where sessions is not null;
create index events_time on csfproxy.events using brin (time);

-- The redacted text of each statement that was seen, by fingerprint.
create table csfproxy.fingerprints (
    fingerprint text        not null primary key,
    node        text        not null,
    kind        text,
    redacted    text,
    first_seen  timestamptz not null
);

-- +goose Down
drop table csfproxy.fingerprints;
drop table csfproxy.events;
drop table csfproxy.logs;
