-- How each model that may make a generation is charged, as JSON: unit price and markup stand as they were quoted, also after a
-- restart with other ones. Null in rows that were written before: an equal share of the hold counts for each image.
-- The columns are those of the SQLite migration beside this one.
ALTER TABLE generations ADD COLUMN terms TEXT;
