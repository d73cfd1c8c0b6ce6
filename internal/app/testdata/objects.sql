-- Objects of many kinds, so that a dump of them says something.
CREATE TYPE mood AS ENUM ('calm', 'odd ''quote''');
CREATE TABLE parent (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, doc jsonb, raw bytea, stamp timestamptz, list int[]);
CREATE TABLE child (id int, parent bigint REFERENCES parent ON DELETE CASCADE, amount numeric(20, 4) CHECK (amount > 0)) PARTITION BY RANGE (id);
CREATE TABLE child_1 PARTITION OF child FOR VALUES FROM (0) TO (1000);
CREATE VIEW sums AS SELECT parent, sum(amount) FROM child GROUP BY parent;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN NEW.stamp := NEW.stamp; RETURN NEW; END $body$;
CREATE TRIGGER touched BEFORE UPDATE ON parent FOR EACH ROW EXECUTE FUNCTION touch();
INSERT INTO parent (m, doc, raw, stamp, list)
  SELECT 'calm', jsonb_build_object('i', i, 's', E'tab\there \\ "quoted"'), decode(md5(i::text), 'hex'), '2024-01-01'::timestamptz + i * interval '1 hour', ARRAY[i, NULL, -i]
  FROM generate_series(1, 500) i;
INSERT INTO child SELECT i, i, i + 0.5 FROM generate_series(1, 500) i;
SELECT lo_from_bytea(4711, decode(repeat('00ff10', 5000), 'hex'));
COMMENT ON TABLE parent IS E'a comment with ''quotes'' and \n a line';
