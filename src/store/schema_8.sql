-- A camera may ask for an error rate instead of a similarity.
ALTER TABLE cameras ADD COLUMN target_fpir REAL;
