-- +goose Up

-- New outcome names are admitted at a bounded rate, and those that nothing uses are
-- freed. A name that is freed keeps its row, and so its id: it counts against no limit,
-- and is admitted again under that id like a new one. So whoever still has the id in
-- memory records nothing under another name, or under none. A server from before this
-- migration has it for as long as it runs. It counts freed names as well, and so
-- refuses new ones sooner, and knows no rate.

-- When an outcome brought the name. Null for one from before this migration, or that a
-- definition brought.
ALTER TABLE outcome_names ADD COLUMN admit_time timestamptz;
ALTER TABLE outcome_names ALTER COLUMN admit_time SET DEFAULT now();

-- When maintenance first found no outcome of it, and no definition that counts it.
-- Null again once an outcome comes, and then it is neither new nor refused.
ALTER TABLE outcome_names ADD COLUMN unused_time timestamptz;

-- Found so once more, when every server had long looked at unused_time.
ALTER TABLE outcome_names ADD COLUMN freed boolean NOT NULL DEFAULT false;

CREATE INDEX outcome_names_counted ON outcome_names (admit_time) WHERE NOT freed;
