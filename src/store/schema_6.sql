-- The log can be read from any place, and is cut at its old end only: what is left has no gap.

-- When the log took the event, and how many bytes of bodies the log had taken before it: what is kept
-- takes as much as lies between the oldest and the newest.
ALTER TABLE events ADD COLUMN log_time_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN log_offset INTEGER NOT NULL DEFAULT 0;
UPDATE events SET log_time_us = coalesce(json_extract(body, '$.decision_time_us'), capture_time_us),
                  log_offset = before.bytes
FROM (SELECT sequence AS of, sum(octet_length(body)) OVER (ORDER BY sequence) - octet_length(body) AS bytes FROM events) AS before
WHERE events.sequence = before.of;
-- The log is cut by its order; its age no longer needs an index.
DROP INDEX events_by_capture_time;

-- A visit may stay open for longer than events are kept, so it holds its first event itself.
CREATE TABLE standing_visits (
    visit    BLOB PRIMARY KEY NOT NULL,
    sequence INTEGER NOT NULL,
    body     TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO standing_visits SELECT v.visit, v.sequence, e.body FROM open_visits v JOIN events e ON e.sequence = v.sequence;
DROP TABLE open_visits;
ALTER TABLE standing_visits RENAME TO open_visits;
