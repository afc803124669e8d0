-- +goose Up

-- What the decision that ended an experiment rested on, and how it goes against
-- it. Beside shipped_variant and rationale, and absent until then.
ALTER TABLE experiments ADD COLUMN conclusion json;

-- How many subjects of the primary metric were analysed. Absent for analyses from
-- before this migration.
ALTER TABLE analyses ADD COLUMN analysed bigint;
