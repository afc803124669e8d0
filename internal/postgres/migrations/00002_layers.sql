-- +goose Up

CREATE TABLE layers (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key         text NOT NULL UNIQUE,
    unit        text NOT NULL,
    salt        text NOT NULL,
    description text NOT NULL DEFAULT '',
    version     bigint NOT NULL DEFAULT nextval('definition_version'),
    request_id  text UNIQUE,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now()
);

-- A slot is the rows of one experiment that have not ended: ranges of buckets
-- of the layer's hash, disjoint from those of every other experiment of the
-- layer, which a lock on the layer's row ensures. A row is never changed: all of
-- a slot ends, and another begins. The version is the experiment's when it began.
CREATE TABLE layer_slots (
    experiment_id integer NOT NULL REFERENCES experiments,
    version       bigint NOT NULL,
    layer_id      integer NOT NULL REFERENCES layers,
    from_bucket   integer NOT NULL,
    to_bucket     integer NOT NULL,
    from_time     timestamptz NOT NULL,
    end_time      timestamptz,
    PRIMARY KEY (experiment_id, version, from_bucket),
    CHECK (from_bucket >= 0 AND from_bucket < to_bucket AND to_bucket <= 1000000)
);

CREATE INDEX layer_slots_of_layer ON layer_slots (layer_id);

-- +goose StatementBegin
DO $$
DECLARE t text;
BEGIN
    IF to_regproc('pg_catalog.create_distributed_table') IS NOT NULL THEN
        FOREACH t IN ARRAY ARRAY['layers', 'layer_slots'] LOOP
            EXECUTE 'SELECT create_reference_table($1)' USING t;
        END LOOP;
    END IF;
END
$$;
-- +goose StatementEnd
