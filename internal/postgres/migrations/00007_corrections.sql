-- +goose Up

-- A correction adjusts the value of the outcome that it names. It is
-- stored beside that one: its row_id and its occurred_time begin with the other's
-- time, so that whatever reads a window finds both; adjusted_time is its own.
ALTER TABLE outcomes ADD COLUMN corrects uuid, ADD COLUMN adjusted_time timestamptz;

-- Corrections are few: the index spares analyses the search for them, and costs
-- all other outcomes nothing.
CREATE INDEX outcomes_corrections ON outcomes (subject_id) WHERE corrects IS NOT NULL;
