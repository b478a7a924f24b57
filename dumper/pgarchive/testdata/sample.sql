-- One of everything that shows in a custom archive, in a few kilobytes. Needs a superuser.
CREATE ROLE pgstow_owner;
CREATE ROLE "Reader Ü";
CREATE SCHEMA "Sales & Co";
CREATE EXTENSION hstore;

CREATE TABLE customer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    shout text GENERATED ALWAYS AS (upper(name)) STORED,
    dropped int
);
ALTER TABLE customer DROP COLUMN dropped;
INSERT INTO customer (name) VALUES ('Ärger'), (E'tab\tand\nnewline'), ('\.'), (''), ('ordinary');
COMMENT ON TABLE customer IS E'two\nlines';
COMMENT ON INDEX customer_pkey IS 'a comment in the section of what stands before it';
ALTER TABLE customer OWNER TO pgstow_owner;
GRANT SELECT ON customer TO "Reader Ü";
ALTER TABLE customer ENABLE ROW LEVEL SECURITY;
CREATE POLICY only_short ON customer USING (length(name) < 10);

CREATE TABLE "Sales & Co"."Größe ""M""" (
    "Id" serial PRIMARY KEY,
    customer_id bigint REFERENCES customer,
    "ключ" text DEFAULT 'x'
);
INSERT INTO "Sales & Co"."Größe ""M""" (customer_id, "ключ") SELECT 1 + i % 5, 'v' || i FROM generate_series(1, 20) i;
CREATE TABLE "line
break" (a int);
INSERT INTO "line
break" VALUES (1);

CREATE TABLE empty_table (a int, b text);
CREATE TABLE zero_columns ();
INSERT INTO zero_columns DEFAULT VALUES;
-- More than one chunk of compressed output.
CREATE TABLE digest AS SELECT i, md5(i::text) FROM generate_series(1, 300) i;

CREATE TABLE measure (at date NOT NULL, v int) PARTITION BY RANGE (at);
CREATE TABLE measure_2024 PARTITION OF measure FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE measure_rest PARTITION OF measure DEFAULT;
INSERT INTO measure VALUES ('2024-05-01', 1), ('2030-01-01', 2);

CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NEW; -- changes nothing
END $$;
CREATE TRIGGER touched BEFORE UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION touch();
CREATE VIEW names AS SELECT name FROM customer;
CREATE MATERIALIZED VIEW totals AS SELECT customer_id, count(*) FROM "Sales & Co"."Größe ""M""" GROUP BY 1;
CREATE INDEX totals_idx ON totals (customer_id);

SELECT lo_from_bytea(16001, 'a large object');
SELECT lo_from_bytea(16002, ''); -- an empty one
SELECT lo_from_bytea(3000000000, decode(repeat('00ff', 3000), 'hex')); -- its OID is a negative int
COMMENT ON LARGE OBJECT 16001 IS 'commented';
GRANT SELECT ON LARGE OBJECT 16002 TO "Reader Ü";
ALTER LARGE OBJECT 16002 OWNER TO pgstow_owner;
