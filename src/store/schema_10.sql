-- Directories that the enrolment folder must not enrol anybody by: whoever was called so was erased. The name was erased with them, so
-- what is kept is its hash.
CREATE TABLE erased_ids (
    id_sha256 BLOB PRIMARY KEY NOT NULL
) WITHOUT ROWID;
