from django.db import migrations

import outbox

SENT_AS = {"scheme": "fulfil", "format": "raw", "schedule_seconds": [2, 4, 8], "timeout_seconds": 10}


def move(apps, schema_editor):
    connection = schema_editor.connection
    for old in apps.get_model("shop", "Endpoint").objects.order_by("pk"):
        kept = {"tenant": old.account, "name": str(old.pk), "secret": old.secret}
        moved = outbox.subscribe(connection, old.url, old.events, **kept, **SENT_AS)
        if not old.active:
            outbox.subscriptions.pause(connection, moved.id, drop=True, tenant=old.account)


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial"), ("outbox_relay", "0031_long_words")]
    operations = [migrations.RunPython(move), migrations.DeleteModel("Sent"), migrations.DeleteModel("Endpoint")]
