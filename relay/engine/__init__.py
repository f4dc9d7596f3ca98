"""One database's loops: fan_out → claim → send → decide → settle. engine.py builds, runs and drains them.

The files by theme, in the order of a delivery's life:

- the loop: feeder.py looks for work; poll_interval.py says how long it rests, poll_turn.py which idle relay looks
  often; side_tasks.py does what is beside the work; sweep.py finds what no hint names
- hints: due_map.py (who has due deliveries), due_marks.py (where they begin), low_water.py (where pending events begin)
- fan_out: fan_out.py → take_shares.py (whose events first) → planning.py (born leased, due or parked) →
  born_batches.py
- filters: filtering.py (in fan_out) → asking.py (of one event) → compiled_filters.py → filter_answers.py; the
  evaluator is outbox/subscriptions/filters
- order: lanes.py
- claims: claim.py (due), batches.py (several as one request), suspects.py → lone_suspect.py (whose crash it was),
  breaker_watch.py (probes), bulk.py (what a person puts back)
- endpoints: endpoint_registry.py → endpoint.py → window.py (how many requests at once); forgotten_endpoints.py;
  ailing.py (which successes change its health in the database)
- room in the process: room.py → fairness.py (endpoints that do not answer), tenants.py, byte_shares.py, lending.py
- limits: limiter.py → gate.py (of an endpoint) → slots.py (of a rate); slowing.py (429 and 503);
  standstill.py (this process stood still during an attempt)
- sending: sending.py → attempts.py (one request, one outcome), transforming.py (its body); sending_switch.py (whether
  anything may be sent), unsent.py (what this machine could not send)
- deciding: judging.py (a failure; relay/model/decide.py has the rules)
- settling: settler.py → set_aside.py (rows that somebody holds)
- the database: outage.py (it is away), pace.py (it is slow), clock.py (its time), stuck_relays.py (another relay
  stopped in a transaction)
- logs: failure_log.py → failures.py (is a line due?), dead_letter_log.py; both → log_bursts.py (few lines for many)
- for the process: meter.py (who measures), freed_memory.py

A share is the part of something limited (a take, bytes, a cap, the loop's time) that one may have.

relay/store has every SQL statement; relay/model/delivery.py draws what they do to a delivery.
"""
