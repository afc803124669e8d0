-- +goose Up

-- The tombstones of erased subjects, of whom nothing is recorded again. They are
-- committed in the order of their numbers, so that a server that knows those up
-- to a number need read only the later ones. Each erasure is repeated once by
-- maintenance, which then sets swept.
CREATE TABLE erased_subjects (
    subject_id uuid PRIMARY KEY,
    number     bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    erase_time timestamptz NOT NULL DEFAULT statement_timestamp(),
    swept      boolean NOT NULL DEFAULT false
);

CREATE INDEX erased_subjects_unswept ON erased_subjects (erase_time) WHERE NOT swept;

-- How many exposed subjects of an experiment or a holdout were erased so far. It
-- holds no times: beside those of the tombstones they would tell who took part.
CREATE TABLE erasures (
    experiment_id integer PRIMARY KEY,
    subjects      bigint NOT NULL
);

-- As many as they were when the analysis was made.
ALTER TABLE analyses ADD COLUMN erased bigint NOT NULL DEFAULT 0;

-- How many subjects of a roster were erased. Whoever holds the roster in memory
-- sees by it that it is another.
ALTER TABLE rosters ADD COLUMN erased bigint NOT NULL DEFAULT 0;

-- Who did what. Append only; the details are an object.
CREATE TABLE audit_events (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time    timestamptz NOT NULL DEFAULT statement_timestamp(),
    author  text NOT NULL,
    action  text NOT NULL,
    kind    text NOT NULL,
    key     text NOT NULL,
    details json
);

CREATE INDEX audit_events_of_resource ON audit_events (kind, key, id);

-- +goose StatementBegin
DO $$
DECLARE t text;
BEGIN
    IF to_regproc('pg_catalog.create_distributed_table') IS NOT NULL THEN
        FOREACH t IN ARRAY ARRAY['erased_subjects', 'erasures', 'audit_events'] LOOP
            EXECUTE 'SELECT create_reference_table($1)' USING t;
        END LOOP;
    END IF;
END
$$;
-- +goose StatementEnd
