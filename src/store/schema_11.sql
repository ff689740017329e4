-- A directory that was away may be filled again by the folder. It frees nobody's name for an import: that has no directory to be away.
ALTER TABLE erased_ids ADD COLUMN was_away INTEGER NOT NULL DEFAULT 0;
-- Answers to reloads that were kept before named directories and people, whom no erasure would find there.
UPDATE requests SET answer = NULL WHERE CAST(answer AS TEXT) LIKE '{"method":"reload",%';
