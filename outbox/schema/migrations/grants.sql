-- Run at every migrate: four group roles, made where the migrating user may make roles, and what each needs, no more.
--   outbox_app       records events and sees nothing of them but their numbers; notes what it received and reads none of it
--   outbox_operator  the control plane: subscriptions, replay (which writes a pruned event again), retry, cancel, purge,
--                    retention, the switch of all sending, the adoption of a copy
--   outbox_relay     what `relay run` does
--   outbox_reader    looks at everything but secrets and whole URLs
-- PUBLIC gets nothing, and nobody gets anything on a leaf: a row put straight into one would never become pending.

revoke all on schema outbox from public;
revoke all on all functions in schema outbox from public;

do $$
declare
    tables constant text := 'outbox.schema_migrations, outbox.events, outbox.pending, outbox.sealing_keys,
        outbox.subscription_types, outbox.deliveries, outbox.resolutions, outbox.dead_letters, outbox.audit,
        outbox.settings, outbox.rights, outbox.turns, outbox.rounds, outbox.relays, outbox.poller, outbox.idempotency_keys,
        outbox.idempotency_requests, outbox.sending, outbox.limits, outbox.in_flight, outbox.tenant_limits, outbox.health,
        outbox.bulk_operations, outbox.test_requests, outbox.uncounted, outbox.uncounted_leaves, outbox.rollups,
        outbox.rollup_state, outbox.tenant_retention, outbox.tenant_retention_passes, outbox.home,
        outbox.inbox, outbox.inbox_ids, outbox.catalogues, outbox.event_types';
    views constant text := 'outbox.v_backlog, outbox.v_deliveries_by_state, outbox.v_subscriptions_health,
        outbox.v_recent_failures, outbox.v_dead_letters, outbox.v_statistics_1h, outbox.v_statistics_24h, outbox.v_statistics_7d,
        outbox.v_statistics_30d, outbox.v_statistics_types_24h, outbox.v_messages, outbox.shown_attempts';
    reading constant text := 'outbox.statistics, outbox.statistics_series, outbox.statistics_since, outbox.rollup_parts,
        outbox.uncounted_attempts, outbox.latency_bounds, outbox.latency_of, outbox.state_of, outbox.host_of,
        outbox.reconciliation';
    texts constant text := 'outbox.text_id, outbox.uuid_of, outbox.patterns_of, outbox.body, outbox.filter_hash, outbox.id_of_key';
    recording constant text := (
        select string_agg(oid::regprocedure::text, ', ' order by oid::regprocedure::text) from pg_proc
        where pronamespace = 'outbox'::regnamespace and proname in ('record', 'record_once'));
    urls constant text := 'outbox.shown_url, outbox.shown_beginning, outbox.shown_path, outbox.shown_query, outbox.shown_pair,
        outbox.looks_secret';
    rules constant text := 'outbox.keeps_rules, outbox.broken_rule, outbox.max_payload_bytes, outbox.refuses_type,
        outbox.metadata_is_text_by_name';
    findings constant text := 'outbox.findings, outbox.collation_findings, outbox.grant_findings, outbox.here, outbox.is_copied';
    upkeep constant text := 'outbox.make_event_leaf, outbox.make_attempt_leaf, outbox.retire_event_leaf,
        outbox.retire_next_event_leaf, outbox.retire_next_attempt_leaf,
        outbox.prune_events, outbox.retire_attempt_leaf, outbox.prune_attempts, outbox.prune_resolutions,
        outbox.drop_empty_leaf, outbox.cancel_orphans, outbox.make_key_leaf, outbox.forget_keys,
        outbox.roll_up, outbox.note_old_attempts, outbox.prune_rollups, outbox.prune_dead_letters,
        outbox.prune_audit, outbox.prune_tenant_events, outbox.prune_tenant, outbox.erase_next,
        outbox.make_inbox_leaf, outbox.prune_inbox';
    -- A URL may be a credential: shown_url, and url of shown_attempts, are what readers see of it.
    shown constant text := (
        select string_agg(attname, ', ' order by attnum) from pg_attribute
        where attrelid = 'outbox.subscriptions'::regclass and attnum > 0 and not attisdropped and attname <> 'url');
    shown_of_attempts constant text := (
        select string_agg(attname, ', ' order by attnum) from pg_attribute
        where attrelid = 'outbox.attempts'::regclass and (attnum > 0 or attname = 'ctid') and not attisdropped and attname <> 'url');
    rights constant text[] := array[
        ['outbox_app', 'usage on schema outbox'],
        ['outbox_app', 'select on outbox.schema_migrations'],
        ['outbox_app', 'insert (id, tenant, type, key, payload, recorded_at, available_at, priority, trace, metadata) on outbox.events'],
        ['outbox_app', 'select (seq, id) on outbox.events'],
        ['outbox_app', 'usage on sequence outbox.events_seq'],
        ['outbox_app', 'execute on function ' || recording || ', outbox.content_recorded, outbox.capture_row, outbox.row_images_query, outbox.row_data_query, outbox.uuid7, ' || rules || ', ' || texts],
        ['outbox_app', 'execute on function outbox.inbox_receive, outbox.inbox_answer, outbox.inbox_note'],

        ['outbox_operator', 'usage on schema outbox'],
        ['outbox_operator', 'select on outbox.secrets, outbox.subscriptions, outbox.attempts, ' || tables || ', ' || views],
        ['outbox_operator', 'select on sequence outbox.events_seq'],
        ['outbox_operator', 'insert, update on outbox.subscriptions'],
        ['outbox_operator', 'insert on outbox.attempts, outbox.sealing_keys'],
        ['outbox_operator', 'update (created_at) on outbox.sealing_keys'],
        ['outbox_operator', 'insert, update, delete on outbox.secrets'],
        ['outbox_operator', 'insert, update (due_at, not_before), delete on outbox.deliveries'],
        ['outbox_operator', 'update (paused_at, reason) on outbox.sending'],
        ['outbox_operator', 'delete on outbox.dead_letters'],
        ['outbox_operator', 'insert, update (available_at) on outbox.events'],
        ['outbox_operator', 'insert, delete on outbox.pending'],
        ['outbox_operator', 'delete on outbox.inbox_ids'],
        ['outbox_operator', 'update (value) on outbox.settings'],
        ['outbox_operator', 'insert, update, delete on outbox.tenant_limits'],
        ['outbox_operator', 'select, insert, update (last_used_at, revoked_at) on outbox.tokens'],
        ['outbox_operator', 'select, insert, update (answer), delete on outbox.api_requests'],
        ['outbox_operator', 'select, insert (tenant, rights, person, hash, expires_at),
            update (opened_at, session_hash, session_expires_at, revoked_at), delete on outbox.portal_links'],
        ['outbox_operator', 'insert (kind, tenant, subscription_id, parameters, plan, phase, rate), update (state, rate)
            on outbox.bulk_operations'],
        ['outbox_operator', 'insert (id, subscription_id, type, payload) on outbox.test_requests'],
        ['outbox_operator', 'select, insert (kind, value, path, tenant, asked_by, cancel_undelivered),
            update (state, cancel_undelivered) on outbox.erasures'],
        ['outbox_operator', 'insert, update (events_days, attempts_days, dead_letters_days), delete on outbox.tenant_retention'],
        ['outbox_operator', 'insert, update, delete on outbox.catalogues, outbox.event_types'],
        ['outbox_operator', 'execute on function outbox.actor, outbox.uuid7, outbox.audit_operation, outbox.retention_bound, outbox.restore_events,
            outbox.hold_tenant, outbox.adopt, outbox.is_erased, outbox.payload_holds, outbox.json_holds, outbox.received_of, ' || rules || ', ' || upkeep || ', '
            || findings || ', ' || reading || ', ' || urls || ', ' || texts],

        ['outbox_relay', 'usage on schema outbox'],
        ['outbox_relay', 'select on outbox.secrets, outbox.subscriptions, outbox.attempts, ' || tables],
        ['outbox_relay', 'select on sequence outbox.events_seq'],
        ['outbox_relay', 'insert, update, delete on outbox.deliveries'],
        ['outbox_relay', 'insert, delete on outbox.dead_letters'],
        ['outbox_relay', 'update, delete on outbox.pending'],
        ['outbox_relay', 'insert on outbox.attempts, outbox.resolutions'],
        ['outbox_relay', 'update (disabled_at, disabled_reason, held_until, sorting_since) on outbox.subscriptions'],
        ['outbox_relay', 'delete on outbox.subscriptions, outbox.secrets'],
        ['outbox_relay', 'update (secret) on outbox.secrets'],
        ['outbox_relay', 'update (taken) on outbox.turns'],
        ['outbox_relay', 'insert, update on outbox.rounds'],
        ['outbox_relay', 'insert, update, delete on outbox.relays'],
        ['outbox_relay', 'update on outbox.poller'],
        ['outbox_relay', 'insert, update, delete on outbox.limits, outbox.in_flight'],
        ['outbox_relay', 'insert, update, delete on outbox.health'],
        ['outbox_relay', 'update (state, done, passed_over, phase, after_at, after_id, after_seq, allowed_at, holder,
            leased_until, failures, last_error, xid) on outbox.bulk_operations'],
        ['outbox_relay', 'execute on function outbox.uuid7, outbox.hold_events, outbox.restore_events, outbox.note_home, ' || upkeep || ', ' || findings || ', ' || urls || ', '
            || texts],
        ['outbox_relay', 'update (taken_at, answered_at, answer), delete on outbox.test_requests'],

        ['outbox_reader', 'usage on schema outbox'],
        ['outbox_reader', 'select on ' || tables || ', ' || views],
        ['outbox_reader', 'select (' || shown || ') on outbox.subscriptions'],
        ['outbox_reader', 'select (' || shown_of_attempts || ') on outbox.attempts'],
        ['outbox_reader', 'select (id, subscription_id, kind, hint, sealed_to, created_at, expires_at) on outbox.secrets'],
        ['outbox_reader', 'select (id, name, tenant, rights, created_by, created_at, expires_at, last_used_at, revoked_at) on outbox.tokens'],
        ['outbox_reader', 'select (id, tenant, rights, person, created_by, created_at, expires_at, opened_at, session_expires_at,
            revoked_at) on outbox.portal_links'],
        ['outbox_reader', 'select (id, kind, path, salt, digest, cancel_undelivered, state, phase, counts, last_error,
            requested_by, role, created_at, finished_at) on outbox.erasures'],
        ['outbox_reader', 'select on sequence outbox.events_seq'],
        ['outbox_reader', 'execute on function ' || findings || ', ' || reading || ', ' || urls || ', ' || texts]];
    one text[];
    held record;
    grantee text;
begin
    -- First take back what they hold, whoever gave it: what is not in this list is too much.
    for held in
        select distinct case g.kind when 'column' then 'table' else g.kind end as kind,
               case g.kind when 'column' then substring(g.object from '^outbox\.(?:"(?:[^"]|"")*"|[^."]+)') else g.object end
               as object, g.grantee::regrole as role
        from outbox.granted() g join pg_roles r on r.oid = g.grantee
        where r.rolname in ('outbox_app', 'outbox_operator', 'outbox_relay', 'outbox_reader')
    loop
        execute format('revoke all on %s %s from %s cascade', held.kind, held.object, held.role);
    end loop;
    foreach one slice 1 in array rights loop
        if to_regrole(one[1]) is null then
            begin
                execute format('create role %I nologin', one[1]);
            exception
                when duplicate_object or unique_violation then null;  -- another database's migration was faster
                when insufficient_privilege then continue;
            end;
        end if;
        execute format('grant %s to %I', one[2], one[1]);
    end loop;
    -- The rules run as whoever inserts: a role that was given INSERT by hand must be able to run them too.
    for grantee in
        select distinct case given.grantee when 0 then 'public' else given.grantee::regrole::text end
        from (select a.grantee, a.privilege_type from pg_class c cross join aclexplode(c.relacl) a
              where c.oid = 'outbox.events'::regclass
              union all
              select a.grantee, a.privilege_type from pg_attribute c cross join aclexplode(c.attacl) a
              where c.attrelid = 'outbox.events'::regclass) given
        where given.privilege_type = 'INSERT'
    loop
        execute format('grant execute on function %s to %s', rules, grantee);
    end loop;
    -- What `relay migrate --check` compares with.
    delete from outbox.rights;
    insert into outbox.rights
        select distinct r.rolname, g.object, g.privilege from outbox.granted() g join pg_roles r on r.oid = g.grantee
        where r.rolname in ('outbox_app', 'outbox_operator', 'outbox_relay', 'outbox_reader');
end $$;

-- Sequences that are behind their rows, and tables without a replica identity.
select outbox.mend();
