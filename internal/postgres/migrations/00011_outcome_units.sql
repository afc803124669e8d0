-- +goose Up

-- The unit of an outcome's subject, which its hashed id does not tell. Null is the
-- default unit, so that its outcomes take no more room. Whatever was recorded
-- before outcome_units_since has none: its unit is not known. A server from before
-- this migration writes none either, and reads nothing of it.
ALTER TABLE outcomes ADD COLUMN unit text;

INSERT INTO settings (name, value) VALUES ('outcome_units_since', statement_timestamp()::text);
