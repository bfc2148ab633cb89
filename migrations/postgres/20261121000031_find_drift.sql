-- Generations that the provider billed another amount for than the catalogue computed: their answer keeps what was computed.
-- Only adds. The names are those of the SQLite migration beside this one.
CREATE INDEX generations_drifted ON generations (id) WHERE strpos(answer, '"computed_cost_usd":') > 0;
