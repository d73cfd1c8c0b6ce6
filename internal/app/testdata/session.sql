-- What a person and a script do in psql.
\set VERBOSITY verbose
\set SHOW_CONTEXT always
CREATE TABLE item (id int PRIMARY KEY, name text, made date DEFAULT '2020-02-29');
CREATE INDEX item_name ON item (name);
\copy item (id, name) FROM 'in.csv' WITH (FORMAT csv)
SELECT * FROM item ORDER BY id;
\copy (SELECT * FROM item ORDER BY id) TO 'out.csv' WITH (FORMAT csv, HEADER)
COPY item (id, name) FROM STDIN;
4	four
5	\N
\.
COPY item TO STDOUT;
COPY item (id, name) FROM STDIN;
1	a duplicate
\.
COPY item (id, name) FROM STDIN;
not a number	x
\.
SELECT 1/0;
SELECT no_such_column FROM item;
SELEC;
SELECT 'after errors';
BEGIN;
INSERT INTO item VALUES (6, 'six');
SAVEPOINT s;
INSERT INTO item VALUES (6, 'again');
SELECT 1;
ROLLBACK TO s;
INSERT INTO item VALUES (7, 'seven');
COMMIT;
BEGIN;
DELETE FROM item;
ROLLBACK;
SELECT count(*) FROM item;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id, name FROM item ORDER BY id;
FETCH 2 FROM c;
MOVE FORWARD 1 FROM c;
FETCH BACKWARD 1 FROM c;
FETCH ALL FROM c;
CLOSE c;
COMMIT;
\set FETCH_COUNT 2
SELECT id FROM item ORDER BY id;
\unset FETCH_COUNT
LISTEN news;
NOTIFY news, 'first';
SELECT pg_notify('news', 'second');
UNLISTEN news;
PREPARE p (int) AS SELECT name FROM item WHERE id = $1;
EXECUTE p(2);
DEALLOCATE p;
SELECT $1::text || '-' || $2::int AS bound \bind one 2 \g
DO $$ BEGIN RAISE NOTICE 'a notice of %', 1; RAISE WARNING 'a warning'; END $$;
SET statement_timeout = '20ms';
SELECT pg_sleep(60);
RESET statement_timeout;
SHOW standard_conforming_strings;
\encoding LATIN1
SELECT 'caf' || chr(233) = U&'caf\00e9' AS accented;
\encoding UTF8
SELECT repeat('x', 100000) = repeat('x', 100000) AS long;
SELECT length(string_agg(md5(i::text), '')) FROM generate_series(1, 20000) i;
SELECT i, repeat('y', i % 70) FROM generate_series(1, 2000) i;
SELECT 1 AS a \; SELECT 2 AS b;
;
\d+ item
\dt
\df
\gdesc
SELECT 1 AS described, 'x'::text AS columns \gdesc
SELECT format('SELECT %s', g) FROM generate_series(1, 3) g \gexec
TABLE item ORDER BY id;
DROP TABLE item;
