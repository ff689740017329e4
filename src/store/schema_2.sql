-- Versions that can be gone back to. What a commit replaces or takes out of the gallery is kept until
-- it is older than the history that the operator asks for; what is erased is never kept.

-- What each commit of mutations did, newest last. The version is the sequence of its last mutation.
CREATE TABLE gallery_versions (
    version          INTEGER PRIMARY KEY,
    time_us          INTEGER NOT NULL,
    cause            TEXT NOT NULL, -- the call that made it
    subjects_added   INTEGER NOT NULL,
    subjects_changed INTEGER NOT NULL,
    subjects_removed INTEGER NOT NULL,
    samples_added    INTEGER NOT NULL,
    samples_removed  INTEGER NOT NULL,
    subjects         INTEGER NOT NULL, -- how many there are in it
    samples          INTEGER NOT NULL
);
INSERT INTO gallery_versions
SELECT coalesce((SELECT max(sequence) FROM mutations), 0), CAST(unixepoch('subsec') * 1000000 AS INTEGER),
       CASE WHEN EXISTS (SELECT 1 FROM mutations) THEN 'upgrade' ELSE 'created' END, 0, 0, 0, 0, 0,
       (SELECT count(*) FROM subjects), (SELECT count(*) FROM samples);

-- Who was there in a version, among those who have been erased since.
CREATE INDEX creations ON mutations (subject) WHERE kind = 'put_subject';

-- A subject as it was before the mutation of this sequence replaced or retired it.
CREATE TABLE subject_history (
    sequence          INTEGER PRIMARY KEY,
    time_us           INTEGER NOT NULL,
    uid               BLOB NOT NULL,
    id                TEXT NOT NULL,
    display_name      TEXT NOT NULL,
    watchlists        TEXT NOT NULL,
    attributes        TEXT NOT NULL,
    consent_reference TEXT NOT NULL,
    expire_time_us    INTEGER,
    origin            TEXT NOT NULL,
    create_time_us    INTEGER NOT NULL,
    update_time_us    INTEGER NOT NULL,
    revision          INTEGER NOT NULL
);
CREATE INDEX subject_history_by_uid ON subject_history (uid);
CREATE INDEX subject_history_by_id ON subject_history (id);

-- Samples that were taken out of the gallery. Their templates and photos stay where they are.
CREATE TABLE retired_samples (
    number         INTEGER PRIMARY KEY,
    id             BLOB NOT NULL UNIQUE,
    subject        BLOB NOT NULL,
    quality        BLOB NOT NULL,
    content_sha256 BLOB NOT NULL,
    create_time_us INTEGER NOT NULL,
    folder_path    TEXT,
    retired_us     INTEGER NOT NULL
);
CREATE INDEX retired_samples_by_subject ON retired_samples (subject);
CREATE INDEX retired_samples_by_time ON retired_samples (retired_us);
