-- +goose Up

-- The looks that were taken of group-sequential plans, numbered from 1 on, each
-- with the analysis that it judged and how many subjects that analysed, by
-- metric. A row is never changed.
CREATE TABLE looks (
    experiment_id integer NOT NULL REFERENCES experiments,
    number        integer NOT NULL,
    analysis_id   uuid NOT NULL REFERENCES analyses,
    as_of_time    timestamptz NOT NULL,
    create_time   timestamptz NOT NULL,
    subjects      json NOT NULL,
    PRIMARY KEY (experiment_id, number)
);

-- +goose StatementBegin
DO $$
BEGIN
    IF to_regproc('pg_catalog.create_distributed_table') IS NOT NULL THEN
        EXECUTE 'SELECT create_reference_table($1)' USING 'looks';
    END IF;
END
$$;
-- +goose StatementEnd
