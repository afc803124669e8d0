-- +goose Up

-- A roster is made while its experiment is a draft, and never changes. That of a
-- draft is deleted with its row; of an experiment that is archived, the
-- subjects are. An id is never used twice.
CREATE TABLE rosters (
    id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    experiment_id integer NOT NULL UNIQUE REFERENCES experiments,
    revision      integer NOT NULL,
    arms          json NOT NULL,
    balance       json NOT NULL,
    author        text NOT NULL DEFAULT '',
    create_time   timestamptz NOT NULL DEFAULT now(),
    delete_time   timestamptz
);

-- Spread by subject, as events are. The arm is an index in the roster's arms.
CREATE TABLE roster_subjects (
    roster_id  integer NOT NULL,
    subject_id uuid NOT NULL,
    arm        smallint NOT NULL,
    PRIMARY KEY (roster_id, subject_id)
);

-- +goose StatementBegin
DO $$
BEGIN
    IF to_regproc('pg_catalog.create_distributed_table') IS NOT NULL THEN
        EXECUTE 'SELECT create_reference_table($1)' USING 'rosters';
        EXECUTE 'SELECT create_distributed_table($1, $2, colocate_with => $3)' USING 'roster_subjects', 'subject_id', 'exposures';
    END IF;
END
$$;
-- +goose StatementEnd
