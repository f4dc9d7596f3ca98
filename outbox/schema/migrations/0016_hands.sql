-- What people do by hand: one switch for all sending, a pause that drops what comes, deliveries cancelled for good.
set local lock_timeout = '5s';

-- The switch. Its one row is read by every poll of every relay; while paused_at is set nothing is leased and no attempt
-- begins. A table of its own: a change of it moves no version of a subscription.
create table outbox.sending (
    single boolean primary key default true,
    paused_at timestamptz,
    reason text,
    actor text,
    constraint there_is_one check (single),
    constraint reason_is_short check (octet_length(reason) between 1 and 500),
    constraint paused_at_is_a_date check (paused_at >= '0001-01-01Z' and paused_at < '10000-01-01Z')
);
insert into outbox.sending default values;

-- Whoever moves the switch, by command or by SQL, is noted. actor is never what somebody wrote there.
create function outbox.note_sending() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    new.actor := case when new.paused_at is not null then coalesce(old.actor, outbox.actor()) end;
    new.reason := case when new.paused_at is not null then new.reason end;
    if (old.paused_at, old.reason) is distinct from (new.paused_at, new.reason) then
        insert into outbox.audit (action, before, after)
            values (case when new.paused_at is null then 'sending resumed' else 'sending paused' end,
                    jsonb_build_object('paused_at', outbox.utc(old.paused_at), 'reason', old.reason),
                    jsonb_build_object('paused_at', outbox.utc(new.paused_at), 'reason', new.reason));
    end if;
    return new;
end $$;
create trigger note before update on outbox.sending
    for each row execute function outbox.note_sending();

-- Paused so, a subscription matches no event: what comes meanwhile is not kept for it. Means nothing while paused_at is
-- null.
alter table outbox.subscriptions add column drops_while_paused boolean not null default false;

-- A delivery that a person cancelled leaves this row. Not valid where there are rows: each of them kept a narrower rule.
alter table outbox.attempts
    drop constraint verdict_is_known,
    add constraint verdict_is_known check (verdict in ('delivered', 'retry', 'dead', 'test', 'cancelled')) not valid;
set local lock_timeout to default;
do $$
begin
    if not exists (select from outbox.attempts) then
        alter table outbox.attempts validate constraint verdict_is_known;
    end if;
end $$;

-- Two functions know more words, and stay otherwise as they are.
do $$
declare
    one record;
    was text;
    becomes text;
begin
    for one in select * from (values
            ('outbox.audit_operation(text, text, text, jsonb)'::regprocedure,
             $a$'pruned'$a$, $a$'pruned', 'retried', 'cancelled'$a$),
            ('outbox.audit_delivery()'::regprocedure,
             $a$verdict = 'delivered'$a$, $a$verdict = any ('{delivered,cancelled}')$a$)) v(name, words, more) loop
        was := pg_get_functiondef(one.name);
        becomes := replace(was, one.words, one.more);
        if was = becomes then
            raise 'no % in %', one.words, one.name;
        end if;
        execute becomes;
    end loop;
end $$;
