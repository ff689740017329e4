-- Whether inference had failed when the last run ended is looked up at each start.
CREATE INDEX inference_events ON events (sequence) WHERE kind IN ('inference_failed', 'inference_restored');
