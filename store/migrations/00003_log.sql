-- +goose Up

-- The transparency log over the stored events. Everything here is written by one sequencer at a time, in one
-- transaction for each batch; nothing about an event itself changes by it.

-- The keys that sign checkpoints, in the order in which they came. handover is the note by which the key before it
-- names this one; the first has none. The private keys are never here.
create table csfproxy.log_keys (
    ordinal  integer     not null primary key,
    key_id   text        not null unique,
    vkey     text        not null,
    size     bigint      not null,
    since    timestamptz not null,
    handover bytea
);

-- Which leaves are whose: leaf first_leaf + i is event first_seq + i of the node's log. The times bound the events'.
create table csfproxy.leaf_ranges (
    first_leaf bigint      not null primary key,
    node       text        not null,
    epoch      integer     not null,
    first_seq  bigint      not null,
    last_seq   bigint      not null,
    min_time   timestamptz not null,
    max_time   timestamptz not null,
    unique (node, epoch, first_seq)
);
create index leaf_ranges_time on csfproxy.leaf_ranges using brin (min_time, max_time);

-- The hashes of the tree, 256 to a tile (C2SP tlog-tiles, height 8); the last tile of each level grows.
create table csfproxy.tiles (
    level  smallint not null,
    n      bigint   not null,
    hashes bytea    not null,
    primary key (level, n)
);
alter table csfproxy.tiles alter column hashes set storage external;

create table csfproxy.checkpoints (
    size      bigint      not null primary key,
    root      bytea       not null,
    note      bytea       not null,
    signed_at timestamptz not null
);
create index checkpoints_signed_at on csfproxy.checkpoints (signed_at);

-- What witnesses said of a checkpoint: signature lines to be added to its note.
create table csfproxy.cosignatures (
    size        bigint      not null,
    key_id      text        not null,
    witness     text        not null,
    line        text        not null,
    cosigned_at timestamptz not null,
    primary key (size, key_id)
);

-- The leaf hashes of stored events that have no leaf yet, written with them: hashes holds 32 bytes for each number from
-- first_seq to last_seq. The sequencer takes them out; where an event has none, it reads the event.
create table csfproxy.leaf_runs (
    node      text        not null,
    epoch     integer     not null,
    first_seq bigint      not null,
    last_seq  bigint      not null,
    min_time  timestamptz not null,
    max_time  timestamptz not null,
    hashes    bytea       not null,
    primary key (node, epoch, first_seq)
);
alter table csfproxy.leaf_runs alter column hashes set storage external;

-- +goose Down
drop table csfproxy.leaf_runs;
drop table csfproxy.cosignatures;
drop table csfproxy.checkpoints;
drop table csfproxy.tiles;
drop table csfproxy.leaf_ranges;
drop table csfproxy.log_keys;
