-- What another model, head or policy would have decided. A shadow is known by what it is made of, so that it
-- goes on counting after a restart.
CREATE TABLE shadows (
    number         INTEGER PRIMARY KEY,
    key            TEXT NOT NULL UNIQUE,
    start_time_us  INTEGER NOT NULL,
    agrees         INTEGER NOT NULL DEFAULT 0,
    would_name     INTEGER NOT NULL DEFAULT 0,
    would_not_name INTEGER NOT NULL DEFAULT 0,
    would_rename   INTEGER NOT NULL DEFAULT 0,
    unanswered     INTEGER NOT NULL DEFAULT 0
);
-- The visits about which the two differ.
CREATE TABLE shadow_verdicts (
    number          INTEGER PRIMARY KEY,
    shadow          INTEGER NOT NULL REFERENCES shadows (number) ON DELETE CASCADE,
    capture_time_us INTEGER NOT NULL,
    -- Whom the two named, and the picture: all three go with the person.
    subject         BLOB,
    shadow_subject  BLOB,
    snapshot        BLOB,
    body            TEXT NOT NULL
);
CREATE INDEX shadow_verdicts_by_shadow ON shadow_verdicts (shadow, number);
CREATE INDEX shadow_verdicts_by_time ON shadow_verdicts (capture_time_us);
CREATE INDEX shadow_verdicts_by_subject ON shadow_verdicts (subject) WHERE subject IS NOT NULL;
CREATE INDEX shadow_verdicts_by_shadow_subject ON shadow_verdicts (shadow_subject) WHERE shadow_subject IS NOT NULL;
