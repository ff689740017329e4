-- Whose photo a content is: an import asks it of every photo before the photo is looked at.
CREATE INDEX samples_by_content ON samples (content_sha256);
