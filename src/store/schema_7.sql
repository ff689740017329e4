-- What the gallery told last is looked up at each start.
CREATE INDEX gallery_events ON events (sequence) WHERE kind = 'gallery_changed';

-- What is told of what a camera sees, when, and what is kept of its pictures.
ALTER TABLE cameras ADD COLUMN telling TEXT NOT NULL DEFAULT '{}'; -- JSON
