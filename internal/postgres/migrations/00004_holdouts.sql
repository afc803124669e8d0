-- +goose Up

-- The id is drawn from the sequence of the experiments' ids, so that exposures
-- and analyses of a holdout are kept among those of experiments.
CREATE TABLE holdouts (
    id          integer PRIMARY KEY,
    key         text NOT NULL UNIQUE,
    unit        text NOT NULL,
    description text NOT NULL,
    share       double precision NOT NULL CHECK (share > 0 AND share <= 0.5),
    salt        text NOT NULL,
    labels      json NOT NULL,
    kind        text NOT NULL,
    start_time  timestamptz NOT NULL,
    end_time    timestamptz,
    version     bigint NOT NULL DEFAULT nextval('definition_version'),
    request_id  text UNIQUE,
    create_time timestamptz NOT NULL DEFAULT statement_timestamp(),
    update_time timestamptz NOT NULL DEFAULT statement_timestamp()
);

-- An experiment is covered from its start or a new phase on, until the holdout
-- ends. A row is never changed.
CREATE TABLE holdout_coverage (
    experiment_id integer NOT NULL REFERENCES experiments,
    holdout_id    integer NOT NULL REFERENCES holdouts,
    from_time     timestamptz NOT NULL,
    PRIMARY KEY (experiment_id, holdout_id)
);

CREATE INDEX holdout_coverage_of_holdout ON holdout_coverage (holdout_id);

ALTER TABLE analyses DROP CONSTRAINT analyses_experiment_id_fkey;

-- +goose StatementBegin
DO $$
DECLARE t text;
BEGIN
    IF to_regproc('pg_catalog.create_distributed_table') IS NOT NULL THEN
        FOREACH t IN ARRAY ARRAY['holdouts', 'holdout_coverage'] LOOP
            EXECUTE 'SELECT create_reference_table($1)' USING t;
        END LOOP;
    END IF;
END
$$;
-- +goose StatementEnd
