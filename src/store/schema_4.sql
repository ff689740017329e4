-- Templates that were made later than their sample, for another encoder, so that an encoder can be changed
-- while the one before goes on matching. What holds for templates holds here: rows are appended, and
-- emptied in place when the person is erased.
CREATE TABLE later_templates (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sample INTEGER NOT NULL, -- its number; the row outlives it, empty
    space  INTEGER REFERENCES spaces (number), -- NULL once erased
    vector BLOB NOT NULL
);
-- One a space. What is empty is no more in the way.
CREATE UNIQUE INDEX later_templates_by_sample ON later_templates (sample, space);
