import secrets

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Order(models.Model):
    account = models.CharField(max_length=50)
    cents = models.IntegerField()
    state = models.CharField(max_length=20, default="placed")

    def as_json(self):
        return {"number": self.pk, "cents": self.cents, "state": self.state}


def new_secret():
    return secrets.token_urlsafe(32)


class Endpoint(models.Model):
    account = models.CharField(max_length=50, db_index=True)
    url = models.URLField(max_length=500)
    events = ArrayField(models.CharField(max_length=100))
    secret = models.CharField(max_length=100, default=new_secret)
    active = models.BooleanField(default=True)


class Sent(models.Model):
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE)
    event = models.CharField(max_length=100)
    status = models.IntegerField(null=True)
    error = models.TextField(blank=True)
    at = models.DateTimeField(auto_now_add=True)
