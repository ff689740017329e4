-- What is told of what a camera sees, when, and what is kept of its pictures.
ALTER TABLE cameras ADD COLUMN telling TEXT NOT NULL DEFAULT '{}'; -- JSON
