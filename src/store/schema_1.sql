-- Times are microseconds since the Unix epoch. Uuids are 16 bytes. Vectors are little-endian f32.
-- Erasing: secure_delete overwrites what is deleted, but when SQLite moves rows between pages, to
-- balance them, it can leave a copy in the unused part of a page. Rows that hold somebody's template
-- or picture are therefore only ever appended, and emptied in place when the person is erased:
-- neither moves a row. The small empty rows stay; those of snapshots until they are too old.
-- What is left of this until the store encrypts by subject: names, ids and file paths are deleted in
-- the ordinary way, and so is what is pruned by age.

-- The log of events: its name, made once.
CREATE TABLE log (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    epoch    BLOB NOT NULL
);
INSERT INTO log (only_row, epoch) VALUES (1, randomblob(16));

CREATE TABLE subjects (
    number            INTEGER PRIMARY KEY AUTOINCREMENT,
    uid               BLOB NOT NULL UNIQUE,
    id                TEXT NOT NULL UNIQUE,
    display_name      TEXT NOT NULL,
    watchlists        TEXT NOT NULL, -- JSON: [name, ...]
    attributes        TEXT NOT NULL, -- JSON: {name: value, ...}
    consent_reference TEXT NOT NULL,
    expire_time_us    INTEGER,
    origin            TEXT NOT NULL,
    create_time_us    INTEGER NOT NULL,
    update_time_us    INTEGER NOT NULL,
    revision          INTEGER NOT NULL
);

CREATE TABLE samples (
    number         INTEGER PRIMARY KEY AUTOINCREMENT, -- order of arrival
    id             BLOB NOT NULL UNIQUE,
    subject        BLOB NOT NULL REFERENCES subjects (uid),
    quality        BLOB NOT NULL, -- nine f32: overall, size, sharpness, brightness, contrast, yaw, pitch, roll, detection score
    content_sha256 BLOB NOT NULL,
    create_time_us INTEGER NOT NULL,
    folder_path    TEXT
);
CREATE INDEX samples_by_subject ON samples (subject);

CREATE TABLE spaces (
    number INTEGER PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE
);

CREATE TABLE templates (
    sample INTEGER PRIMARY KEY, -- its number; the row outlives it, empty
    space  INTEGER REFERENCES spaces (number), -- NULL once erased
    vector BLOB NOT NULL
);
CREATE INDEX templates_by_space ON templates (space);

CREATE TABLE photos (
    sample INTEGER PRIMARY KEY, -- likewise
    bytes  BLOB NOT NULL
);

-- Photos that the enrolment folder must not bring back.
CREATE TABLE erased_content (
    sha256  BLOB PRIMARY KEY NOT NULL,
    time_us INTEGER NOT NULL
) WITHOUT ROWID;

-- What was changed in which order, for ever: no personal data.
CREATE TABLE mutations (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT NOT NULL,
    subject  BLOB NOT NULL,
    sample   BLOB,
    time_us  INTEGER NOT NULL
);
CREATE INDEX erasures ON mutations (subject) WHERE kind = 'erase_subject';

-- First answers, for repeats; NULL once somebody they are about is erased.
CREATE TABLE requests (
    key     TEXT PRIMARY KEY NOT NULL,
    answer  BLOB,
    time_us INTEGER NOT NULL
);
CREATE INDEX requests_by_time ON requests (time_us);

CREATE TABLE request_subjects (
    subject BLOB NOT NULL,
    request TEXT NOT NULL REFERENCES requests (key) ON DELETE CASCADE,
    PRIMARY KEY (subject, request)
) WITHOUT ROWID;
CREATE INDEX request_subjects_by_request ON request_subjects (request);

CREATE TABLE cameras (
    id                 TEXT PRIMARY KEY NOT NULL,
    url                TEXT NOT NULL,
    display_name       TEXT NOT NULL,
    role               TEXT NOT NULL,
    transport          TEXT NOT NULL,
    lines              TEXT NOT NULL, -- JSON: [[name, [[x, y], ...]], ...]
    zones              TEXT NOT NULL, -- likewise
    analysis_fps_max   REAL,
    detector_side      INTEGER,
    region_of_interest TEXT, -- JSON: [x, y, width, height]
    face_pixels_min    INTEGER NOT NULL,
    threshold          REAL,
    enabled            INTEGER NOT NULL,
    create_time_us     INTEGER NOT NULL,
    update_time_us     INTEGER NOT NULL,
    revision           INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE credentials (
    camera   TEXT PRIMARY KEY NOT NULL REFERENCES cameras (id) ON DELETE CASCADE,
    username TEXT NOT NULL,
    password TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE events (
    sequence        INTEGER PRIMARY KEY AUTOINCREMENT,
    kind            TEXT NOT NULL,
    camera          TEXT NOT NULL,
    capture_time_us INTEGER NOT NULL,
    visit           BLOB,
    subject         BLOB,
    snapshot        BLOB,
    body            TEXT NOT NULL -- JSON, as it was appended
);
CREATE INDEX events_by_capture_time ON events (capture_time_us);
CREATE INDEX events_by_visit ON events (visit) WHERE visit IS NOT NULL;
CREATE INDEX events_by_subject ON events (subject) WHERE subject IS NOT NULL;
CREATE INDEX events_by_snapshot ON events (snapshot) WHERE snapshot IS NOT NULL;

CREATE TABLE open_visits (
    visit    BLOB PRIMARY KEY NOT NULL,
    sequence INTEGER NOT NULL REFERENCES events (sequence)
) WITHOUT ROWID;
CREATE INDEX open_visits_by_event ON open_visits (sequence);

CREATE TABLE snapshots (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    id              BLOB NOT NULL UNIQUE,
    camera          TEXT NOT NULL,
    capture_time_us INTEGER NOT NULL,
    subject         BLOB,
    crop_sha256     BLOB, -- a sample made of this crop ties the snapshot to its subject; NULL once erased
    crop_jpeg       BLOB NOT NULL,
    frame_jpeg      BLOB NOT NULL
);
CREATE INDEX snapshots_by_capture_time ON snapshots (capture_time_us);
CREATE INDEX snapshots_by_subject ON snapshots (subject) WHERE subject IS NOT NULL;
CREATE INDEX snapshots_by_crop ON snapshots (crop_sha256) WHERE crop_sha256 IS NOT NULL;
