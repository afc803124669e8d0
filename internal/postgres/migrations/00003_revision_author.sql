-- +goose Up

-- Who made a revision, as the caller named itself.
ALTER TABLE experiment_revisions ADD COLUMN author text NOT NULL DEFAULT '';
