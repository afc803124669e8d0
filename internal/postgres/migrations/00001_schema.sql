-- +goose Up

-- Definitions. Small, read whole, changed rarely. Their JSON is read and
-- written as a whole, so it is json, which keeps every string that a client
-- may send.

CREATE TABLE settings (
    name  text PRIMARY KEY,
    value text NOT NULL
);

-- Every change of a metric or an experiment takes the next number; it is the
-- etag, and tells a server which of its compiled experiments are stale.
CREATE SEQUENCE definition_version AS bigint;

CREATE TABLE metrics (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key         text NOT NULL UNIQUE,
    revision    integer NOT NULL,
    archived    boolean NOT NULL DEFAULT false,
    version     bigint NOT NULL DEFAULT nextval('definition_version'),
    request_id  text UNIQUE,
    create_time timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE metric_revisions (
    metric_id   integer NOT NULL REFERENCES metrics,
    revision    integer NOT NULL,
    definition  json NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (metric_id, revision)
);

CREATE TABLE experiments (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key             text NOT NULL UNIQUE,
    state           text NOT NULL,
    revision        integer NOT NULL,
    version         bigint NOT NULL DEFAULT nextval('definition_version'),
    pins            json,
    plan_hash       text NOT NULL DEFAULT '',
    shipped_variant text NOT NULL DEFAULT '',
    rationale       text NOT NULL DEFAULT '',
    request_id      text UNIQUE,
    create_time     timestamptz NOT NULL DEFAULT now(),
    update_time     timestamptz NOT NULL DEFAULT now(),
    start_time      timestamptz,
    conclude_time   timestamptz
);

CREATE TABLE experiment_revisions (
    experiment_id integer NOT NULL REFERENCES experiments,
    revision      integer NOT NULL,
    phase         integer NOT NULL,
    definition    json NOT NULL,
    allocation    json NOT NULL,
    create_time   timestamptz NOT NULL,
    PRIMARY KEY (experiment_id, revision)
);

CREATE TABLE experiment_transitions (
    experiment_id integer NOT NULL REFERENCES experiments,
    version       bigint NOT NULL,
    state         text NOT NULL,
    time          timestamptz NOT NULL,
    PRIMARY KEY (experiment_id, version)
);

-- A pin is never changed: it ends, and another begins. The row that has not
-- ended is the one in force. Its time is that of the statement, as for events.
CREATE TABLE overrides (
    experiment_id integer NOT NULL REFERENCES experiments,
    subject_id    uuid NOT NULL,
    create_time   timestamptz NOT NULL DEFAULT statement_timestamp(),
    end_time      timestamptz,
    variant       text NOT NULL,
    PRIMARY KEY (experiment_id, subject_id, create_time)
);

CREATE UNIQUE INDEX overrides_in_force ON overrides (experiment_id, subject_id) WHERE end_time IS NULL;

-- Outcome names are few and outcomes are many.
CREATE TABLE outcome_names (
    id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);

CREATE TABLE analyses (
    id            uuid PRIMARY KEY,
    experiment_id integer NOT NULL REFERENCES experiments,
    revision      integer NOT NULL,
    as_of_time    timestamptz NOT NULL,
    request_hash  bytea NOT NULL,
    create_time   timestamptz NOT NULL,
    result        bytea NOT NULL,
    moments       json NOT NULL,
    UNIQUE (experiment_id, request_hash)
);

CREATE INDEX analyses_newest ON analyses (experiment_id, create_time DESC, id DESC);

-- Events. Append only. subject_id is the distribution column of a Citus
-- cluster: every key contains it, it is never updated and never generated,
-- and no foreign key leads out. recorded_time is the time of the statement
-- that wrote the row: it is later than the start of its transaction, which
-- pg_stat_activity shows, so that an analysis can tell the latest moment
-- before which nothing can still commit.

CREATE TABLE exposures (
    experiment_id integer NOT NULL,
    subject_id    uuid NOT NULL,
    phase         integer NOT NULL,
    variant       text NOT NULL,
    exposed_time  timestamptz NOT NULL,
    recorded_time timestamptz NOT NULL DEFAULT statement_timestamp(),
    attributes    jsonb,
    PRIMARY KEY (experiment_id, subject_id, phase, variant, exposed_time)
);

-- row_id: 48 bits of occurred_time in ms, then 80 bits of a hash of the
-- event's id. Partitions are calendar months, made on demand.
CREATE TABLE outcomes (
    row_id        uuid NOT NULL,
    subject_id    uuid NOT NULL,
    name_id       integer NOT NULL,
    value         double precision CHECK (value > '-Infinity' AND value < 'Infinity'),
    occurred_time timestamptz NOT NULL,
    recorded_time timestamptz NOT NULL DEFAULT statement_timestamp(),
    properties    jsonb,
    PRIMARY KEY (row_id, subject_id)
) PARTITION BY RANGE (row_id);

-- On Citus, definitions live on every node and events are spread by subject.
-- +goose StatementBegin
DO $$
DECLARE t text;
BEGIN
    IF to_regproc('pg_catalog.create_distributed_table') IS NOT NULL THEN
        FOREACH t IN ARRAY ARRAY['metrics', 'metric_revisions', 'experiments', 'experiment_revisions',
            'experiment_transitions', 'overrides', 'outcome_names', 'analyses'] LOOP
            EXECUTE 'SELECT create_reference_table($1)' USING t;
        END LOOP;
        EXECUTE 'SELECT create_distributed_table($1, $2)' USING 'exposures', 'subject_id';
        EXECUTE 'SELECT create_distributed_table($1, $2, colocate_with => $3)' USING 'outcomes', 'subject_id', 'exposures';
    END IF;
END
$$;
-- +goose StatementEnd
