-- +goose Up

-- The bucket of the split in which the subject was, under the salt of the phase:
-- a later phase's ranges say by it whether they give the subject another variant.
-- Null where no split decided, and for exposures from before this migration or of
-- a server from before it.
ALTER TABLE exposures ADD COLUMN bucket integer;
