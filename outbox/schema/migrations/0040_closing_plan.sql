-- An hour or a day of the statistics is closed in time that grows with what it has. A quiet night, or the first hours of a new
-- table, leave the planner with the belief that there is one row; then it compared each of ten thousand sums with each
-- histogram and each failure: minutes of CPU, every hour.
-- least code: 27
set local lock_timeout = '5s';

alter function outbox.close_rollups(integer, integer, name, timestamptz) set enable_nestloop = off;
