-- +goose Up

-- What checks of exposures need of the revision: see experiment.Terms. Servers hold
-- it of every revision with which an experiment has run, and read it in place of the
-- definition, which may be large. Null for revisions from before this migration or of
-- a server from before it, until maintenance completes them.
ALTER TABLE experiment_revisions ADD COLUMN terms json;

CREATE INDEX experiment_revisions_without_terms ON experiment_revisions (experiment_id, revision) WHERE terms IS NULL;
