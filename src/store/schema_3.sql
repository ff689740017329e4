-- Negative samples: photos of somebody else who must never be taken for the subject.
ALTER TABLE samples ADD COLUMN negative INTEGER NOT NULL DEFAULT 0;
ALTER TABLE retired_samples ADD COLUMN negative INTEGER NOT NULL DEFAULT 0;
-- Who is erased is also erased where they serve as somebody whom another subject is not.
CREATE INDEX negative_samples ON samples (content_sha256) WHERE negative;
CREATE INDEX negative_retired_samples ON retired_samples (content_sha256) WHERE negative;
